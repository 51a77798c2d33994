"""Encoder-decoders and audio models of `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from zoo_models.entry import tokens
from zoo_models.hub import SMALL, hub

_BOTH = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
_WAVE = {**SMALL, "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}  # fmt: skip


def _pair() -> dict[str, Any]:
    return {"input_ids": tokens(2, 10), "decoder_input_ids": tokens(2, 6), "use_cache": False}


def _wave(length: int = 400) -> Callable[[], dict[str, Any]]:
    return lambda: {"input_values": torch.randn(1, length)}


TEXT = (
    hub("t5", "T5Model", "T5Config", _pair, base={}, vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2,
        num_heads=4, pad_token_id=0, decoder_start_token_id=0),
    hub("bart", "BartModel", "BartConfig", _pair, base=_BOTH, onnx=True),
    hub("mbart", "MBartModel", "MBartConfig", _pair, base=_BOTH),
    hub("marian", "MarianModel", "MarianConfig", _pair, base=_BOTH),
    hub("pegasus", "PegasusModel", "PegasusConfig", _pair, base=_BOTH),
    hub("m2m-100", "M2M100Model", "M2M100Config", _pair, base=_BOTH),
    hub("prophetnet", "ProphetNetModel", "ProphetNetConfig", _pair, base={}, vocab_size=96, hidden_size=32,
        num_encoder_layers=1, num_decoder_layers=1, num_encoder_attention_heads=4, num_decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, ngram=2),
    hub("whisper", "WhisperModel", "WhisperConfig", lambda: {"input_features": torch.randn(1, 8, 32),
        "decoder_input_ids": tokens(1, 6), "use_cache": False}, base=_BOTH, num_mel_bins=8, max_source_positions=16,
        max_target_positions=16, onnx=True),
    hub("time-series", "TimeSeriesTransformerModel", "TimeSeriesTransformerConfig", lambda: {
        "past_values": torch.randn(2, 12), "past_time_features": torch.randn(2, 12, 2),
        "past_observed_mask": torch.ones(2, 12), "future_values": torch.randn(2, 4),
        "future_time_features": torch.randn(2, 4, 2), "use_cache": False}, base={}, prediction_length=4,
        context_length=8, lags_sequence=[1, 2, 4], num_time_features=2, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=24, decoder_ffn_dim=24),
)  # fmt: skip

AUDIO = (
    hub("wav2vec2", "Wav2Vec2Model", "Wav2Vec2Config", _wave(), base=_WAVE, onnx=True),
    hub("hubert", "HubertModel", "HubertConfig", _wave(), base=_WAVE),
    hub("wavlm", "WavLMModel", "WavLMConfig", _wave(), base=_WAVE),
    hub("data2vec-audio", "Data2VecAudioModel", "Data2VecAudioConfig", _wave(),
        base={**_WAVE, "conv_pos_kernel_size": 3}),
    hub("ast", "ASTModel", "ASTConfig", lambda: {"input_values": torch.randn(2, 24, 16)}, max_length=24,
        num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8),
    hub("vits", "VitsModel", "VitsConfig", lambda: {"input_ids": tokens(1, 8, below=30)}, base={}, vocab_size=32,
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=24, flow_size=16, spectrogram_bins=9,
        use_stochastic_duration_prediction=True),
)  # fmt: skip
