"""Causal language models of `transformers`: dense, mixtures of experts, state spaces and other recurrences."""

from __future__ import annotations

from typing import Any

from zoo_models.entry import COUNTING, OWN_GRADIENTS, tokens
from zoo_models.hub import SMALL, hub


def _ids() -> dict[str, Any]:
    """Ids of shape (2, 12), int64; no cache."""
    return {"input_ids": tokens(2, 12), "use_cache": False}


def _labelled() -> dict[str, Any]:
    """Ids, and the same as labels: the model returns its loss as well."""
    ids = tokens(2, 12)
    return {"input_ids": ids, "labels": ids.clone(), "use_cache": False}


_GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}

DENSE = (
    hub("gpt2", "GPT2LMHeadModel", "GPT2Config", _labelled, n_embd=32, n_layer=2, n_head=4, n_positions=64, onnx=True),
    hub("gpt2-eager", "GPT2LMHeadModel", "GPT2Config", _ids, n_embd=32, n_layer=2, n_head=4, n_positions=64,
        attn_implementation="eager"),
    hub("gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig", _ids, num_layers=2, num_heads=4, attention_types=[
        [["global", "local"], 1]], window_size=4, base={**SMALL, "hidden_size": 32}),
    hub("gpt-j", "GPTJForCausalLM", "GPTJConfig", _ids, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
    hub("gpt-neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", _ids),
    hub("opt", "OPTForCausalLM", "OPTConfig", _ids, ffn_dim=48, word_embed_proj_dim=32),
    hub("bloom", "BloomForCausalLM", "BloomConfig", _ids, n_head=4, n_layer=2, refused=OWN_GRADIENTS,
        defects=("STB218",)),
    hub("falcon", "FalconForCausalLM", "FalconConfig", _ids, alibi=True),
    hub("mpt", "MptForCausalLM", "MptConfig", _ids, d_model=32, n_heads=4, n_layers=2, expansion_ratio=2),
    hub("llama", "LlamaForCausalLM", "LlamaConfig", _labelled, base=_GROUPED, onnx=True),
    hub("mistral", "MistralForCausalLM", "MistralConfig", _ids, base=_GROUPED, sliding_window=8),
    hub("gemma2", "Gemma2ForCausalLM", "Gemma2Config", _ids, base=_GROUPED, query_pre_attn_scalar=8,
        attn_implementation="eager"),
    hub("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig", _ids, base=_GROUPED, query_pre_attn_scalar=8),
    hub("qwen2", "Qwen2ForCausalLM", "Qwen2Config", _ids, base=_GROUPED, onnx=True),
    hub("qwen3", "Qwen3ForCausalLM", "Qwen3Config", _ids, base=_GROUPED),
    hub("phi3", "Phi3ForCausalLM", "Phi3Config", _ids, base=_GROUPED),
    hub("olmo2", "Olmo2ForCausalLM", "Olmo2Config", _ids, base=_GROUPED),
    hub("cohere", "CohereForCausalLM", "CohereConfig", _ids, base=_GROUPED),
    hub("stablelm", "StableLmForCausalLM", "StableLmConfig", _ids, base=_GROUPED),
    hub("diffllama", "DiffLlamaForCausalLM", "DiffLlamaConfig", _ids, base=_GROUPED),
    hub("xlnet", "XLNetLMHeadModel", "XLNetConfig", lambda: {"input_ids": tokens(2, 12)}, base={},
        vocab_size=96, d_model=32, n_layer=2, n_head=4, d_inner=48),
    hub("ctrl", "CTRLLMHeadModel", "CTRLConfig", _ids, n_embd=32, n_layer=2, n_head=4, dff=48, n_positions=64),
)  # fmt: skip

EXPERTS = (
    hub("mixtral", "MixtralForCausalLM", "MixtralConfig", _ids, base=_GROUPED, num_local_experts=4,
        num_experts_per_tok=2),
    hub("qwen2-moe", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", _ids, base=_GROUPED, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16),
    hub("olmoe", "OlmoeForCausalLM", "OlmoeConfig", _ids, base=_GROUPED, num_experts=4, num_experts_per_tok=2),
    hub("granite-moe", "GraniteMoeForCausalLM", "GraniteMoeConfig", _ids, base=_GROUPED, num_local_experts=4,
        num_experts_per_tok=2),
    hub("deepseek-v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", _ids, n_routed_experts=4, n_group=2, topk_group=1,
        num_experts_per_tok=2, moe_intermediate_size=16, first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8,
        qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, num_key_value_heads=4),
    hub("gpt-oss", "GptOssForCausalLM", "GptOssConfig", _ids, base=_GROUPED, num_local_experts=4,
        num_experts_per_tok=2, sliding_window=8),
    hub("phimoe", "PhimoeForCausalLM", "PhimoeConfig", _ids, base=_GROUPED, num_local_experts=4,
        num_experts_per_tok=2),
)  # fmt: skip

RECURRENT = (
    hub("mamba", "MambaForCausalLM", "MambaConfig", _ids, state_size=4, expand=2, time_step_rank=4,
        onnx=True),
    hub("mamba2", "Mamba2ForCausalLM", "Mamba2Config", _ids, state_size=8, expand=2, num_heads=8, head_dim=8,
        n_groups=2, chunk_size=4),
    hub("falcon-mamba", "FalconMambaForCausalLM", "FalconMambaConfig", _ids, state_size=4, time_step_rank=4),
    hub("rwkv", "RwkvForCausalLM", "RwkvConfig", _ids, attention_hidden_size=32, context_length=16,
        refused=COUNTING),
    hub("recurrent-gemma", "RecurrentGemmaForCausalLM", "RecurrentGemmaConfig", _ids, base=_GROUPED, lru_width=32,
        attention_window_size=8, num_hidden_layers=3, refused=OWN_GRADIENTS, defects=("STB211",)),
    hub("xlstm", "xLSTMForCausalLM", "xLSTMConfig", _ids, num_heads=4, num_blocks=2, chunk_size=4),
    hub("qwen3-next", "Qwen3NextForCausalLM", "Qwen3NextConfig", _ids, base=_GROUPED, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, linear_num_value_heads=4,
        linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"]),
    hub("bamba", "BambaForCausalLM", "BambaConfig", _ids, base=_GROUPED, mamba_n_heads=8, mamba_d_head=8,
        mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=4, attn_layer_indices=[1]),
    hub("jamba", "JambaForCausalLM", "JambaConfig", _ids, base=_GROUPED, mamba_d_state=4, mamba_dt_rank=4,
        num_experts=2, num_experts_per_tok=1, use_mamba_kernels=False, attn_layer_period=2, attn_layer_offset=1,
        expert_layer_period=2, expert_layer_offset=1),
)  # fmt: skip
