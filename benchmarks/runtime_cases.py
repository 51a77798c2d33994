"""The operators that are measured: a model of one node, its inputs, and the exact formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import runtime_sweep
import torch

from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_emit import ROWS
from stabilize.frontends.onnx_emitter import CannotEmit, Emitter, Names, Place
from stabilize.frontends.onnx_runtimes import Runtime
from stabilize.frontends.onnx_types import DATA_TYPES
from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value

Formula: TypeAlias = Callable[..., Value]

#: Elements of a row that is reduced, and the kinds of inputs that an operator takes.
WIDTH = 32


@dataclass(frozen=True)
class Case:
    """One operator with its attributes.

    formula: its value in the vocabulary, given the builder and operands: what the oracle evaluates. kind: "unary",
    "binary", "rows" (reduced along the last axis) or "channels" (rows of one channel). scale: what its errors are
    relative to where that is larger than the result: the size of the terms of a sum that may cancel. more: further
    operands of a row, made from its shape. axes: the second input of reductions. spelled: the primitive whose emission
    is measured, where no operator is it. by_formula: what is composed is the formula, since the operator is not read as
    it in every format. infinite: whether rows with +inf are tried: beside one, a softmax is NaN by
    any shift.
    """

    op: str
    formula: Formula
    kind: str = "unary"
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scale: Formula | None = None
    more: Callable[[tuple[int, ...], str], Sequence[torch.Tensor]] = lambda shape, dtype: ()
    axes: tuple[int, ...] | None = None
    spelled: str | None = None
    by_formula: bool = False
    infinite: bool = True

    @property
    def name(self) -> str:
        """How the tables call it."""
        if self.spelled is not None:
            return self.spelled
        told = {k: v for k, v in self.attributes.items() if k in ("approximate", "p", "fmod")}
        return self.op + "".join(f" {k}={v}" for k, v in told.items())

    def inputs(self, dtype: str, points: int) -> tuple[list[str], list[torch.Tensor]]:
        """The names of the families, one for each row (none for single numbers), and the tensors."""
        if self.kind == "unary":
            return [], [runtime_sweep.sweep(dtype, points)]
        if self.kind == "binary":
            return [], list(runtime_sweep.pairs(dtype, points))
        names, x = runtime_sweep.rows(dtype, points, WIDTH)
        if not self.infinite:
            names, x = names[:-1], x[:-1]
        if self.kind == "channels":
            x = x.unsqueeze(1)
        return names, [x, *self.more(tuple(x.shape), dtype)]

    def values(self, tensors: Sequence[torch.Tensor]) -> tuple[Builder, list[Value], list[Value]]:
        """(builder, leaves, roots): the formula over tensors of these shapes, and its scale where it has one."""
        builder = Builder()
        leaves = [
            builder.input(f"x{i}", TensorType(str(t.dtype).removeprefix("torch."), tuple(t.shape)))
            for i, t in enumerate(tensors)
        ]
        rules = [self.formula, *([] if self.scale is None else [self.scale])]
        return builder, leaves, [rule(builder, *leaves) for rule in rules]

    def model(self, tensors: Sequence[torch.Tensor], opset: int) -> onnx.ModelProto | None:
        """A model of one node of the operator; None for what is no operator of the opset."""
        if self.spelled is not None or not onnx.defs.has(self.op, opset, ""):
            return None
        inputs = [_value(f"x{i}", t) for i, t in enumerate(tensors)]
        nodes: list[ir.Node] = []
        given = _narrow(inputs, nodes)
        weights: list[ir.Value] = []
        if self.axes is not None:
            tensor = ir.tensor(list(self.axes), dtype=ir.DataType.INT64, name="axes")
            weights.append(ir.Value(name="axes", const_value=tensor))
        node = ir.node(self.op, [*given, *weights], attributes=dict(self.attributes))
        node.outputs[0].type = ir.TensorType(given[0].dtype or ir.DataType.FLOAT)
        return _model(inputs, [*nodes, node], weights, node.outputs[0], opset)

    def composed(self, tensors: Sequence[torch.Tensor], runtime: str, opset: int) -> onnx.ModelProto | None:
        """A model of what the emitter writes where it may not use the operator in this format; None where there is
        nothing else."""
        model = self.model(tensors, opset)
        if model is None and self.spelled is None:
            return None
        inputs = [_value(f"x{i}", t) for i, t in enumerate(tensors)]
        nodes: list[ir.Node] = []
        given = _narrow(inputs, nodes)
        if model is None or self.by_formula:
            builder, leaves, (root, *_) = self.values(tensors)
            hosts = dict(zip(leaves, given, strict=True))
        else:
            view = open_onnx(model).view
            builder, root = view.builder, view.outputs[0]
            root = root.operands[0] if root.op == "cast" else root
            hosts = {view.bindings[v.name or ""]: v for v in given if v.name in view.bindings}
        emitter = Emitter(
            builder, opset, Names(v.name or "" for v in given), ROWS, Place("m", {}, hosts.get, lambda _: None),
            runtime=Runtime(runtime, avoided=frozenset({(self.op, str(tensors[0].dtype).removeprefix("torch."))})),
        )  # fmt: skip
        try:
            result = emitter.value(root).host
        except CannotEmit:
            return None
        half = tensors[0].dtype in (torch.float16, torch.bfloat16)
        if not half and any(node.op_type == self.op for node in emitter.nodes):
            return None
        return _model(inputs, [*nodes, *emitter.nodes], emitter.initializers, result, opset)


def _narrow(inputs: list[ir.Value], nodes: list[ir.Node]) -> list[ir.Value]:
    """bfloat16 enters a model by a cast from float32: runtimes take no arrays of it."""
    given: list[ir.Value] = []
    for value in inputs:
        if value.dtype == ir.DataType.BFLOAT16:
            value.dtype = ir.DataType.FLOAT
            value = _cast(nodes, value, ir.DataType.BFLOAT16)
        given.append(value)
    return given


def _model(
    inputs: list[ir.Value], nodes: list[ir.Node], weights: list[ir.Value], result: ir.Value, opset: int
) -> onnx.ModelProto:
    """The whole model; a result in bfloat16 leaves it as float32."""
    if result.dtype == ir.DataType.BFLOAT16:
        result = _cast(nodes, result, ir.DataType.FLOAT)
    graph = ir.Graph(inputs, [result], nodes=nodes, initializers=weights, opset_imports={"": opset}, name="case")
    return ir.serde.serialize_model(ir.Model(graph, ir_version=10))


def _value(name: str, tensor: torch.Tensor) -> ir.Value:
    dtype = DATA_TYPES[str(tensor.dtype).removeprefix("torch.")]
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(tuple(tensor.shape)))


def _cast(nodes: list[ir.Node], value: ir.Value, dtype: ir.DataType) -> ir.Value:
    node = ir.node("Cast", [value], attributes={"to": int(dtype)})
    node.outputs[0].name = f"{value.name}_{dtype.name.lower()}"
    node.outputs[0].type = ir.TensorType(dtype)
    node.outputs[0].shape = value.shape
    nodes.append(node)
    return node.outputs[0]


# --- elementwise --------------------------------------------------------------------------------------------------


def primitive(name: str) -> Formula:
    return lambda b, *operands: b.make(name, *operands)


def attribute(number: float) -> float:
    """An attribute as a file holds it."""
    return float(np.float32(number))


def _where(b: Builder, x: Value, positive: Value, negative: Value) -> Value:
    return b.make("where", b.apply("gt", x, 0.0), positive, negative)


def _elu(alpha: float, b: Builder, x: Value) -> Value:
    return _where(b, x, x, b.apply("mul", b.make("expm1", x), alpha))


def _celu(alpha: float, b: Builder, x: Value) -> Value:
    return _where(b, x, x, b.apply("mul", b.make("expm1", b.apply("div", x, alpha)), alpha))


def _selu(b: Builder, x: Value) -> Value:
    alpha, gamma = attribute(1.67326319217681884765625), attribute(1.05070102214813232421875)
    return b.apply("mul", _elu(alpha, b, x), gamma)


def _gelu(b: Builder, x: Value) -> Value:
    """x·Φ(x) = x/2·erfc(−x/√2)."""
    root = b.make("sqrt", b.constant(2.0, x.dtype))
    return b.make("mul", b.apply("mul", x, 0.5), b.make("erfc", b.make("neg", b.make("div", x, root))))


def _gelu_tanh(b: Builder, x: Value) -> Value:
    """x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x·σ(2·…)."""
    pi = b.make("acos", b.constant(-1.0, x.dtype))
    factor = b.make("sqrt", b.apply("div", 2.0, pi))
    cubic = b.apply("mul", b.make("mul", b.make("mul", x, x), x), 0.044715)
    inner = b.make("mul", factor, b.make("add", x, cubic))
    return b.make("mul", x, b.make("sigmoid", b.apply("mul", inner, 2.0)))


def _hard_sigmoid(alpha: float, beta: float, b: Builder, x: Value) -> Value:
    line = b.apply("add", b.apply("mul", x, alpha), beta)
    return b.apply("minimum", b.apply("maximum", line, 0.0), 1.0)


def _halves(b: Builder, x: Value) -> Value:
    """The line crosses 0 at a number that is rounded."""
    return b.apply("add", b.apply("mul", x, 0.0), 0.5)


def _hard_swish(b: Builder, x: Value) -> Value:
    line = b.apply("add", b.apply("div", x, 6.0), 0.5)
    return b.make("mul", x, b.apply("minimum", b.apply("maximum", line, 0.0), 1.0))


def _leaky(alpha: float, b: Builder, x: Value) -> Value:
    return _where(b, x, x, b.apply("mul", x, alpha))


def _mish(b: Builder, x: Value) -> Value:
    return b.make("mul", x, b.make("tanh", b.make("softplus", x)))


def _softsign(b: Builder, x: Value) -> Value:
    return b.make("div", x, b.apply("add", b.make("abs", x), 1.0))


def _cosh(b: Builder, x: Value) -> Value:
    return b.apply("mul", b.make("add", b.make("exp", x), b.make("exp", b.make("neg", x))), 0.5)


def _tan(b: Builder, x: Value) -> Value:
    return b.make("div", b.make("sin", x), b.make("cos", x))


def _ceil(b: Builder, x: Value) -> Value:
    return b.make("neg", b.make("floor", b.make("neg", x)))


def _round(b: Builder, x: Value) -> Value:
    """Half to even: 2·⌊x/2 + ½⌋ where x is half way, else ⌊x + ½⌋."""
    up = b.make("floor", b.apply("add", x, 0.5))
    even = b.apply("mul", b.make("floor", b.apply("add", b.apply("mul", x, 0.5), 0.25)), 2.0)
    half = b.make("eq", b.make("sub", x, b.make("floor", x)), b.constant(0.5, x.dtype))
    return b.make("where", half, even, up)


def _swish(b: Builder, x: Value) -> Value:
    return b.make("mul", x, b.make("sigmoid", x))


def _fmod(b: Builder, x: Value, y: Value) -> Value:
    """x − y·trunc(x/y); x for an infinite y, unless x is infinite too."""
    quotient = b.make("div", x, y)
    size = b.make("floor", b.make("abs", quotient))
    whole = b.make("where", b.apply("lt", quotient, 0.0), b.make("neg", size), size)
    endless = b.make("eq", b.make("abs", y), b.constant(math.inf, y.dtype))
    kept = b.make("add", x, b.apply("mul", x, 0.0))
    return b.make("where", endless, kept, b.make("sub", x, b.make("mul", y, whole)))


def _prelu(b: Builder, x: Value, slope: Value) -> Value:
    return b.make("where", b.apply("lt", x, 0.0), b.make("mul", x, slope), x)


def _shrink(b: Builder, x: Value) -> Value:
    below, above = b.apply("lt", x, -0.5), b.apply("gt", x, 0.5)
    zero = b.apply("mul", x, 0.0)
    return b.make("where", below, x, b.make("where", above, x, zero))


def _thresholded(b: Builder, x: Value) -> Value:
    return b.apply("where", b.apply("gt", x, 1.0), x, 0.0)


UNARY = (
    *(
        Case(name.capitalize(), primitive(name))
        for name in (
            "neg", "abs", "relu", "sign", "floor", "exp", "log", "sqrt", "sigmoid", "softplus", "tanh", "erf", "sin",
            "cos", "asin", "acos", "atan", "sinh", "asinh", "acosh", "atanh",
        )
    ),
    Case("Ceil", _ceil),
    Case("Celu", partial(_celu, attribute(1.0))),
    Case("Cosh", _cosh),
    Case("Elu", partial(_elu, attribute(1.0))),
    Case("Gelu", _gelu),
    Case("Gelu", _gelu_tanh, attributes={"approximate": "tanh"}),
    Case("HardSigmoid", partial(_hard_sigmoid, attribute(0.2), 0.5), scale=_halves),
    Case("HardSwish", _hard_swish, scale=lambda b, x: b.apply("minimum", b.make("abs", x), 3.0)),
    Case("LeakyRelu", partial(_leaky, attribute(0.01))),
    Case("Mish", _mish),
    Case("Reciprocal", lambda b, x: b.apply("div", 1.0, x)),
    Case("Round", _round),
    Case("Selu", _selu),
    Case("Softsign", _softsign),
    Case("Swish", _swish),
    Case("Tan", _tan),
)  # fmt: skip

BINARY = (
    *(
        Case(op, primitive(name), "binary")
        for op, name in (
            ("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("Div", "div"), ("Max", "maximum"), ("Min", "minimum"),
            ("Pow", "pow"),
        )
    ),
    Case("Mean", lambda b, x, y: b.apply("mul", b.make("add", x, y), 0.5), "binary",
         scale=lambda b, x, y: b.make("maximum", b.make("abs", x), b.make("abs", y))),
    Case("Mod", _fmod, "binary", {"fmod": 1}),
    Case("PRelu", _prelu, "binary"),
)  # fmt: skip


# --- rows ---------------------------------------------------------------------------------------------------------


def _along(op: str, b: Builder, x: Value) -> Value:
    return b.reduce(op, x, [x.type.rank - 1])


def _size_of_terms(op: str, b: Builder, x: Value) -> Value:
    return _along(op, b, b.make("abs", x))


def _square(b: Builder, x: Value) -> Value:
    return b.make("mul", x, x)


def _at_least_one(formula: Formula, b: Builder, *operands: Value) -> Value:
    """For a logarithm: a relative error of its argument is an absolute one of the result."""
    return b.apply("maximum", b.make("abs", formula(b, *operands)), 1.0)


def _exponents(b: Builder, x: Value) -> Value:
    """Of a log-sum-exp: the largest exponent is added to a logarithm of at most log n."""
    return b.apply("maximum", b.make("abs", _along("max", b, x)), 1.0)


def _cancelled(b: Builder, x: Value) -> Value:
    """Of the logarithm of a sum: the relative error of the sum is an absolute one of the result."""
    quotient = b.make("div", _size_of_terms("sum", b, x), b.make("abs", _along("sum", b, x)))
    return b.apply("maximum", quotient, 1.0)


def _softmax_scale(b: Builder, x: Value) -> Value:
    """A softmax has the relative error of its exponents' differences from the maximum: y·(1 + m − x)."""
    gap = b.make("sub", _along("max", b, x), x)
    return b.make("mul", b.make("softmax", x, axis=1), b.apply("add", gap, 1.0))


