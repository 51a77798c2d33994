"""The walk over a view: outermost first, what only a replaced value needed is not asked, what is declined goes on."""

from __future__ import annotations

from dataclasses import replace

from stabilize.graph.value import Value
from stabilize.graph.view import View
from stabilize.passes.propose import context, proposals, substitute, uncovered
from stabilize.passes.rule import Options, Proposal
from tests.passes.graphs import graph, nested

SOFTMAX = "e = exp(x)\np = div(e, sum(e, axes=(1,), keepdim=True))\n"


def walk(view: View, refused: tuple[str, ...] = (), **options: str) -> tuple[list[str], dict[str, str]]:
    """(codes in the order they were proposed, replacements as text); proposals of codes in `refused` are declined."""
    codes: list[str] = []
    asked: set[Value] = set()

    def accept(proposal: Proposal) -> Value | None:
        codes.append(proposal.rule.code)
        asked.add(proposal.old)
        assert all(c.type == proposal.old.type for c in proposal.candidates)
        if proposal.rule.code in refused or not proposal.candidates:
            return None
        return proposal.candidates[0]

    replaced = proposals(view, context(view, Options(**options)), accept)
    assert set(replaced) <= asked
    return codes, {nested(old): nested(new) for old, new in replaced.items()}


def test_the_outermost_sink_speaks_and_what_it_needed_is_not_asked():
    assert walk(graph(SOFTMAX + "log(p)"))[0] == ["STB102"]


def test_a_value_that_something_else_needs_is_asked_too():
    codes, replaced = walk(graph(SOFTMAX + "return log(p), tanh(p)"))
    assert codes == ["STB102", "STB101"]
    assert list(replaced.values()) == ["log_softmax(x, axis=1)", "softmax(x, axis=1)"]


def test_what_is_declined_further_out_is_tried_further_in():
    codes, replaced = walk(graph(SOFTMAX + "log(p)"), refused=("STB102",))
    assert codes == ["STB102", "STB101"]
    assert list(replaced.values()) == ["softmax(x, axis=1)"]


def test_the_next_proposer_is_asked_when_one_is_declined():
    body = "log(sub(1.0, mul(tanh(x), tanh(x))))"
    codes, replaced = walk(graph(body), refused=("STB213",))
    assert codes == ["STB213", "STB202"]
    assert len(replaced) == 1


def test_what_a_new_expression_stands_on_is_asked():
    """log(softmax(u)) stands on u, which is another softmax."""
    codes, replaced = walk(graph(SOFTMAX + "f = exp(mul(p, 1000.0))\nlog(div(f, sum(f, axes=(1,), keepdim=True)))"))
    assert codes == ["STB102", "STB101"]
    assert list(replaced.values())[1] == "softmax(x, axis=1)"


def test_what_depends_on_no_input_is_left_alone():
    assert walk(graph("log(add(sin(constant(value=0.5, dtype='float32', shape=(3,))), 1.0))")) == ([], {})


def test_what_depends_on_no_input_hides_nothing_behind_it():
    view = graph("l = log(add(1.0, x))\nc = sin(constant(value=0.5, dtype='float32', shape=(3,)))\nreturn l, c")
    assert walk(view)[0] == ["STB210"]


def test_opaque_values_vary():
    view = graph("x")
    b = view.builder
    opaque = b.opaque("aten.custom", (), view.outputs[0].type)
    new = b.make("log", b.apply("add", opaque, 1.0))
    inner = new.operands[0]
    bindings = {**view.bindings, "o": opaque, "i": inner, "n": new}
    assert walk(replace(view, outputs=(new,), bindings=bindings))[0] == ["STB210"]


def test_integers_are_not_asked_but_for_indices():
    assert walk(graph("add(y, sub(y, y))")) == ([], {})
    assert walk(graph(SOFTMAX + "argmax(p, axis=1, keepdim=False)"))[0] == ["STB107"]


# --- operators that are made of several values ------------------------------------------------------------------------


def hidden(body: str, *names: str) -> View:
    """A view in which the host computes only the outputs, the inputs and the values called `names` by itself."""
    view = graph(body)
    shown = {n: v for n, v in view.bindings.items() if v.op == "input" or v in view.outputs or n in names}
    return replace(view, bindings=shown)


