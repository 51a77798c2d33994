"""Losses and networks for images: kornia, MONAI, segmentation-models-pytorch, piq, pytorch-msssim."""

from __future__ import annotations

from typing import Any

import torch

from zoo_models.entry import DATA_DEPENDENT, Case, Entry, Function, load


def _pair(size: int = 16, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images in [0, 1], (2, channels, size, size)."""
    return torch.rand(2, channels, size, size), torch.rand(2, channels, size, size)


def _logits(classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, classes, 8, 8) and labels (2, 8, 8)."""
    return torch.randn(2, classes, 8, 8), torch.randint(classes, (2, 8, 8))


def _kornia(name: str, *settings: Any, size: float = 300.0, **named: Any) -> Case:
    logits, labels = _logits()
    module = load(f"kornia.losses.{name}")(*settings, **named)
    return Case(module, (logits, labels), (size * logits, labels))


def _kornia_binary() -> Case:
    module = load("kornia.losses.BinaryFocalLossWithLogits")(alpha=0.25, gamma=2.0, reduction="mean")
    logits = torch.randn(2, 1, 8, 8)
    labels = torch.randint(2, (2, 1, 8, 8)).float()
    return Case(module, (logits, labels), (300 * logits, labels))


def _of_pair(path: str, *settings: Any, size: int = 16, channels: int = 1, **named: Any) -> Case:
    return Case(load(path)(*settings, **named), _pair(size, channels))


def _divergence(name: str) -> Case:
    divergence = load(f"kornia.losses.{name}")

    def compare(a: torch.Tensor, b: torch.Tensor) -> Any:
        return divergence(a.flatten(2).softmax(-1).view_as(a), b.flatten(2).softmax(-1).view_as(b))

    a, b = _pair()
    return Case(Function(compare), (a, b), (300 * a, 300 * b))


def _monai(name: str, size: float | None = 300.0, **settings: Any) -> Case:
    logits = torch.randn(2, 3, 8, 8)
    target = torch.nn.functional.one_hot(torch.randint(3, (2, 8, 8)), 3).movedim(-1, 1).float()
    module = load(f"monai.losses.{name}")(**settings)
    return Case(module, (logits, target), None if size is None else (size * logits, target))


def _contrastive() -> Case:
    """At a temperature where exp(1 / temperature) is beyond float32."""
    module = load("monai.losses.ContrastiveLoss")(temperature=0.005)
    pair = torch.randn(4, 8), torch.randn(4, 8)
    return Case(module, pair, pair)


def _network(path: str, *shape: int, **settings: Any) -> Case:
    return Case(load(path)(**settings), (torch.randn(*shape),))


def _smp(name: str, **settings: Any) -> Case:
    logits, labels = _logits()
    return Case(
        load(f"segmentation_models_pytorch.losses.{name}")(**settings), (logits, labels), (300 * logits, labels)
    )


_MASKED = (
    "The package masks cells where p = 0. In float32 p is 0 where it is not exactly: what the log is there is wrong "
    "before and after, and a finite wrong number in place of NaN is no repair."
)

MODELS = (
    Entry("kornia-focal", "kornia",
          lambda: _kornia("FocalLoss", alpha=0.5, gamma=2.0, reduction="mean"), defects=("STB211",)),
    Entry("kornia-binary-focal", "kornia", _kornia_binary),
    Entry("kornia-dice", "kornia", lambda: _kornia("DiceLoss")),
    Entry("kornia-tversky", "kornia", lambda: _kornia("TverskyLoss", alpha=0.5, beta=0.5)),
    Entry("kornia-js", "kornia", lambda: _divergence("js_div_loss_2d"), defects=("STB102",), note=_MASKED),
    Entry("kornia-kl", "kornia", lambda: _divergence("kl_div_loss_2d"), defects=("STB102",), note=_MASKED),
    Entry("kornia-ssim", "kornia", lambda: _of_pair("kornia.losses.SSIMLoss", 5)),
    Entry("kornia-charbonnier", "kornia", lambda: _of_pair("kornia.losses.CharbonnierLoss")),
    Entry("kornia-welsch", "kornia", lambda: _of_pair("kornia.losses.WelschLoss"), defects=("STB211",)),
    Entry("monai-contrastive", "monai", _contrastive, defects=("STB103",), onnx=True, onnx_codes=("STB205",)),
    Entry("monai-dice-ce", "monai", lambda: _monai("DiceCELoss", softmax=True), refused=DATA_DEPENDENT),
    Entry("monai-focal", "monai", lambda: _monai("FocalLoss", use_softmax=True), defects=("STB211",)),
    Entry("monai-sigmoid-focal", "monai", lambda: _monai("FocalLoss")),
    Entry("monai-unified-focal", "monai", lambda: _monai("AsymmetricUnifiedFocalLoss", None, num_classes=3),
          refused=DATA_DEPENDENT),
    Entry("monai-ssim", "monai", lambda: _of_pair("monai.losses.SSIMLoss", spatial_dims=2)),
    Entry("monai-mutual-information", "monai",
          lambda: _of_pair("monai.losses.GlobalMutualInformationLoss"), defects=("STB101",)),
    Entry("monai-unetr", "monai", lambda: _network(
        "monai.networks.nets.UNETR", 1, 1, 16, 16, 16, in_channels=1, out_channels=2, img_size=16, feature_size=4,
        hidden_size=16, mlp_dim=24, num_heads=2)),
    Entry("monai-unet", "monai", lambda: _network(
        "monai.networks.nets.UNet", 1, 1, 16, 16, spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8),
        strides=(2,))),
    Entry("smp-dice", "segmentation_models_pytorch", lambda: _smp("DiceLoss", mode="multiclass")),
    Entry("smp-focal", "segmentation_models_pytorch",
          lambda: _smp("FocalLoss", mode="multiclass"), defects=("STB211",)),
    Entry("smp-tversky-log", "segmentation_models_pytorch",
          lambda: _smp("TverskyLoss", mode="multiclass", log_loss=True)),
    Entry("smp-unet", "segmentation_models_pytorch", lambda: _network(
        "segmentation_models_pytorch.Unet", 1, 3, 32, 32, encoder_name="resnet18", encoder_weights=None)),
    Entry("piq-ssim", "piq", lambda: _of_pair("piq.SSIMLoss", kernel_size=5, channels=3), refused=DATA_DEPENDENT),
    Entry("piq-haar", "piq", lambda: _of_pair("piq.HaarPSILoss", size=32, channels=3), refused=DATA_DEPENDENT),
    Entry("piq-gmsd", "piq", lambda: _of_pair("piq.GMSDLoss", size=32, channels=3), refused=DATA_DEPENDENT,
          defects=("STB402",)),
    Entry("piq-vsi", "piq", lambda: _of_pair("piq.VSILoss", size=32, channels=3), refused=DATA_DEPENDENT,
          defects=("STB211", "STB402")),
    Entry("ms-ssim", "pytorch-msssim", lambda: _of_pair("pytorch_msssim.SSIM", data_range=1.0, channel=3, channels=3)),
)  # fmt: skip
