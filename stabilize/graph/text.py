"""The text form of a semantic view: one line a value, used by tests, reports and documentation.

    def graph(x: float32[2, 5]):
        e = exp(x)
        return div(e, sum(e, axes=(1,), keepdim=True))

The grammar is a subset of Python's, read with `ast` and never executed. Numbers are constants of the dtype
beside them; `cast`, reductions and layout take their attributes as keywords.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from itertools import islice
from typing import cast

from stabilize.errors import ShapeError, TextError
from stabilize.graph.build import Builder, Operand
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.value import Attr, Dim, TensorType, Value, cone, latest_first
from stabilize.graph.view import View

_TYPE = re.compile(r"^(\w+)\[(.*)\]$")


def parse(text: str) -> View:
    """Read a graph; TextError names the line that is wrong."""
    try:
        module = ast.parse(text.strip())
    except SyntaxError as error:
        raise TextError(f"line {error.lineno}: {error.msg}") from error
    match module.body:
        case [ast.FunctionDef() as function]:
            return _Parser().function(function)
        case _:
            raise TextError("expected one 'def graph(...):'")


class _Parser:
    def __init__(self) -> None:
        self.builder = Builder()
        self.names: dict[str, Value] = {}

    def function(self, function: ast.FunctionDef) -> View:
        for arg in function.args.args:
            if arg.annotation is None:
                raise TextError(f"input {arg.arg} has no type, e.g. float32[2, 5]")
            self.names[arg.arg] = self.builder.input(arg.arg, _parse_type(ast.unparse(arg.annotation)))
        outputs: tuple[Value, ...] = ()
        for statement in function.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.names[name] = self.expression(value)
                case ast.Return(value=ast.Tuple(elts=elements)):
                    outputs = tuple(self.expression(e) for e in elements)
                case ast.Return(value=ast.expr() as value):
                    outputs = (self.expression(value),)
                case _:
                    raise TextError(f"line {statement.lineno}: expected 'name = op(...)' or 'return ...'")
        bindings = dict(self.names)
        bound = set(bindings.values())
        for made in cone(outputs):
            if made not in bound and made.op != "constant":
                bindings[f"v{made.index}"] = made
        ordered = dict(sorted(bindings.items(), key=lambda item: item[1].index))
        return View(self.builder, ordered, outputs)

    def expression(self, node: ast.expr) -> Value:
        operand = self.operand(node)
        if not isinstance(operand, Value):
            raise TextError(f"line {node.lineno}: a number alone has no dtype here")
        return operand

    def operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.Name(id=name) if name in self.names or name not in ("inf", "nan"):
                if name not in self.names:
                    raise TextError(f"line {node.lineno}: {name} is not defined")
                return self.names[name]
            case ast.Call(func=ast.Name(id=op), args=args, keywords=keywords):
                name = op.removesuffix("_") if op.removesuffix("_") in VOCABULARY else op
                attrs = {cast(str, k.arg): _attr(k.value) for k in keywords}
                try:
                    if name == "constant":
                        return self.builder.make(name, **attrs)
                    return self.builder.apply(name, *(self.operand(a) for a in args), **attrs)
                except (ShapeError, KeyError) as error:
                    raise TextError(f"line {node.lineno}: {op}: {error}") from error
            case _:
                number = _attr(node)
                if isinstance(number, (bool, int, float)):
                    return number
                raise TextError(f"line {node.lineno}: expected a name, a call or a number")


def _attr(node: ast.expr) -> Attr:
    match node:
        case ast.Name(id="inf"):
            return float("inf")
        case ast.Name(id="nan"):
            return float("nan")
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return float("-inf")
        case _:
            return cast(Attr, ast.literal_eval(node))


def _parse_type(text: str) -> TensorType:
    match = _TYPE.match(text)
    if match is None:
        raise TextError(f"{text!r} is not a type like float32[2, n]")
    dims = [d.strip() for d in match[2].strip("()").split(",") if d.strip()]
    shape: tuple[Dim, ...] = tuple(int(d) if d.isdigit() else d for d in dims)
    return TensorType(match[1], shape)


def show(values: tuple[Value, ...] | list[Value], leaves: tuple[Value, ...] = ()) -> str:
    """The text form of the cone of `values`; every value used twice gets a name."""
    order = cone(values, leaves)
    uses: dict[int, int] = {}
    for value in order:
        for operand in value.operands:
            uses[operand.index] = uses.get(operand.index, 0) + 1
    stop = {leaf.index for leaf in leaves}
    text: dict[int, str] = {}
    inputs: list[str] = []
    taken: set[str] = set()
    lines: list[str] = []
    for value in order:
        if value.op == "input" or value.index in stop:
            name = str(value.attr("name")) if value.op == "input" else f"v{value.index}"
            name = re.sub(r"\W", "_", name)
            while name in taken:
                name += "_"
            taken.add(name)
            text[value.index] = name
            inputs.append(f"{name}: {value.type if value.shape else f'{value.dtype}[()]'}")
            continue
        spelled = spell(value, _operand_texts(value, text))
        if uses.get(value.index, 0) > 1 and value.op != "constant":
            lines.append(f"    v{value.index} = {spelled}")
            spelled = f"v{value.index}"
        text[value.index] = spelled
    results = ", ".join(text[v.index] for v in values)
    return "\n".join([f"def graph({', '.join(inputs)}):", *lines, f"    return {results}"])


def _operand_texts(value: Value, text: Mapping[int, str]) -> list[str]:
    """The operands of `value`; a scalar constant is a number where its dtype is that of the value beside it."""
    others = [o.dtype for o in value.operands if not _is_scalar(o)]
    beside = others[-1] if others else None
    return [str(o.attr("value")) if _is_scalar(o) and o.dtype == beside else text[o.index] for o in value.operands]


def _is_scalar(value: Value) -> bool:
    return value.op == "constant" and value.shape == ()


def spell(value: Value, operands: list[str]) -> str:
    """One call of the text form, given the text of its operands."""
    op = value.op + "_" if value.op in ("and", "or", "not") else value.op
    attrs = [f"{k}={v!r}" for k, v in value.attrs]
    return f"{op}({', '.join([*operands, *attrs])})"


_INFIX = {"add": " + ", "sub": " − ", "mul": "·", "div": " / "}


def one_line(value: Value, names: Mapping[Value, str], limit: int = 160) -> str:
    """`value` as one line of mathematics over the named values below it, for reports; long text is cut with …

    What would not fit is not looked at either: a line holds fewer values than it has characters.
    """
    text: dict[Value, str] = {}
    for v in reversed(list(islice(latest_first(value, names), limit))):
        if v in names and v is not value:
            text[v] = names[v]
        else:
            text[v] = _shorten(_phrase(v, [text.get(o, "…") for o in v.operands]), limit)
    return text[value]


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _phrase(value: Value, operands: list[str]) -> str:
    if value.op == "constant":
        number = value.attr("value")
        return f"{number:.6g}" if isinstance(number, float) else str(number)
    if value.op in ("input", "opaque"):
        return str(value.attr("name" if value.op == "input" else "target"))
    if value.op in _INFIX:
        a, b = (f"({o})" if " " in o and value.op in ("mul", "div") else o for o in operands)
        b = f"({b})" if value.op == "sub" and " " in b and not b.startswith("(") else b
        return f"{a}{_INFIX[value.op]}{b}"
    if value.op == "neg":
        return f"−({operands[0]})" if " " in operands[0] else f"−{operands[0]}"
    if value.op in ("cast", "expand", "squeeze", "unsqueeze", "reshape", "detach", "transpose"):
        return operands[0]
    axes = [str(v) for k, v in value.attrs if k == "axis"] + [
        ", ".join(map(str, v)) for k, v in value.attrs if k == "axes" and isinstance(v, tuple)
    ]
    return f"{value.op}({', '.join(operands + axes)})"
