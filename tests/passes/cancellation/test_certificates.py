"""What each rule repairs is really lost, and is there afterwards: both formulas run, against the oracle."""

from __future__ import annotations

import pytest

from stabilize.verify.certificate import certify_rewrite
from tests.passes.graphs import Options, Outcome

#: code: an expression that the rule repairs, in float32 (the defect of STB216 is in gradients alone)
EXAMPLES = {
    "STB210": "log(add(1.0, x))",
    "STB211": "sub(exp(x), 1.0)",
    "STB212": "log(sub(exp(x), exp(z)))",
    "STB213": "log(sub(1.0, mul(tanh(x), tanh(x))))",
    "STB214": "sub(1.0, pow(sub(1.0, x), 3.0))",
    "STB218": "sub(1.0, sigmoid(x))",
    "STB219": "sub(1.0, erf(x))",
    "STB220": "div(sub(exp(x), 1.0), x)",
    "STB221": "sub(sqrt(add(mul(x, x), 1.0)), 1.0)",
    "STB223": "sub(1.0, cos(x))",
    "STB227": "div(sub(exp(x), exp(neg(x))), 2.0)",
    "STB228": "log(sub(sigmoid(x), sigmoid(z)))",
    "STB412": "acosh(add(1.0, x))",
    "STB413": "log(add(x, sqrt(add(mul(x, x), 1.0))))",
}


@pytest.mark.parametrize(("code", "body"), EXAMPLES.items())
def test_a_defect_is_repaired(code, body):
    outcome = Outcome(body, Options())
    assert outcome.codes == [code]
    ((old, new),) = outcome.replaced.items()
    certificate = certify_rewrite(old, new)
    assert certificate.accepted, certificate.reason
    before, after = (max(getattr(f, when) for f in certificate.families) for when in ("before", "after"))
    assert before > 1e5
    assert after < 12
