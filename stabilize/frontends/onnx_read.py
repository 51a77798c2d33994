"""ONNX → semantic view.

The default domain is read by a table, one row per operator; everything else is an opaque value: other domains,
model-local functions, control flow (what its bodies capture counts as an operand), random operators, and any node
whose types the vocabulary refuses. Opaque is safe: such a value equals itself and nothing is concluded from it.
"""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from typing import TypeVar, cast, final

import numpy as np
import onnx_ir as ir

from stabilize.errors import ShapeError
from stabilize.frontends import onnx_layout, onnx_rows
from stabilize.frontends.onnx_call import Call, Contents, Refused, Row
from stabilize.frontends.onnx_check import bodies, conforms
from stabilize.frontends.onnx_contents import LIMIT, SYMBOLIC, contents_of, dtype_of
from stabilize.frontends.onnx_expand import folded
from stabilize.frontends.onnx_infer import Stated, inferred
from stabilize.frontends.onnx_types import DATA_TYPES, DTYPES, UNTYPED, arithmetic, conflict, sizes_of, small, uniform
from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value, cone
from stabilize.graph.view import Source, View

ROWS: dict[str, Row] = {**onnx_rows.ROWS, **onnx_layout.ROWS}

#: Two calls of these are two values even when their operands are equal.
RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")
)

_Read = TypeVar("_Read")

#: Views, which leave a constant what it is.
VIEWS = frozenset(("reshape", "unsqueeze", "squeeze", "transpose", "expand", "slice"))


