"""Makes ONNX nodes for values of the view: operands reused, constants shared, names readable and unique."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, final

import numpy as np
import onnx
import onnx_ir as ir

from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.frontends.onnx_types import DATA_TYPES, host_shape, numpy_dtype
from stabilize.graph.build import Builder
from stabilize.graph.value import Dim, TensorType, Value

_SPELLING = {
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    **{f"tensor(int{n})": f"int{n}" for n in (8, 16, 32, 64)},
}


@final
class CannotEmit(Exception):
    """A value has no spelling in the operators of this opset; the message says why."""


@lru_cache(maxsize=1024)
def accepted(op_type: str, opset: int) -> tuple[frozenset[str], ...]:
    """The dtypes that each input of an operator takes in `opset`; CannotEmit when the operator is newer."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError as error:
        raise CannotEmit(f"opset {opset} has no operator {op_type}") from error
    table = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    inputs = [table.get(i.type_str, [i.type_str]) for i in schema.inputs]
    rows = [frozenset(_SPELLING[t] for t in types if t in _SPELLING) for types in inputs]
    variadic = bool(schema.inputs) and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    return tuple(rows) + tuple(rows[-1:] * 64 if variadic else ())


@final
class Names:
    """Names not yet taken in a model."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def fresh(self, wish: str) -> str:
        """`wish`, with a number behind it when it is taken."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name

    def copy(self) -> Names:
        """The same names taken; what becomes of one changes nothing in the other."""
        return Names(self._taken)