def test_a_defect_inside_an_operator_replaces_the_whole_operator():
    """log2(1 + x) as log(1 + x)/ln 2."""
    codes, replaced = walk(hidden("div(log(add(1.0, x)), 0.6931471805599453)"))
    assert codes == ["STB210"]
    assert replaced == {
        "div(log(add(1.0, x)), 0.6931471805599453)": "div(log1p(x), 0.6931471805599453)",
    }


def test_the_outermost_defect_inside_an_operator_comes_first():
    codes, replaced = walk(hidden("div(log(add(1.0, sub(exp(x), 1.0))), 0.5)"))
    assert codes[0] == "STB210"
    assert list(replaced.values()) == ["div(log1p(sub(exp(x), 1.0)), 0.5)"]
    codes, replaced = walk(hidden("div(log(add(1.0, sub(exp(x), 1.0))), 0.5)"), refused=("STB210",))
    assert codes == ["STB210", "STB211"]
    assert list(replaced.values()) == [
        "div(log(add(1.0, where(lt(x, -1.0), sub(exp(minimum(x, -1.0)), 1.0), expm1(x)))), 0.5)"
    ]


def test_what_the_host_computes_is_not_inside():
    view = hidden("l = log(add(1.0, x))\nreturn div(l, 0.5), tanh(l)", "l")
    _, replaced = walk(view)
    assert replaced == {"log(add(1.0, x))": "log1p(x)"}


def test_substitute():
    view = graph("a2 = add(x, z)\nreturn add(mul(a2, 2.0), tanh(z)), a2")
    root, old = view.outputs
    new = view.builder.make("sub", *old.operands)
    assert nested(substitute(view.builder, root, old, new)) == "add(mul(sub(x, z), 2.0), tanh(z))"
    assert substitute(view.builder, root, root, new) is new
    total = view.builder.make("sum", root, axes=(1,), keepdim=False)
    assert nested(substitute(view.builder, total, old, new)) == (
        "sum(add(mul(sub(x, z), 2.0), tanh(z)), axes=(1,), keepdim=False)"
    )
    assert substitute(view.builder, root, view.builder.make("neg", new), new) is root


# --- the context ------------------------------------------------------------------------------------------------------


def test_ranges_are_given_by_the_names_of_inputs():
    ctx = context(graph("x"), Options(), {"x": (-1.0, 2.0), "nobody": (0.0, 1.0)})
    assert (ctx.ranges.of(graph_input(ctx, "x")).lo, ctx.ranges.of(graph_input(ctx, "x")).hi) == (-1.0, 2.0)
    assert ctx.ranges.of(graph_input(ctx, "z")).hi == float("inf")


def graph_input(ctx, name: str) -> Value:
    return next(v for v in ctx.builder.graph if v.op == "input" and v.attr("name") == name)


def test_sigmoids_of_onnx_are_coarse_and_not_emitted():
    body = "mul(sigmoid(x), sub(1.0, sigmoid(x)))"
    assert walk(graph(body))[1] == {"sub(1.0, sigmoid(x))": "sigmoid(neg(x))"}
    _, replaced = walk(graph(body), host="onnx")
    assert "exp(log_sigmoid(x))" in next(iter(replaced.values()))


def test_onnx_has_no_detach():
    body = "e = exp(x)\ndiv(e, add(sum(e, axes=(1,), keepdim=True), 0.001))"
    assert "detach" in next(iter(walk(graph(body))[1].values()))
    assert "detach" not in next(iter(walk(graph(body), host="onnx")[1].values()))


# --- what a rewrite uncovers ------------------------------------------------------------------------------------------


def later(body: str) -> list[str]:
    """Codes of what is proposed once the first candidates are in place."""
    view = graph(body)
    ctx = context(view, Options())
    replaced = proposals(view, ctx, lambda p: p.candidates[0] if p.candidates else None)
    return [p.rule.code for p in uncovered(view, ctx, replaced)]


def test_most_rewrites_uncover_nothing():
    assert later(SOFTMAX + "log(p)") == []
    assert later(SOFTMAX + "return log(p), tanh(p)") == []
    assert later("tanh(x)") == []


def test_a_rewrite_uncovers_another():
    """exp(x)·exp(z) under a quotient inside a log-sum-exp is an exponent once it is rewritten."""
    body = "div(1.0, add(1.0, exp(neg(logsumexp(div(z, mul(exp(x), exp(z))), axes=(1,), keepdim=True)))))"
    assert later(body)
