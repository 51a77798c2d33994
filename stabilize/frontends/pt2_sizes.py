"""The text of sizes and guards in a `.pt2` archive: torch evaluates it when it loads the file."""

from __future__ import annotations

import ast
import math
import re

#: Functions in the text of sizes and guards: constructors of sympy and of torch's own size arithmetic.
_FUNCTION = re.compile(r"[A-Z]\w*")
#: Strings in that text: names of symbols and arguments, digits of numbers.
_STRING = re.compile(r"[\w.+-]*")
#: Methods in the text of guards.
_METHODS = ("size", "stride", "storage_offset")
#: Constructors and operators whose value has about as many digits as the second operand says.
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
#: Bits of the largest number that evaluation may make, and of a size.
_MOST_BITS, _SIZE_BITS = 1 << 16, 64


def is_arithmetic(text: str) -> bool:
    """Whether `text` is made of size constructors, symbols, numbers and sizes of named arguments only.

    Numbers that would take more than memory and time to write down, as 10**10**10, are none of a size.
    """
    try:
        tree = ast.parse(text, mode="eval")
        calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        return all(_is_plain(node, id(node) in calls) for node in ast.walk(tree)) and _bits(tree) <= _MOST_BITS
    except (SyntaxError, ValueError, RecursionError, OverflowError):
        return False


def _is_plain(node: ast.AST, called: bool) -> bool:
    match node:
        case ast.Name(id=name):
            return not called or _FUNCTION.fullmatch(name) is not None
        case ast.Attribute(attr=name):
            return called and name in _METHODS
        case ast.Constant(value=str(text)):
            return _STRING.fullmatch(text) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float)
        case _:
            return isinstance(node, _ARITHMETIC)


_ARITHMETIC = (
    ast.Expression, ast.Call, ast.keyword, ast.Subscript, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Tuple,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def _bits(node: ast.AST) -> float:
    """About as many bits has the value of `node`; symbols are sizes."""
    match node:
        case ast.BinOp(left=base, op=ast.Pow() | ast.LShift(), right=exponent):
            return _bits(base) * _magnitude(exponent)
        case ast.Call(func=ast.Name(id=name), args=[base, exponent]) if name in _POWERS:
            return _bits(base) * _magnitude(exponent)
        case ast.BinOp(op=ast.Mult()) | ast.Call(func=ast.Name(id="Mul")):
            return sum(_bits(child) for child in ast.iter_child_nodes(node))
        case ast.Constant(value=int(number)):
            return float(number.bit_length())
        case ast.Constant(value=text):
            return max(4.0 * len(str(text)), _SIZE_BITS)
        case _:
            return max((_bits(child) for child in ast.iter_child_nodes(node)), default=0.0)


def _magnitude(exponent: ast.AST) -> float:
    """The number that is written there, at least 1; infinity when none is."""
    match exponent:
        case ast.UnaryOp(operand=number):
            return _magnitude(number)
        case ast.Call(func=ast.Name(id="Integer" | "Rational"), args=numbers):
            return max((_magnitude(number) for number in numbers), default=math.inf)
        case ast.Constant(value=int(number)):
            return float(max(abs(number), 1))
        case _:
            return math.inf
