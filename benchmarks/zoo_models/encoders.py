"""Text encoders of `transformers`."""

from __future__ import annotations

from typing import Any

import torch

from zoo_models.entry import DATA_DEPENDENT, OWN_GRADIENTS, tokens
from zoo_models.hub import hub


def _text() -> dict[str, Any]:
    """Two rows, the second padded: ids and mask of shape (2, 16), int64."""
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, 11:] = 0
    return {"input_ids": tokens(2, 16), "attention_mask": mask}


MODELS = (
    hub("bert", "BertModel", "BertConfig", _text, onnx=True),
    hub("bert-eager", "BertForMaskedLM", "BertConfig", _text, attn_implementation="eager"),
    hub("roberta", "RobertaModel", "RobertaConfig", _text),
    hub("albert", "AlbertModel", "AlbertConfig", _text, embedding_size=16),
    hub("distilbert", "DistilBertModel", "DistilBertConfig", _text, dim=32, n_heads=4, n_layers=2, hidden_dim=48),
    hub("electra", "ElectraModel", "ElectraConfig", _text, embedding_size=16),
    hub("deberta", "DebertaModel", "DebertaConfig", _text, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    hub("deberta-v2", "DebertaV2Model", "DebertaV2Config", _text, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    hub("mpnet", "MPNetModel", "MPNetConfig", _text),
    hub("mobilebert", "MobileBertModel", "MobileBertConfig", _text, embedding_size=16, intra_bottleneck_size=16,
        true_hidden_size=16),
    hub("funnel", "FunnelModel", "FunnelConfig", _text, base={}, vocab_size=96, block_sizes=[1, 1],
        d_model=32, n_head=4, d_head=8, d_inner=48),
    hub("longformer", "LongformerModel", "LongformerConfig", _text, attention_window=4, refused=DATA_DEPENDENT),
    hub("big-bird", "BigBirdModel", "BigBirdConfig", _text, attention_type="original_full"),
    hub("fnet", "FNetModel", "FNetConfig", lambda: {"input_ids": tokens(2, 16)}),
    hub("modernbert", "ModernBertModel", "ModernBertConfig", _text, cls_token_id=1, sep_token_id=2),
    hub("esm", "EsmModel", "EsmConfig", _text, mask_token_id=3, position_embedding_type="rotary"),
    hub("roformer", "RoFormerModel", "RoFormerConfig", _text),
    hub("yoso", "YosoModel", "YosoConfig", _text, use_expectation=True, refused=OWN_GRADIENTS),
    hub("squeezebert", "SqueezeBertModel", "SqueezeBertConfig", _text, embedding_size=32, q_groups=1, k_groups=1,
        v_groups=1, post_attention_groups=1, intermediate_groups=1, output_groups=1),
    hub("perceiver", "PerceiverModel", "PerceiverConfig", lambda: (torch.randn(2, 12, 24),), d_model=24,
        num_latents=8, d_latents=16, num_blocks=1, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=2, base={}),
)  # fmt: skip
