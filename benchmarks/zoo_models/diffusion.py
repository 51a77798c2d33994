"""Denoisers and autoencoders of `diffusers`, and of denoising-diffusion-pytorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo_models.entry import Case, Entry, Inputs, load


def _diffusers(name: str, model: str, inputs: Callable[[], Inputs], onnx: bool = False, **settings: Any) -> Entry:
    return Entry(name, "diffusers", lambda: Case(load(f"diffusers.{model}")(**settings), inputs()), onnx=onnx)


def _image() -> dict[str, Any]:
    return {"sample": torch.randn(1, 3, 16, 16), "timestep": torch.tensor([7])}


def _conditioned() -> dict[str, Any]:
    return {
        "sample": torch.randn(1, 4, 16, 16),
        "timestep": torch.tensor([7]),
        "encoder_hidden_states": torch.randn(1, 6, 16),
    }


_BLOCKS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


class _LearnedVariance(nn.Module):
    """The bound of a learned variance: two normal distributions, and the likelihood of a discretised one."""

    def forward(self, x: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor) -> Any:
        module = "denoising_diffusion_pytorch.learned_gaussian_diffusion"
        likelihood, kl = load(f"{module}.discretized_gaussian_log_likelihood"), load(f"{module}.normal_kl")
        return likelihood(x, means=means, log_scales=log_scales), kl(means, log_scales, x, -log_scales)


def _learned_variance() -> Case:
    x = torch.rand(2, 3, 4, 4) * 2 - 1
    scales = torch.full_like(x, -2.0)
    return Case(_LearnedVariance(), (x, x + 0.1 * torch.randn_like(x), scales), (x, -x, scales - 4))


def _unet() -> Case:
    module = load("denoising_diffusion_pytorch.Unet")(dim=8, dim_mults=(1, 2), flash_attn=False)
    return Case(module, (torch.randn(1, 3, 16, 16), torch.tensor([3])))


MODELS = (
    _diffusers("unet-2d", "UNet2DModel", _image, sample_size=16, attention_head_dim=4, onnx=True,
               down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
               **_BLOCKS),
    _diffusers("unet-condition", "UNet2DConditionModel", _conditioned, sample_size=16, attention_head_dim=4,
               cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
               up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **_BLOCKS),
    _diffusers("autoencoder-kl", "AutoencoderKL", lambda: (torch.randn(1, 3, 16, 16),), latent_channels=4,
               down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **_BLOCKS),
    _diffusers("vq-autoencoder", "VQModel", lambda: (torch.randn(1, 3, 16, 16),), latent_channels=3,
               num_vq_embeddings=16, down_block_types=("DownEncoderBlock2D",) * 2,
               up_block_types=("UpDecoderBlock2D",) * 2, **_BLOCKS),
    _diffusers("dit", "DiTTransformer2DModel", lambda: {
        "hidden_states": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([5]), "class_labels": torch.tensor([2])},
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, num_embeds_ada_norm=10,
        norm_num_groups=4, onnx=True),
    _diffusers("sd3", "SD3Transformer2DModel", lambda: {
        "hidden_states": torch.randn(1, 4, 8, 8), "encoder_hidden_states": torch.randn(1, 6, 16),
        "pooled_projections": torch.randn(1, 8), "timestep": torch.tensor([5])}, sample_size=8, patch_size=2,
        in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16,
        caption_projection_dim=16, pooled_projection_dim=8, out_channels=4, pos_embed_max_size=8),
    _diffusers("flux", "FluxTransformer2DModel", lambda: {
        "hidden_states": torch.randn(1, 16, 4), "encoder_hidden_states": torch.randn(1, 6, 16),
        "pooled_projections": torch.randn(1, 8), "timestep": torch.tensor([0.5]), "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(6, 3)}, patch_size=1, in_channels=4, num_layers=1, num_single_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4)),
    _diffusers("pixart", "PixArtTransformer2DModel", lambda: {
        "hidden_states": torch.randn(1, 4, 8, 8), "encoder_hidden_states": torch.randn(1, 6, 16),
        "timestep": torch.tensor([5]), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=8,
        cross_attention_dim=16, caption_channels=16, norm_num_groups=4),
    Entry("ddpm-unet", "denoising-diffusion-pytorch", _unet),
    Entry("ddpm-learned-variance", "denoising-diffusion-pytorch", _learned_variance),
)  # fmt: skip