@final
class Reader:
    """Reads the main graph of one model. By name: `tensors`, the data behind every leaf that has some; `contents`, the
    small arrays that are known before a run, to which those known beforehand are given."""

    def __init__(self, model: ir.Model, opset: int, contents: Contents | None = None) -> None:
        self.model = model
        self.types = inferred(model)
        self.opset = opset
        self.builder = Builder()
        self.tensors: dict[str, ir.TensorProtocol] = {}
        self._values: dict[ir.Value, Value] = {}
        self._bindings: dict[str, Value] = {}
        self._hosts: dict[str, ir.Value] = {}
        self.contents: dict[str, np.ndarray] = dict(contents or {})
        self._untyped: set[Value] = set()
        self._parameters: set[str] = set()
        self._arrays: dict[tuple[TensorType, bytes], Value] = {}
        self._functions = set(self.model.functions)

    def read(self) -> View:
        graph = self.model.graph
        for value in graph.inputs:
            self._bind(value, self._leaf(value))
        for value in graph.initializers.values():
            # from IR 4 on, an initializer that is also an input is only a default: its data may change
            if value not in self._values or self.model.ir_version < 4:
                self._bind(value, self._tensor(value, value.const_value))
        with np.errstate(all="ignore"):  # what is folded may overflow here as it does in every runtime
            for node in graph:
                self._node(node)
        outputs = tuple(self._values[v] for v in graph.outputs if v in self._values)
        live = set(cone(outputs)) | {self._values[v] for v in graph.inputs}
        bindings = {name: value for name, value in self._bindings.items() if value in live}
        sources = {
            output.name: source
            for node in graph
            if (source := source_of(node.metadata_props)) is not None
            for output in node.outputs
            if output.name in bindings
        }
        return View(self.builder, bindings, outputs, sources, frozenset(self._parameters & bindings.keys()))

    # --- for the graphs inside ----------------------------------------------------------------------------------

    def host(self, name: str) -> ir.Value:
        """The value `name` of the graph that was read."""
        return self._hosts[name]

    def stated(self, host: ir.Value) -> Stated:
        """Type and shape of a value of the graph that was read; symbols keep their names."""
        value = self._values.get(host)
        if value is None or value in self._untyped or value.dtype not in DATA_TYPES:
            return self.types.stated(host)
        return ir.TensorType(DATA_TYPES[value.dtype]), ir.Shape(value.shape)

    def content(self, name: str) -> ir.TensorProtocol | None:
        """The data of the value `name`, where that is known before a run."""
        if name in self.tensors:
            return self.tensors[name]
        array = self.contents.get(name)
        if array is not None and array.dtype != SYMBOLIC:
            return ir.tensor(array, name=name)
        value = self._bindings[name]
        sizes = tuple(d for d in value.shape if isinstance(d, int))
        if value.op != "constant" or len(sizes) < value.type.rank or math.prod(sizes) > LIMIT:
            return None
        full = np.full(sizes, cast(float, value.attr("value")), DATA_TYPES[value.dtype].numpy())
        return ir.tensor(full, name=name)

    # --- leaves -----------------------------------------------------------------------------------------------

    def _bind(self, host: ir.Value, value: Value) -> None:
        self._values[host] = value
        if host.name:
            self._hosts[host.name] = host
            self._bindings[host.name] = value

    def _leaf(self, host: ir.Value) -> Value:
        type = self.types.of(host)
        leaf = self.builder.input(host.name or "", type or UNTYPED)
        if type is None:
            self._untyped.add(leaf)
        return leaf

    def _tensor(self, host: ir.Value, tensor: ir.TensorProtocol | None) -> Value:
        """A weight or constant: a `constant` when all its elements are one number, else a named leaf."""
        name = host.name or ""
        if tensor is None:
            return self._leaf(host)
        dtype = DTYPES.get(tensor.dtype, "other")
        shape = sizes_of(tensor)
        type = TensorType(dtype, shape)
        self.tensors[name] = tensor
        array = None if dtype == "other" else small(tensor)
        if array is not None:
            if array.size <= LIMIT:
                self.contents[name] = array
            number = uniform(array)
            if number is not None:
                return self.builder.constant(number, dtype, shape)
            if _counts(array):
                return self.builder.make("arange", size=int(array.size), dtype=dtype)
        self._parameters.add(name)
        leaf = self.builder.input(name, type)
        return leaf if array is None else self._first_equal(leaf, array)

    def _first_equal(self, leaf: Value, array: np.ndarray) -> Value:
        """The leaf whose data was the first to equal `array`, that of `leaf`. Few weights are alike in a sample of
        their elements: the others are not hashed."""
        flat = array.reshape(-1)
        first = self._arrays.setdefault((leaf.type, flat[:: flat.size // 64 + 1].tobytes()), leaf)
        if first is leaf:
            return leaf
        other = small(self.tensors[str(first.attr("name"))])
        if other is not None and other.tobytes() == array.tobytes():
            return first
        return self._arrays.setdefault((leaf.type, hashlib.sha256(array.tobytes()).digest()), leaf)

    # --- nodes ------------------------------------------------------------------------------------------------

    def _node(self, node: ir.Node) -> None:
        stated = tuple(self.types.of(o) for o in node.outputs)
        args = tuple(None if v is None else self._values[v] for v in node.inputs)
        call = Call(node, self.opset, self.builder, args, self.contents, stated)
        read: tuple[Value | None, ...] = ()
        if not self._special(node) and conforms(node, self.opset):
            if node.op_type == "Constant" and self._constant(node):
                return
            if not any(a in self._untyped for a in args if a is not None):
                result = _attempted(ROWS.get(node.op_type), call)
                read = result if isinstance(result, tuple) else (result,)
                self._follow(call)
        for index, host in enumerate(node.outputs):
            value = self._known(host) or (read[index] if index < len(read) else None)
            type = stated[index]
            if value is None or (type is not None and conflict(value.type, type)):
                self._bind(host, self._opaque(call, index))
            else:
                self._bind(host, self._computed(folded(self.builder, value)))

    def _computed(self, value: Value) -> Value:
        """Constants, computed now: models divide by the square root of a size, and expand ones."""
        if value.op in VIEWS and value.operands[0].op == "constant":
            return self.builder.constant(cast(float, value.operands[0].attr("value")), value.dtype, value.shape)
        numbers = [float(cast(float, o.attr("value"))) for o in value.operands if o.op == "constant"]
        if not numbers or len(numbers) < len(value.operands):
            return value
        number = arithmetic(value.op, numbers, value.dtype)
        return value if number is None else self.builder.constant(number, value.dtype, value.shape)

    def _special(self, node: ir.Node) -> bool:
        return node.domain != "" or (node.domain, node.op_type, node.overload) in self._functions

    def _follow(self, call: Call) -> None:
        """Record the first output where it is an array known now, unless the host states another type."""
        array = _attempted(contents_of, call)
        if array is None:
            return
        stated = call.stated[0]
        if stated is None or not conflict(TensorType(dtype_of(array), array.shape), stated):
            self.contents[call.node.outputs[0].name or ""] = array

    def _known(self, host: ir.Value) -> Value | None:
        """A scalar that is known: sizes that models scale by."""
        array = self.contents.get(host.name or "")
        number = None if array is None or array.size != 1 or array.dtype == SYMBOLIC else uniform(array)
        if array is None or number is None:
            return None
        return self.builder.constant(number, dtype_of(array), array.shape)

    def _constant(self, node: ir.Node) -> bool:
        if len(node.attributes) != 1:
            return False
        (attribute,) = node.attributes.values()
        host = node.outputs[0]
        match attribute:
            case ir.Attr(name="value", type=ir.AttributeType.TENSOR):
                tensor = attribute.as_tensor()
            case ir.Attr(name="value_float"):
                tensor = ir.tensor(np.asarray(attribute.as_float(), np.float32))
            case ir.Attr(name="value_floats"):
                tensor = ir.tensor(np.asarray(attribute.as_floats(), np.float32))
            case ir.Attr(name="value_int"):
                tensor = ir.tensor(np.asarray(attribute.as_int(), np.int64))
            case ir.Attr(name="value_ints"):
                tensor = ir.tensor(np.asarray(attribute.as_ints(), np.int64))
            case _:
                return False
        self._bind(host, self._tensor(host, tensor))
        return True

    def _opaque(self, call: Call, index: int) -> Value:
        node = call.node
        captured = tuple(self._values[v] for v in captures(node) if v in self._values)
        target = f"{node.domain or 'onnx'}.{node.op_type}"
        attributes = [attribute_text(a) for a in node.attributes.values()]
        if any(a is None for a in attributes) or captured or node.op_type in RANDOM or node.domain != "":
            target += f"@{node.outputs[0].name}"
        else:
            present = "".join("x" if a is not None else "_" for a in call.args)
            target += f"({', '.join(sorted(a for a in attributes if a))})" + (f"[{present}]" if "_" in present else "")
        operands = tuple(a for a in call.args if a is not None) + captured
        type = call.stated[index]
        # an untyped operand hides what was passed: such a call equals only itself
        if type is None or any(o in self._untyped for o in operands):
            target = f"{target.partition('@')[0]}@{node.outputs[0].name}"
        value = self.builder.opaque(target, operands, type or UNTYPED, index)
        if type is None or type.dtype == "other":
            self._untyped.add(value)
        return value


def _attempted(rule: Callable[[Call], _Read] | None, call: Call) -> _Read | None:
    """What `rule` reads; None where it has no expression, or where sizes, axes or bounds of the node do not fit.

    The latter is what NumPy and Python raise for them: such a node fails in every runtime, and is opaque here.
    """
    try:
        return None if rule is None else rule(call)
    except (Refused, ShapeError, ArithmeticError, LookupError, ValueError):
        return None


def _counts(array: np.ndarray) -> bool:
    """Whether `array` is 0, 1, …, n−1 with n ≥ 2."""
    return array.dtype == np.int64 and array.ndim == 1 and bool((array == np.arange(array.size)).all())


def captures(node: ir.Node) -> Iterator[ir.Value]:
    """Values that the bodies of a control-flow node use from outside, once each."""
    seen: set[ir.Value] = set()
    for graph in bodies(node):
        used = [value for inner in graph.all_nodes() for value in inner.inputs]
        for value in (*used, *graph.outputs):
            if value is not None and value not in seen:
                seen.add(value)
                yield value


def attribute_text(attribute: ir.Attr) -> str | None:
    """`name=value` of an attribute that text identifies; None for tensors, graphs and references."""
    plain = (
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.STRING,
        ir.AttributeType.STRINGS,
    )
    if attribute.is_ref() or attribute.type not in plain:
        return None
    return f"{attribute.name}={attribute.value!r}"


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def source_of(metadata: dict[str, str]) -> Source | None:
    """Where the PyTorch exporter says a node came from: the innermost frame and the module path."""
    if not metadata:
        return None
    frames = _FRAME.findall(metadata.get("pkg.torch.onnx.stack_trace", ""))
    module: str | None = None
    try:
        scopes = ast.literal_eval(metadata.get("pkg.torch.onnx.name_scopes", "[]"))
        # the last scope is the node itself; the others nest, outermost first
        inner: Iterator[object] = reversed(cast("list[object]", scopes)[:-1]) if isinstance(scopes, list) else iter(())
        module = next((s for s in inner if isinstance(s, str) and s), None)
    except (ValueError, SyntaxError):
        module = None
    if not frames and module is None:
        return None
    file, line = frames[-1] if frames else (None, None)
    return Source(module, file, int(line) if line else None)
