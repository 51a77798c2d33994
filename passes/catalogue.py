"""The rules of the softmax family and the fused losses: what each is called and what it says.

These rules share one mechanism (`family`, `fused`); a row here names the defect that an emitted operator repairs.
"""

from __future__ import annotations

from typing import Literal

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule, exponents


def _elsewhere(ctx: Context, value: Value) -> Proposal | None:
    """Matching is done by the shared mechanism."""
    return None


_ALONG_AXES = "Any; the sums run along the same axes everywhere, kept or broadcast back where they are used."
_ELEMENTWISE = "Elementwise, any shape."


def _rule(
    code: str, name: str, *, does: str, why: str, before: str, after: str, error: str, source: str,
    shapes: str = _ALONG_AXES,
    severity: Literal["error", "warning", "info"] = "error",
) -> Rule:  # fmt: skip
    page = "\n\n".join(
        (
            f"# {name} ({code})",
            f"## What it does\n{does}",
            f"## Why it is unstable\n{why}",
            f"## Example\n    {before}\n→\n    {after}",
            f"## Shapes\n{shapes}",
            f"## Error\n{error}",
            "## Safety\nexact: equal over the reals, certified on values and gradients.",
            f"## Source\n{source}",
        )
    )
    condition = exponents if severity == "error" else None
    return Rule(code, name, frozenset(), _elsewhere, page, severity, condition)


_BHH = "Blanchard, Higham & Higham, IMA J. Numer. Anal. 41 (2021)"

