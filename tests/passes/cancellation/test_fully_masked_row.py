"""STB604: rows of attention that are masked throughout are 0, on request; every other mask says what they are."""

from __future__ import annotations

import pytest
import torch

from stabilize.graph.value import cone
from stabilize.passes.rule import Options
from stabilize.verify.certificate import certify_rewrite
from stabilize.verify.execute import execute
from tests.passes import graphs
from tests.passes.graphs import Outcome

_SCORES = "t = matmul(q, transpose(k, perm=(0, 2, 1)))\n"
_NUMBER = "constant(value={}, dtype='float32', shape=())"
_LOW = "-3.4028234663852886e+38"


def _attention(masked: str) -> str:
    """One head: masked scores (of t, 2 × 3 × 6) → weights p → p·v."""
    return f"{_SCORES}z = {masked}\np = softmax(z, axis=2)\nreturn matmul(p, v)"


FOUND = {
    "chosen": _attention("where(gt(K, 0.0), t, -inf)"),
    "chosen, the other way round": _attention("where(gt(K, 0.0), -inf, t)"),
    "added": _attention("add(t, F)"),
    "added, scaled scores": _attention("add(mul(t, 0.5), F)"),
    "added, the mask first": _attention("add(F, t)"),
    "an added choice": _attention(f"add(t, where(gt(K, 0.0), {_NUMBER.format(0.0)}, {_NUMBER.format('-inf')}))"),
    "an added choice of the lowest number": _attention(
        f"add(t, where(gt(K, 0.0), {_NUMBER.format(0.0)}, {_NUMBER.format(_LOW)}))"
    ),
    "a guard that such a number makes useless": (
        f"{_SCORES}p = softmax(add(t, where(gt(K, 0.0), {_NUMBER.format(0.0)}, {_NUMBER.format(_LOW)})), axis=2)\n"
        "return matmul(where(isnan(p), 0.0, p), v)"
    ),
}
NEAR_MISSES = {
    "no mask": _attention("t"),
    "a bias that is no mask": _attention("add(t, tanh(F))"),
    "a number that leaves the scores": _attention(
        f"add(t, where(gt(K, 0.0), {_NUMBER.format(0.0)}, {_NUMBER.format('-10000.0')}))"
    ),
    "a finite number in their place": _attention(f"where(gt(K, 0.0), t, {_LOW})"),
    "an added infinity of the other sign": _attention(
        f"add(t, where(gt(K, 0.0), {_NUMBER.format(0.0)}, {_NUMBER.format('inf')}))"
    ),
    "two products": _attention("add(t, mul(t, 2.0))"),
    "another axis": f"{_SCORES}p = softmax(add(t, F), axis=1)\nreturn matmul(p, v)",
    "no weights": f"{_SCORES}return matmul(add(t, F), v)",
    "not the left factor": (
        f"{_SCORES}p = softmax(add(t, F), axis=2)\n"
        "return matmul(transpose(v, perm=(0, 2, 1)), transpose(p, perm=(0, 2, 1)))"
    ),
    "guarded": (
        f"{_SCORES}z = add(t, F)\nr = all(eq(z, -inf), axes=(2,), keepdim=True)\n"
        "return matmul(where(r, 0.0, softmax(z, axis=2)), v)"
    ),
}


def _outcome(body: str, allow: str) -> Outcome:
    """K: 3 × 6, F: 2 × 3 × 6."""
    return Outcome(body, Options(allow=allow))


@pytest.fixture(autouse=True)
def masks(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(graphs, "MORE", {**graphs.MORE, "K": "float32[3, 6]", "F": "float32[2, 3, 6]"})


@pytest.mark.parametrize("name", FOUND)
def test_on_request_alone(name: str) -> None:
    assert _outcome(FOUND[name], "exact").codes == []
    outcome = _outcome(FOUND[name], "approximate")
    assert outcome.codes == ["STB604"]
    ((old, new),) = outcome.replaced.items()
    certificate = certify_rewrite(old, new, approximate=True)
    assert certificate.accepted, certificate.reason
    assert certificate.idle is None
    again = _outcome(FOUND[name], "approximate")
    assert again.after() == outcome.after()


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses(name: str) -> None:
    assert _outcome(NEAR_MISSES[name], "approximate").codes == []


def test_a_row_with_a_nan_keeps_it() -> None:
    ((_, new),) = _outcome(FOUND["added"], "approximate").replaced.items()
    tensors = {
        "q": torch.randn(2, 3, 4), "k": torch.randn(2, 6, 4), "v": torch.randn(2, 6, 7), "F": torch.zeros(2, 3, 6)
    }  # fmt: skip
    tensors["F"][:, 0] = -torch.inf
    tensors["F"][:, 1] = -torch.inf
    tensors["F"][:, 1, 2] = torch.nan
    leaves = {leaf: tensors[str(leaf.attr("name"))] for leaf in cone([new]) if leaf.op == "input"}
    (y,) = execute([new], leaves)
    assert (y[:, 0] == 0).all()
    assert y[:, 1].isnan().all()
    truth = torch.nn.functional.scaled_dot_product_attention(
        tensors["q"], tensors["k"], tensors["v"], tensors["F"], scale=1.0
    )
    torch.testing.assert_close(y[:, 2], truth[:, 2])
