"""STB241: logarithms of what is 0 or below for some inputs."""

from __future__ import annotations

import pytest

from stabilize.passes.hazards.log_of_zero import RULE
from tests.passes.graphs import Ranges, assert_not_told, assert_told

#: 0 for whole ranges of inputs.
VANISHING = [
    "log(relu(x))",
    "log(maximum(x, 0.0))",
    "log(where(B, x, 0.0))",
    "log(cast(B, dtype='float32'))",
    "log(mul(x, cast(B, dtype='float32')))",
    "log(sum(relu(x), axes=(1,), keepdim=True))",
    "log(mean(mul(relu(x), z), axes=(1,), keepdim=False))",
    "log(add(relu(x), relu(z)))",
    "log(transpose(detach(relu(x)), perm=(1, 0)))",
    "log(relu(h))",
]
#: (expression, bounds of its inputs, how low the number may be)
REACHING: list[tuple[str, Ranges, str]] = [
    ("log(abs(x))", {}, "0"),
    ("log(mul(x, x))", {}, "0"),
    ("log(mean(abs(x), axes=(1,), keepdim=True))", {}, "0"),
    ("log(x)", {"x": (0, 1)}, "0"),
    ("log(x)", {"x": (-0.5, 1)}, "-0.5"),
    ("log(add(x, z))", {"x": (0, 1), "z": (-2, 1)}, "-2"),
    ("log(tanh(x))", {}, "-1"),
    ("log1p(tanh(x))", {}, "-1"),
    ("log1p(x)", {"x": (-1, 1)}, "-1"),
    ("log1p(neg(x))", {"x": (0, 1.5)}, "-1.5"),
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("log(x)", {}),  # of an unknown number nothing is said
    ("log1p(x)", {}),
    ("log(x)", {"x": (1e-3, 1)}),
    ("log1p(x)", {"x": (-0.99, 1)}),
    ("log(x)", {"x": (-float("inf"), 1)}),
    ("log1p(abs(x))", {}),
    ("log1p(relu(x))", {}),
    ("log(add(relu(x), 1e-06))", {}),
    ("log(maximum(relu(x), 1e-06))", {}),
    ("log(maximum(x, 0.001))", {}),
    ("log(where(B, x, 1.0))", {}),
    ("log(add(relu(x), z))", {}),
    ("log(relu(x))", {"x": (0.5, 2)}),
    ("log(maximum(x, 0.0))", {"x": (0.5, 2)}),
    ("log(sum(mul(x, relu(z)), axes=(1,), keepdim=True))", {"x": (1, 2), "z": (1, 2)}),
    ("log(add(abs(x), 1e-06))", {}),
    ("log(softmax(x, axis=1))", {}),  # an underflow, which STB102 repairs
    ("log(sigmoid(x))", {}),
    ("log(sum(exp(x), axes=(1,), keepdim=True))", {}),
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize("body", VANISHING)
def test_what_is_0_for_whole_ranges_is_an_error(body: str, host: str) -> None:
    proposal = assert_told(RULE, body, host=host)
    assert proposal.message == ""
    assert proposal.old.op == "log"
    assert (RULE.severity, RULE.poles, RULE.honest) == ("error", True, False)


@pytest.mark.parametrize(("body", "ranges", "lowest"), REACHING)
def test_what_is_0_at_single_points_is_a_warning(body: str, ranges: Ranges, lowest: str) -> None:
    proposal = assert_told(RULE, body, ranges, severity="warning")
    assert proposal.message.startswith(f"The number may be as small as {lowest}, where the logarithm has no value: at ")
    assert proposal.message.endswith(f"at {'-1' if 'log1p' in body else '0'} it is −inf, below NaN")


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


def test_it_is_told_where_it_is_computed() -> None:
    body = "y = log(relu(x))\nreturn sum(mul(z, add(y, 1.0)), axes=(0, 1), keepdim=False)"
    assert assert_told(RULE, body).old.op == "log"
