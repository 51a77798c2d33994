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
    print("NaN before:", model(x).isnan().sum().item(), " after:", fixed(x).isnan().sum().item())

    assert model(x).isnan().any()
    assert fixed(x).isfinite().all()
    torch.testing.assert_close(fixed(x).float(), model.body(x).float().softmax(1), rtol=2e-3, atol=2e-4)
    assert fixed.state_dict().keys() == model.state_dict().keys()


if __name__ == "__main__":
    main()