@final
@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the host graph and its type in the view."""

    host: ir.Value
    type: TensorType


@final
@dataclass(frozen=True)
class Place:
    """Where nodes are being made: `prefix` starts their names, `metadata` is copied to them."""

    prefix: str
    metadata: dict[str, str]
    available: Callable[[Value], ir.Value | None]
    symbol: Callable[[str], tuple[ir.Value, int] | None]


Emit: TypeAlias = "Callable[[Emitter, Value], Ref]"


@final
class Emitter:
    """Spells values as nodes. `nodes` and `initializers` collect what was made; the caller puts them in the graph."""

    def __init__(
        self,
        builder: Builder,
        opset: int,
        names: Names,
        rows: dict[str, Emit],
        place: Place,
        overridden: frozenset[str] = frozenset(),
        runtime: Runtime = PORTABLE,
    ) -> None:
        """overridden: operators that the model defines anew; they do not compute what their names say.
        runtime: what will run the model, which decides between an operator and a composition of others."""
        self.builder = builder
        self.runtime = runtime
        self._overridden = overridden
        self.opset = opset
        self.place = place
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._names = names
        self._rows = rows
        self._made: dict[Value, Ref] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Ref] = {}
        self._shared: dict[tuple[object, ...], list[Ref]] = {}

    # --- values -----------------------------------------------------------------------------------------------

    def value(self, value: Value) -> Ref:
        """The host value of `value`: one that is there already, or nodes for it."""
        for pending in self._missing(value):
            if pending.op not in ("constant", "arange"):
                self._spell(pending)
        return self._found(value) or self._spell(value)

    def forget(self) -> None:
        """What was made so far is made again where it is needed: nodes that were only tried stand in no graph."""
        self._made.clear()
        self._shared.clear()

    def _found(self, value: Value) -> Ref | None:
        if value in self._made:
            return self._made[value]
        host = self.place.available(value)
        return None if host is None else Ref(host, value.type)

    def _missing(self, root: Value) -> list[Value]:
        """What must be made for `root`, operands first: a walk of its own, so that depth is not recursion."""
        seen: dict[int, Value] = {}
        stack = [root]
        while stack:
            value = stack.pop()
            if value.index not in seen and self._found(value) is None:
                seen[value.index] = value
                stack.extend(value.operands)
        return [seen[i] for i in sorted(seen)]

    def _spell(self, value: Value) -> Ref:
        row = self._rows.get(value.op)
        if value.op in ("input", "opaque"):
            what = value.attr("name" if value.op == "input" else "target")
            raise CannotEmit(f"{what} is not computed before the place where it is needed")
        if row is None:
            raise CannotEmit(f"ONNX has no operator for {value.op}")
        self._made[value] = row(self, value)
        return self._made[value]

    def size(self, symbol: str) -> Ref:
        """The size that `symbol` names, int64[1], read off a value that has it."""
        found = self.place.symbol(symbol)
        if found is None:
            raise CannotEmit(f"no value at hand has the dimension {symbol}")
        host, axis = found
        source = Ref(host, TensorType("float32", (symbol,)))  # Shape takes every dtype
        if self.opset >= 15:
            return self.op("Shape", source, type=TensorType("int64", (1,)), start=axis, end=axis + 1)
        shape = self.op("Shape", source, type=TensorType("int64", ("?",)))
        return self.op("Gather", shape, self.ints([axis]), type=TensorType("int64", (1,)), axis=0)

    def shape(self, dims: Sequence[Dim]) -> Ref:
        """A shape as an int64 tensor, computed where it is symbolic."""
        if all(isinstance(d, int) for d in dims):
            return self.ints([d for d in dims if isinstance(d, int)])
        parts = [self.ints([d]) if isinstance(d, int) else self.size(d) for d in dims]
        if len(parts) == 1:
            return parts[0]
        return self.op("Concat", *parts, type=TensorType("int64", (len(parts),)), axis=0)

    def computes(self, op_type: str, dtype: str) -> bool:
        """Whether a node of `op_type` on tensors of `dtype` is possible here, and computed stably where it will run."""
        if op_type in self._overridden or not self.runtime.computes(op_type, dtype):
            return False
        try:
            return dtype in accepted(op_type, self.opset)[0]
        except CannotEmit:
            return False

    # --- constants --------------------------------------------------------------------------------------------

    def ints(self, numbers: Sequence[int]) -> Ref:
        return self.array(np.asarray(numbers, np.int64), "int64")

    def number(self, number: bool | int | float, dtype: str) -> Ref:
        """A scalar constant."""
        return self.array(np.asarray(number).astype(numpy_dtype(dtype)), dtype)

    def array(self, array: np.ndarray, dtype: str) -> Ref:
        """An initializer, shared with every equal one."""
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            wish = "axes" if array.ndim else "constant"
            if array.ndim == 0 and dtype != "bool":
                wish = "constant_" + f"{float(array):g}".replace("-", "minus_").replace(".", "_").replace("+", "")
            name = self._names.fresh(f"stabilized_{wish}")
            type = TensorType(dtype, array.shape)
            tensor = ir.tensor(array, dtype=DATA_TYPES[dtype], name=name)
            host = ir.Value(
                name=name, type=ir.TensorType(DATA_TYPES[dtype]), shape=host_shape(type.shape), const_value=tensor
            )
            self.initializers.append(host)
            self._constants[key] = Ref(host, type)
        return self._constants[key]

    # --- nodes ------------------------------------------------------------------------------------------------

    def op(self, op_type: str, *inputs: Ref | None, type: TensorType, **attributes: Any) -> Ref:
        """A node with one output of `type`."""
        return self.multi(op_type, *inputs, types=(type,), **attributes)[0]

    def multi(self, op_type: str, *inputs: Ref | None, types: Sequence[TensorType], **attributes: Any) -> list[Ref]:
        """A node. bfloat16 is widened to float32 around an operator that does not take it in this opset."""
        if op_type in self._overridden:
            raise CannotEmit(f"the model has a function of its own named {op_type}")
        takes = accepted(op_type, self.opset)
        for operand, allowed in zip(inputs, takes, strict=False):
            if operand is None or operand.type.dtype in allowed:
                continue
            if operand.type.dtype == "bfloat16" and "float32" in allowed:
                return self._widened(op_type, inputs, types, attributes)
            raise CannotEmit(f"{op_type} of opset {self.opset} does not take {operand.type.dtype}")
        prefix = self.place.prefix
        outputs = [
            ir.Value(
                name=self._names.fresh(f"{prefix}_stabilized_{op_type.lower()}"),
                type=ir.TensorType(DATA_TYPES[t.dtype]),
                shape=host_shape(t.shape),
            )
            for t in types
        ]
        node = ir.Node(
            "",
            op_type,
            [None if i is None else i.host for i in inputs],
            ir.convenience.convert_attributes(attributes),
            outputs=outputs,
            name=self._names.fresh(f"{prefix}_stabilized_{op_type}"),
            metadata_props=dict(self.place.metadata),
        )
        self.nodes.append(node)
        return [Ref(o, t) for o, t in zip(outputs, types, strict=True)]

    def once(self, key: tuple[object, ...], make: Callable[[], list[Ref]]) -> list[Ref]:
        """The outputs of a node that several values of the view stand for, made the first time."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _widened(
        self, op_type: str, inputs: Sequence[Ref | None], types: Sequence[TensorType], attributes: dict[str, Any]
    ) -> list[Ref]:
        wide = [i if i is None or i.type.dtype != "bfloat16" else self.cast(i, "float32") for i in inputs]
        results = self.multi(op_type, *wide, types=[_wide(t) for t in types], **attributes)
        return [self.cast(r, t.dtype) for r, t in zip(results, types, strict=True)]

    def cast(self, value: Ref, dtype: str) -> Ref:
        if value.type.dtype == dtype:
            return value
        return self.op("Cast", value, type=TensorType(dtype, value.type.shape), to=int(DATA_TYPES[dtype]))


def _wide(type: TensorType) -> TensorType:
    return TensorType("float32", type.shape) if type.dtype == "bfloat16" else type
