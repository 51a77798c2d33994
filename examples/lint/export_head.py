"""Writes head.onnx: a classifier's head as old exporters wrote a softmax over channels, Exp, ReduceSum and Div."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Class probabilities for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(8, 5, 1)

    def forward(self, features: Tensor) -> Tensor:
        e = torch.exp(self.classify(features))
        return e / e.sum(dim=1, keepdim=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    program = torch.onnx.export(Head().eval(), (torch.randn(1, 8, 4, 4),), dynamo=True, verbose=False)
    assert program is not None
    program.save("head.onnx")
