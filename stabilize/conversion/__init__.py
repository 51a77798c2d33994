"""Narrower formats: which nodes of an ONNX model may compute in float16 or bfloat16, the casts, and the proof."""
