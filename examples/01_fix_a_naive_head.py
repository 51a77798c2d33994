"""A classifier whose head divides exponentials by their sum, fixed in three lines.

In float16 exp(x) overflows above 11.09: inf / inf is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import stabilize


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(self.body(x))
        return e / e.sum(dim=1, keepdim=True)


def main() -> None:
    torch.manual_seed(0)
    model = Classifier().half()
    x = (40 * torch.randn(8, 32)).half()

    fixed, report = stabilize.optimize(model, (x,), return_report=True)
    print(report)
    before, after = model(x), fixed(x)
    print("NaN before:", before.isnan().sum().item(), " after:", after.isnan().sum().item())

    assert before.isnan().any()
    assert after.isfinite().all()
    assert fixed.state_dict().keys() == model.state_dict().keys()
    exact = model.double().body(x.double()).softmax(1)  # the weights as stored, without float16 rounding of logits
    torch.testing.assert_close(after.double(), exact, rtol=0, atol=0.01)


if __name__ == "__main__":
    main()