def _centred(b: Builder, x: Value) -> Value:
    return b.make("sub", x, _along("mean", b, x))


def _deviation(epsilon: float, b: Builder, x: Value) -> Value:
    centred = _centred(b, x)
    variance = _along("mean", b, _square(b, centred))
    return b.make("sqrt", b.apply("add", variance, epsilon))


def _normal(epsilon: float, b: Builder, x: Value) -> Value:
    return b.make("div", _centred(b, x), _deviation(epsilon, b, x))


def _normal_scale(epsilon: float, b: Builder, x: Value) -> Value:
    """What is subtracted, over the deviation."""
    largest = _along("max", b, b.make("abs", x))
    size = b.apply("maximum", b.make("div", largest, _deviation(epsilon, b, x)), 1.0)
    return b.make("expand", size, shape=x.shape)


def _ones(count: int, shape: tuple[int, ...], dtype: str) -> list[torch.Tensor]:
    """A scale of ones, then a bias of zeros."""
    width = shape[-1]
    return [torch.full((width,), 1.0 - i, dtype=getattr(torch, dtype)) for i in range(count)]


def _rms(epsilon: float, b: Builder, x: Value) -> Value:
    square = _along("mean", b, _square(b, x))
    return b.make("div", x, b.make("sqrt", b.apply("add", square, epsilon)))


