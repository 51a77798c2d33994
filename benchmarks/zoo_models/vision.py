"""Vision, audio, sequence-to-sequence and multimodal models of `transformers`; image models of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from zoo_models.entry import Case, Entry, load, tokens
from zoo_models.hub import hub

_LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_IMAGE = {**_LAYERS, "image_size": 16, "patch_size": 8}


def _pixels(size: int = 16) -> Callable[[], Mapping[str, Any]]:
    """Two images, (2, 3, size, size)."""
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def _timm(name: str, size: int, **settings: Any) -> Entry:
    def make() -> Case:
        return Case(
            load("timm.create_model")(name, pretrained=False, num_classes=7, **settings),
            (torch.randn(2, 3, size, size),),
        )

    return Entry(f"timm-{name}", "timm", make)


HUB = (
    hub("vit", "ViTModel", "ViTConfig", _pixels(), base=_IMAGE, onnx=True),
    hub("deit", "DeiTModel", "DeiTConfig", _pixels(), base=_IMAGE),
    hub("beit", "BeitModel", "BeitConfig", _pixels(), base=_IMAGE, use_relative_position_bias=True),
    hub("dinov2", "Dinov2Model", "Dinov2Config", _pixels(), base=_IMAGE),
    hub("swin", "SwinModel", "SwinConfig", _pixels(32), base={}, image_size=32, patch_size=2, embed_dim=8,
        depths=[1, 1], num_heads=[1, 2], window_size=4),
    hub("swinv2", "Swinv2Model", "Swinv2Config", _pixels(32), base={}, image_size=32, patch_size=2, embed_dim=8,
        depths=[1, 1], num_heads=[1, 2], window_size=4),
    hub("convnext", "ConvNextModel", "ConvNextConfig", _pixels(32), base={}, hidden_sizes=[8, 16], depths=[1, 1],
        num_stages=2, patch_size=4, onnx=True),
    hub("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", _pixels(32), base={}, num_encoder_blocks=2,
        depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], patch_sizes=[3, 3],
        strides=[2, 2], mlp_ratios=[2, 2], decoder_hidden_size=16),
    hub("mobilevit", "MobileViTModel", "MobileViTConfig", _pixels(32), base={}, hidden_sizes=[16, 16, 16],
        neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32], num_attention_heads=2, patch_size=2),
    hub("poolformer", "PoolFormerModel", "PoolFormerConfig", _pixels(32), base={}, depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16]),
    hub("resnet", "ResNetForImageClassification", "ResNetConfig", _pixels(32), base={}, embedding_size=8,
        hidden_sizes=[8, 16], depths=[1, 1], onnx=True),
    hub("siglip-vision", "SiglipVisionModel", "SiglipVisionConfig", _pixels(), base=_IMAGE),
    hub("clip-vision", "CLIPVisionModel", "CLIPVisionConfig", _pixels(), base=_IMAGE, onnx=True),
    hub("clip-text", "CLIPTextModel", "CLIPTextConfig", lambda: {"input_ids": tokens(2, 12)}),
    hub("videomae", "VideoMAEModel", "VideoMAEConfig", lambda: {"pixel_values": torch.randn(1, 4, 3, 16, 16)},
        base=_IMAGE, num_frames=4, tubelet_size=2),
    hub("dpt", "DPTForDepthEstimation", "DPTConfig", _pixels(32), base=_LAYERS, image_size=32, patch_size=8,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8),
    hub("glpn", "GLPNForDepthEstimation", "GLPNConfig", _pixels(32), base={}, num_encoder_blocks=2, depths=[1, 1],
        sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], patch_sizes=[3, 3], strides=[2, 2],
        mlp_ratios=[2, 2], decoder_hidden_size=8),
    hub("patchtst", "PatchTSTForPrediction", "PatchTSTConfig", lambda: {"past_values": torch.randn(2, 32, 3)}, base={},
        num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, prediction_length=4, d_model=16,
        num_attention_heads=2, num_hidden_layers=1, ffn_dim=24),
)  # fmt: skip

TIMM = (
    _timm("resnet18", 32),
    _timm("efficientnet_b0", 32),
    _timm("vit_tiny_patch16_224", 32, img_size=32, depth=2),
    _timm("mixer_s32_224", 224),
    _timm("coat_tiny", 32, img_size=32),
)

MODELS = (*HUB, *TIMM)
