"""Reads and writes `.pt2` archives (`torch.export.save`), refusing the ones that would run code.

`torch.export.load` is not safe on a file from elsewhere. Of what an archive may hold, torch 2.13
  - unpickles without restriction: weights and constants marked `use_pickle` (tensor subclasses), opaque constants,
    sample inputs that a restricted unpickler rejects, and the weight files of older layouts;
  - evaluates: the text of symbolic sizes goes through `sympy.sympify`, which calls `eval`, and that of guards and
    the names of arguments become Python source;
  - resolves: the target of a node is any dotted name under `torch`, and is called when the graph is run;
  - loads: compiled libraries (AOTInductor).
`read` looks at the archive first and refuses all of these, so what is left is plain tensors, operator calls from
`torch.ops` and arithmetic on sizes. An archive with such parts that is trusted can be loaded with
`torch.export.load` and passed on as an `ExportedProgram`.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from stabilize.errors import ModelError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: What the deserializer resolves to a function, by prefix …
_RESOLVED = ("torch", "_operator", "math")
#: … and of that, what only computes: operators with a namespace, and arithmetic on sizes.
_COMPUTES = re.compile(
    r"torch\.ops\.(?!__)\w+\.(?!__[a-z]+__)\w+(\.(?!__)\w+)?|(_operator|math)\.[a-z]\w*|torch\._?sym_\w+"
)
#: Functions in the text of sizes and guards: constructors of sympy and of torch's own size arithmetic.
_FUNCTION = re.compile(r"[A-Z]\w*")
#: Strings in that text: names of symbols and arguments, digits of numbers.
_STRING = re.compile(r"[\w.+-]*")
#: Methods in the text of guards.
_METHODS = ("size", "stride", "storage_offset")


def read(path: str | Path) -> ExportedProgram:
    """The program saved at `path`; ModelError when it is missing, damaged, or would run code (see above)."""
    path = Path(path)
    _inspect(path)
    import torch

    try:
        with _quiet("torch.export"):
            return torch.export.load(path)
    except Exception as error:  # whatever a damaged archive makes of the deserializer is one thing to the user
        raise ModelError(f"{path}: torch.export.load cannot read it: {_first_line(error)}") from error


def write(program: ExportedProgram, file: BinaryIO) -> None:
    """Serialize `program` into an open binary file."""
    import torch

    torch.export.save(program, cast("io.BytesIO", file))


def _inspect(path: Path) -> None:
    """Raise ModelError unless the archive at `path` consists of plain data only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len({name.casefold() for name in names}) != len(names):  # torch's reader ignores case
                raise ModelError(f"{path}: not a .pt2 archive, or damaged: two records have one name")
            for name in names:
                reason = _danger(archive, name)
                if reason is not None:
                    raise ModelError(
                        f"{path}: {reason}, which could run code from the file; if you trust it, "
                        "load it with torch.export.load and pass the program to stabilize.optimize"
                    )
            if not any(_within(name).startswith("models/") for name in names):
                raise ModelError(f"{path}: not an archive written by torch.export.save (no model inside)")
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: not a .pt2 archive, or damaged: {_first_line(error)}") from error


def _within(name: str) -> str:
    """The record's name below the archive's own folder."""
    return name.partition("/")[2]


def _danger(archive: zipfile.ZipFile, name: str) -> str | None:
    """Why the record `name` must not be loaded, or None."""
    inner = _within(name)
    folder, _, file = inner.rpartition("/")
    if folder.startswith("data/aotinductor"):
        return f"it holds compiled code ({inner})"
    if folder in ("data/weights", "data/constants") and file.endswith("_config.json"):
        return _payload_danger(json.loads(archive.read(name)))
    if folder in ("data/weights", "data/constants") and file.endswith(".pt"):
        return f"it holds a pickle of an older layout ({inner})"
    if folder == "data/sample_inputs":
        return _sample_danger(archive.read(name))
    if folder == "models":
        return _graph_danger(json.loads(archive.read(name)))
    if name == "version":
        return "it has the layout of torch 2.7 and before, made of pickles"
    return None


def _payload_danger(config: object) -> str | None:
    for payload in _objects(config):
        file = payload.get("path_name")
        if isinstance(file, str) and file.startswith(("custom_obj_", "opaque_obj_")):
            return f"it holds a pickled object ({file})"
        if payload.get("use_pickle"):
            return f"it holds a pickled tensor subclass ({file})"
    return None


def _sample_danger(data: bytes) -> str | None:
    import torch

    if not data:
        return None
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except pickle.UnpicklingError:
        return "its sample inputs are pickled objects other than tensors"
    return None


def _graph_danger(graph: object) -> str | None:
    for item in _objects(graph):
        texts = [item.get("expr_str"), *_strings(item.get("guards_code"))]
        for text in texts:
            if isinstance(text, str) and not _is_arithmetic(text):
                return f"{text!r} is not plain arithmetic on sizes"
        target = item.get("target")
        if isinstance(target, str) and target.startswith(_RESOLVED) and not _COMPUTES.fullmatch(target):
            return f"its graph calls {target!r}"
        spec = item.get("in_spec")
        names = [*_strings(item.get("forward_arg_names")), *(_keywords(spec) if isinstance(spec, str) else ())]
        for name in names:
            if not name.isidentifier():
                return f"{name!r} is not the name of an argument"
    return None


def _keywords(spec: str) -> list[str]:
    """Names of keyword arguments in a serialized tree of inputs: the keys of its second branch, a dictionary."""
    match json.loads(spec or "null"):
        case [_, {"children_spec": [_, {"context": str(keys)}]}]:
            return _strings(json.loads(keys))
        case _:
            return []


def _strings(items: object) -> list[str]:
    return [item for item in cast("list[object]", items) if isinstance(item, str)] if isinstance(items, list) else []


def _is_arithmetic(text: str) -> bool:
    """Whether `text` is made of size constructors, symbols, numbers and sizes of named arguments only."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(_is_plain(node, id(node) in calls) for node in ast.walk(tree))


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


def _objects(tree: object) -> Iterator[dict[str, object]]:
    """Every JSON object in `tree`."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            found = cast("dict[str, object]", item)
            yield found
            pending.extend(found.values())
        elif isinstance(item, list):
            pending.extend(cast("list[object]", item))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _quiet(logger: str) -> Generator[None]:
    """Keep a logger silent: torch logs tracebacks of errors that are then raised and reported anyway."""
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
