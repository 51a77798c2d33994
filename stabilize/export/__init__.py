"""PyTorch to ONNX without loss: the step around `torch.onnx.export` that keeps what is stable stable.

program (FX) → spell: operators that the exporter lowers naively, in operators that it translates one to one
             → torch.onnx.export without its optimizer, `translations` for what has no such spelling
             → tidy: that optimizer, with constants compared exactly
             → optimize, certify, write
"""