def _lp(p: int, b: Builder, x: Value) -> Value:
    size = _along("norm", b, x) if p == 2 else _size_of_terms("sum", b, x)
    return b.apply("where", b.apply("eq", size, 0.0), 0.0, b.make("div", x, size))


def _losses(b: Builder, x: Value, y: Value) -> Value:
    return b.make("cross_entropy", x, y, reduction="none", ignore_index=-100, label_smoothing=0.0)


def _targets(shape: tuple[int, ...], dtype: str) -> list[torch.Tensor]:
    return [torch.arange(shape[0]) % shape[1]]


def _shift(shape: tuple[int, ...], dtype: str) -> list[torch.Tensor]:
    """Scale, bias, mean and variance of one channel."""
    return [torch.full((1,), n, dtype=getattr(torch, dtype)) for n in (1.0, 0.0, 1e4, 1.0)]


def _batch(b: Builder, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
    return b.make("div", b.make("sub", x, mean), b.make("sqrt", b.apply("add", variance, EPSILON)))


def _batch_scale(b: Builder, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
    return b.make("maximum", b.make("abs", x), mean)


EPSILON = attribute(1e-5)
_LAST = (1,)

ROW = (
    Case("ReduceSum", partial(_along, "sum"), "rows", axes=_LAST, scale=partial(_size_of_terms, "sum")),
    Case("ReduceMean", partial(_along, "mean"), "rows", axes=_LAST, scale=partial(_size_of_terms, "mean")),
    Case("ReduceMax", partial(_along, "max"), "rows", axes=_LAST),
    Case("ReduceMin", partial(_along, "min"), "rows", axes=_LAST),
    Case("ReduceProd", partial(_along, "prod"), "rows", axes=_LAST),
    Case("ReduceL1", partial(_size_of_terms, "sum"), "rows", axes=_LAST),
    Case("ReduceL2", partial(_along, "norm"), "rows", axes=_LAST, by_formula=True),
    Case("ReduceSumSquare", lambda b, x: _along("sum", b, _square(b, x)), "rows", axes=_LAST),
    Case("ReduceLogSum", lambda b, x: b.make("log", _along("sum", b, x)), "rows", axes=_LAST, scale=_cancelled),
    Case("ReduceLogSumExp", partial(_along, "logsumexp"), "rows", axes=_LAST, scale=_exponents),
    Case("Softmax", lambda b, x: b.make("softmax", x, axis=1), "rows", {"axis": -1}, _softmax_scale,
         infinite=False),
    Case("LogSoftmax", lambda b, x: b.make("log_softmax", x, axis=1), "rows", {"axis": -1},
         partial(_at_least_one, lambda b, x: b.make("log_softmax", x, axis=1)), infinite=False),
    Case("LpNormalization", partial(_lp, 1), "rows", {"p": 1, "axis": -1}, infinite=False),
    Case("LpNormalization", partial(_lp, 2), "rows", {"p": 2, "axis": -1}, infinite=False),
    Case("LayerNormalization", lambda b, x, *_: _normal(EPSILON, b, x), "rows", {"axis": -1},
         lambda b, x, *_: _normal_scale(EPSILON, b, x), more=partial(_ones, 2),
         infinite=False),
    Case("RMSNormalization", lambda b, x, *_: _rms(EPSILON, b, x), "rows", {"axis": -1}, more=partial(_ones, 1),
         infinite=False),
    Case("InstanceNormalization", lambda b, x, *_: _normal(EPSILON, b, x), "channels", {},
         lambda b, x, *_: _normal_scale(EPSILON, b, x), more=lambda _, d: _ones(2, (1,), d), infinite=False),
    Case("GroupNormalization", lambda b, x, *_: _normal(EPSILON, b, x), "channels", {"num_groups": 1},
         lambda b, x, *_: _normal_scale(EPSILON, b, x), more=lambda _, d: _ones(2, (1,), d), infinite=False),
    Case("BatchNormalization", _batch, "channels", {}, _batch_scale, more=_shift),
    Case("CumSum", lambda b, x: b.make("cumsum", x, axis=1), "rows", axes=_LAST, infinite=False,
         scale=lambda b, x: b.make("cumsum", b.make("abs", x), axis=1)),
    Case("SoftmaxCrossEntropyLoss", _losses, "rows", {"reduction": "none"},
         partial(_at_least_one, _losses), more=_targets, infinite=False),
)  # fmt: skip


def _spelled(name: str, kind: str = "unary", scale: Formula | None = None) -> Case:
    return Case(name, primitive(name), kind, spelled=name, scale=scale)


def _larger(b: Builder, x: Value, y: Value) -> Value:
    return b.apply("maximum", b.make("maximum", b.make("abs", x), b.make("abs", y)), 1.0)


#: Primitives that are no operators of the standard.
SPELLED = (
    *map(_spelled, ("log_sigmoid", "log1p", "expm1", "erfc", "erfcx", "log_ndtr")),
    _spelled("logaddexp", "binary", _larger),
)

ALL: tuple[Case, ...] = (*UNARY, *BINARY, *ROW, *SPELLED)