SOFTMAX = _rule(
    "STB101", "naive-softmax",
    does="Finds exp(x)/Σexp(x) in any spelling (reciprocals, temperatures, masks, weights, wrong shifts).",
    why="exp overflows above 11.09 (float16), 88.72 (float32, bfloat16), 709.78 (float64): inf/inf = NaN, and silent "
    "zeros when only the sum overflows. A shift by anything but the row's maximum underflows to 0/0.",
    before="exp(x) / exp(x).sum(-1, keepdim=True)", after="softmax(x, -1)",
    error=f"relative (n + 2 + 2(max x − min x))·u after; unbounded before. {_BHH}.",
    source=f"{_BHH}; Milakov & Gimelshein, arXiv 1805.02867.",
)  # fmt: skip
SINK_SOFTMAX = _rule(
    "STB104", "naive-guarded-softmax",
    does="Finds exp(x)/(c + Σexp(x)): a softmax with an epsilon or a constant logit in the denominator.",
    why="exp overflows above 88.72 (11.09 in float16): inf/(inf + c) = NaN. The guard is kept "
    "exactly: it is one more logit, ln c.",
    before="exp(x) / (exp(x).sum(-1, keepdim=True) + eps)",
    after="e / (e.sum(-1, keepdim=True) + exp(ln eps − M)), e = exp(x − M), M = max(max x, ln eps)",
    error=f"relative (n + 3 + 2(max x − min x))·u after; unbounded before. {_BHH}.", source=_BHH,
)  # fmt: skip
LOG_SOFTMAX = _rule(
    "STB102", "log-of-softmax",
    does="Finds the logarithm of a softmax, or the difference of the logs of its parts.",
    why="A probability below exp(−103.97) (float32) is stored as 0; its log is −inf and the loss's gradient 0·inf.",
    before="log(softmax(x, -1))", after="log_softmax(x, -1)",
    error=f"absolute (n + max x − min x)·u after; infinite before from a gap of 104. {_BHH}.", source=_BHH,
)  # fmt: skip
LOGSUMEXP = _rule(
    "STB103", "naive-logsumexp",
    does="Finds log Σ exp(x), weighted, averaged, tempered, or of softmaxes.",
    why="The sum overflows for x above 88.72 in float32 and underflows to log 0 = −inf below −103.97.",
    before="log(exp(x).sum(-1))", after="logsumexp(x, -1)",
    error=f"absolute |y + n − min x|·u after. {_BHH}, theorem 3.2.", source=_BHH,
)  # fmt: skip
LOGADDEXP = _rule(
    "STB105", "naive-logaddexp",
    does="Finds log(eᵃ + eᵇ), and log(p + eps) of a probability whose format cannot hold eps.",
    why="Either exponential overflows or both underflow, although the result is near max(a, b).",
    before="log(exp(a) + exp(b))", after="logaddexp(a, b)",
    error="absolute 3u·max(|a|, |b|) after.", source=_BHH, shapes=_ELEMENTWISE,
)  # fmt: skip
LOGCUMSUMEXP = _rule(
    "STB106", "naive-logcumsumexp",
    does="Finds log of a running sum of exponentials.",
    why="The running sum overflows once x passes 88.72 in float32, and underflows to log 0 = −inf below −103.97.",
    before="log(cumsum(exp(x), -1))", after="logcumsumexp(x, -1)",
    error="absolute (n + max x − min x)·u after.", source=_BHH,
)  # fmt: skip
TOPK = _rule(
    "STB107", "topk-of-underflowed-probabilities",
    does="Finds top-k or arg-max taken over probabilities whose exponentials overflow or underflow.",
    why="Entries that underflow to 0 (or overflow to inf) tie, and the tie is broken by position.",
    before="topk(exp(x) / exp(x).sum(-1, keepdim=True), k)", after="topk(x, k), then softmax",
    error="indices are those of the logits, exactly.", source="Monotonicity of exp.",
)  # fmt: skip
SOFTPLUS = _rule(
    "STB201", "naive-softplus",
    does="Finds log(1 + exp(x)).", why="exp overflows above 88.72; below −17 (float32) 1 + exp(x) is 1 and the log 0.",
    before="log(1 + exp(x))", after="softplus(x)",
    error="relative 3u after.", source="Mächler, Accurately computing log(1 − exp(−|a|)), 2012.", shapes=_ELEMENTWISE,
)  # fmt: skip
LOG_SIGMOID = _rule(
    "STB202", "log-of-sigmoid",
    does="Finds log σ(x) and log(1 − σ(x)).", why="σ(x) is stored as 0 below −104 (float32): the log is −inf.",
    before="log(sigmoid(x))", after="log_sigmoid(x)",
    error="relative 3u after.", source="Mächler 2012.", shapes=_ELEMENTWISE,
)  # fmt: skip
SIGMOID = _rule(
    "STB203", "naive-sigmoid",
    does="Finds 1/(1 + exp(−x)), exp(x)/(1 + exp(x)), e^a/(e^a + e^b).",
    why="exp overflows from 88.72 (11.09 in float16): inf/inf = NaN, or a gradient of 0·inf = NaN in the "
    "first spelling.",
    before="exp(x) / (1 + exp(x))", after="sigmoid(x)",
    error="relative 3u after.", source="Numerical folklore; the certificate measures it.", shapes=_ELEMENTWISE,
)  # fmt: skip
TANH = _rule(
    "STB204", "naive-tanh",
    does="Finds (eᵃ − eᵇ)/(eᵃ + eᵇ).", why="inf/inf above 88.72, and total cancellation near 0.",
    before="(exp(x) - exp(-x)) / (exp(x) + exp(-x))", after="tanh(x)",
    error="relative 2u after.", source="Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.14.",
    shapes=_ELEMENTWISE,
)  # fmt: skip
GENERIC = _rule(
    "STB205", "clashing-exponentials",
    does="Finds products and quotients of exponentials, powers and roots of underflowed probabilities.",
    why="exp(a)/exp(b) is inf/inf or 0/0 although exp(a − b) is an ordinary number.",
    before="exp(a) / exp(b)", after="exp(a - b)",
    error="relative (2 + |a| + |b|)·u after.", source="Algebra of exponents; the certificate measures it.",
    shapes=_ELEMENTWISE,
    severity="warning",
)  # fmt: skip
CROSS_ENTROPY = _rule(
    "STB301", "naive-cross-entropy",
    does="Finds −log p[y] of a naive or separate softmax, by index, gather or one-hot, averaged, summed or neither.",
    why="p[y] underflows to 0 from a gap of 104 (float32): the loss is inf and its gradient NaN.",
    before="-log(softmax(x, 1)[arange(n), y]).mean()", after="cross_entropy(x, y)",
    error=f"absolute (n + max x − min x)·u after. {_BHH}.", source=_BHH,
)  # fmt: skip
BINARY_CROSS_ENTROPY = _rule(
    "STB302", "naive-binary-cross-entropy",
    does="Finds y·log σ(z) + (1 − y)·log(1 − σ(z)).",
    why="σ saturates to 0 or 1: 0·−inf = NaN.",
    before="-(y*log(sigmoid(z)) + (1-y)*log(1-sigmoid(z)))", after="binary_cross_entropy_with_logits(z, y)",
    error="relative 4u after.", source="Identity log σ(z) = z − softplus(z).",
)  # fmt: skip
COLLAPSE = _rule(
    "STB303", "softmax-collapse",
    does='Applied on request (form="collapse-free"): every cross-entropy in its log1p form.',
    why="When the leading logit is ahead by 16.6 (float32; 7.6 float16, 36.7 float64), Σexp rounds to its leading "
    "term: the loss and the gradient of the true class are exactly 0 and training halts. A max-shift does not cure it.",
    before="cross_entropy(x, y)", after="log1p(Σ_{k≠y} exp(x_k − x_y)), gradient −Σ_{k≠y} p_k at y",
    error="relative (n + 4)·u after; total loss before.",
    source="Prieto et al., ICLR 2025, arXiv 2501.04697 (the phenomenon).",
)  # fmt: skip
ATTENTION = _rule(
    "STB601", "naive-attention",
    does="Finds exp(q kᵀ·s)·v / Σ, normalised before or after the product with v.",
    why="exp overflows for scores above 88.72 (11.09 in float16), ordinary ones in training: inf/inf = NaN. "
    "The fused operator gives 0, not NaN, where a score itself leaves the range of float32.",
    before="e = exp(q @ k.mT / d**0.5); (e @ v) / e.sum(-1, keepdim=True)",
    after="scaled_dot_product_attention(q, k, v)",
    error=f"relative (n + 2 + 2(max − min))·u on the weights after. {_BHH}.", source=_BHH,
)  # fmt: skip

#: newly emitted operator → rule; the first that was emitted names the proposal.
FAMILY: dict[str, Rule] = {
    "cross_entropy": CROSS_ENTROPY, "attention": ATTENTION, "topk_indices": TOPK, "argmax": TOPK,
    "topk_values": TOPK, "logcumsumexp": LOGCUMSUMEXP, "log_softmax": LOG_SOFTMAX, "softmax": SOFTMAX,
    "logsumexp": LOGSUMEXP, "logaddexp": LOGADDEXP, "log_sigmoid": LOG_SIGMOID, "sigmoid": SIGMOID,
    "softplus": SOFTPLUS, "tanh": TANH, "detach": SINK_SOFTMAX,
}  # fmt: skip

CATALOGUE: tuple[Rule, ...] = (
    SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, SINK_SOFTMAX, LOGADDEXP, LOGCUMSUMEXP, TOPK, SOFTPLUS, LOG_SIGMOID, SIGMOID,
    TANH, GENERIC, CROSS_ENTROPY, BINARY_CROSS_ENTROPY, COLLAPSE, ATTENTION,
)  # fmt: skip
