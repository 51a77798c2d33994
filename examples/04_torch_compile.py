"""The backend of torch.compile: what Dynamo captures is rewritten before it is compiled.

The entropy below branches on data, so it is captured in two graphs; both hold defects. The backward pass comes from
the rewritten graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor

import stabilize.dynamo


def entropy(logits: Tensor, limit: float) -> Tensor:
    """Of the rows' distributions; the logits are clipped when one of them is larger than `limit`."""
    if logits.abs().max() > limit:
        logits = logits.clamp(-limit, limit)
    e = torch.exp(logits)
    p = e / e.sum(dim=-1, keepdim=True)
    return -(p * torch.log(p)).sum(dim=-1)


def main() -> None:
    torch.manual_seed(0)
    reports: list[stabilize.Report] = []
    # installed, the name is enough: backend="stabilize"
    run = torch.compile(entropy, backend=stabilize.dynamo.stabilize, options={"report": reports.append})

    logits = (torch.randn(4, 10) * 100).requires_grad_()
    exact = torch.distributions.Categorical(logits=logits.detach().double()).entropy().float()
    for name, function in (("as written", entropy), ("compiled", run)):
        logits.grad = None
        result = function(logits, 1e4)
        result.sum().backward()
        print(f"{name:<11} entropy {result.tolist()}")
        print(f"{'':<11} finite gradients {logits.grad.isfinite().float().mean().item():.0%}")
    torch.testing.assert_close(result, exact, rtol=1e-4, atol=1e-6)
    print(f"exact       entropy {exact.tolist()}\n")
    for report in reports:
        for rewrite in report.rewrites:
            print(f"{rewrite.code} {rewrite.name}, line {rewrite.line}: {rewrite.naive}  →  {rewrite.stable}")
    assert logits.grad.isfinite().all()


if __name__ == "__main__":
    main()
