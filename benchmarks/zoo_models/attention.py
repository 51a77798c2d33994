"""Attention written out: x-transformers, vit-pytorch, performers, linear attentions, quantizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo_models.entry import CHECKPOINTED, DATA_DEPENDENT, OWN_GRADIENTS, Case, Entry, Function, load, tokens


class _First(nn.Module):
    """A module's first result."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.module(*tensors)[0]


def _decoder(**settings: Any) -> Case:
    import x_transformers as x

    layers = {k: settings.pop(k) for k in list(settings) if k.startswith(("attn_", "ff_", "rotary", "alibi", "use_"))}
    module = x.TransformerWrapper(
        num_tokens=96, max_seq_len=32, attn_layers=x.Decoder(dim=32, depth=2, heads=4, **layers), **settings
    )
    module(tokens(2, 12))  # it keeps the slopes of its position bias from the first call on
    return Case(module, (tokens(2, 12),))


def _vit(path: str, **settings: Any) -> Case:
    common = {"image_size": 16, "patch_size": 8, "num_classes": 7, "dim": 32, "depth": 2, "heads": 4, "mlp_dim": 48}
    module = load(f"vit_pytorch.{path}")(**{**common, **settings})
    return Case(module, (torch.randn(2, 3, 16, 16),))


def _rows(module: nn.Module, width: int = 32) -> Case:
    return Case(module, (torch.randn(2, 16, width),))


def _performer(**settings: Any) -> Case:
    module = load("performer_pytorch.FastAttention")(dim_heads=8, nb_features=16, **settings)
    q, k, v = (torch.randn(1, 2, 12, 8) for _ in range(3))
    return Case(module, (q, k, v), (60 * q, 60 * k, v))


def _linear(function: str) -> Case:
    attend = load(f"linear_attention_transformer.linear_attention_transformer.{function}")
    q, k, v = (torch.randn(1, 2, 128, 8) for _ in range(3))
    return Case(Function(attend), (q, k, v), (q, 90 * k, v))


def _entmax(name: str) -> Case:
    return Case(Function(load(f"entmax.{name}")), (torch.randn(4, 9),))


_PREFIX = (
    "exp(k), not found: its running sums over blocks are padded and cut before they are divided, which the engine does "
    "not follow, and the divisor is clamped at 1e-3."
)

MODELS = (
    Entry("x-decoder", "x-transformers", lambda: _decoder(), onnx=True),
    Entry("x-sigsoftmax", "x-transformers", lambda: _decoder(sigsoftmax_logits=True), defects=("STB202",)),
    Entry("x-softclamp", "x-transformers", lambda: _decoder(attn_softclamp_logits=True)),
    Entry("x-qk-norm", "x-transformers", lambda: _decoder(attn_qk_norm=True)),
    Entry("x-sparsemax-topk", "x-transformers", lambda: _decoder(attn_sparse_topk=4)),
    Entry("x-alibi", "x-transformers", lambda: _decoder(alibi_pos_bias=True)),
    Entry("x-forgetful", "x-transformers", lambda: _decoder(attn_data_dependent_alibi=True)),
    Entry("vit-pytorch", "vit-pytorch", lambda: _vit("ViT"), onnx=True),
    Entry("vit-simple", "vit-pytorch", lambda: _vit("SimpleViT")),
    Entry("vit-cait", "vit-pytorch", lambda: _vit("cait.CaiT", cls_depth=1)),
    Entry("vit-deep", "vit-pytorch", lambda: _vit("deepvit.DeepViT")),
    Entry("vit-max", "vit-pytorch", lambda: _vit("vit.ViT", pool="mean")),
    Entry("performer", "performer-pytorch", lambda: _performer()),
    Entry("performer-causal", "performer-pytorch", lambda: _performer(no_projection=True)),
    Entry("linear-attention", "linear-attention-transformer", lambda: _linear("linear_attn")),
    Entry("linear-attention-causal", "linear-attention-transformer", lambda: _linear("causal_linear_attn"),
          note=_PREFIX),
    Entry("local-attention", "local-attention", lambda: Case(
        load("local_attention.LocalAttention")(window_size=4, causal=True, dim=8, use_rotary_pos_emb=True),
        tuple(torch.randn(2, 16, 8) for _ in range(3)))),
    Entry("perceiver-pytorch", "perceiver-pytorch", lambda: Case(load("perceiver_pytorch.Perceiver")(
        num_freq_bands=4, depth=1, max_freq=4.0, input_channels=3, latent_dim=16, num_latents=8, cross_heads=1,
        latent_heads=2, cross_dim_head=8, latent_dim_head=8, num_classes=5), (torch.randn(1, 8, 8, 3),))),
    Entry("slot-attention", "slot-attention",
          lambda: _rows(load("slot_attention.SlotAttention")(num_slots=3, dim=32, iters=2))),
    Entry("mixture-of-experts", "mixture-of-experts",
          lambda: _rows(_First(load("mixture_of_experts.MoE")(dim=32, num_experts=4, hidden_dim=16))),
          refused=DATA_DEPENDENT),
    Entry("vector-quantize", "vector-quantize-pytorch", lambda: _rows(
        load("vector_quantize_pytorch.VectorQuantize")(dim=32, codebook_size=16, use_cosine_sim=True)),
          refused=DATA_DEPENDENT),
    Entry("lookup-free-quantize", "vector-quantize-pytorch", lambda: Case(
        load("vector_quantize_pytorch.LFQ")(codebook_size=16, dim=4, entropy_loss_weight=0.1), (torch.randn(2, 16, 4),),
        (2000 * torch.randn(2, 16, 4),), train=True)),
    Entry("tab-transformer", "tab-transformer-pytorch", lambda: Case(load("tab_transformer_pytorch.TabTransformer")(
        categories=(5, 4, 3), num_continuous=2, dim=16, depth=1, heads=2, mlp_act=nn.ReLU()),
        (torch.randint(0, 3, (4, 3)), torch.randn(4, 2))), refused=DATA_DEPENDENT),
    Entry("memory-efficient-attention", "memory-efficient-attention-pytorch", lambda: _rows(
        load("memory_efficient_attention_pytorch.Attention")(
            dim=32, dim_head=8, heads=2, q_bucket_size=8, k_bucket_size=8, memory_efficient=True)),
          refused=CHECKPOINTED),
    Entry("entmax-bisect", "entmax", lambda: _entmax("entmax_bisect"), refused=OWN_GRADIENTS),
    Entry("entmax-sparsemax", "entmax", lambda: _entmax("sparsemax"), refused=OWN_GRADIENTS, defects=("STB431",)),
)  # fmt: skip
