"""Reads and writes `.pt2` archives (`torch.export.save`), refusing the ones that would run code.

`torch.export.load` is not safe on a file from elsewhere. Of what an archive may hold, torch 2.13
  - unpickles without restriction: weights and constants marked `use_pickle` (tensor subclasses), opaque constants,
    sample inputs that a restricted unpickler rejects, and the weight files of older layouts;
  - evaluates: the text of symbolic sizes goes through `sympy.sympify`, which calls `eval`, and that of guards and
    the names of arguments become Python source;
  - resolves: the target of a node, and an operator that is an argument, is any dotted name under `torch`, and is called
    when the graph is run. Operators of `torch.ops` are among these that write files (`aten.from_file`);
  - loads: compiled libraries (AOTInductor).
`read` looks at the archive first and refuses all of these, so what is left is plain tensors, arithmetic on sizes,
control flow over graphs in the archive, and the operators of `aten` and `prims` whose schema says that they make
tensors and numbers from tensors, numbers and settings. An archive with other parts that is trusted can be loaded with
`torch.export.load` and passed on as an `ExportedProgram`.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from stabilize.errors import ModelError
from stabilize.frontends.pt2_sizes import is_arithmetic
from stabilize.quiet import unlogged

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Calls that are no operators: arithmetic on sizes.
_ON_SIZES = re.compile(
    r"_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lshift|lt|mod|mul|ne|neg|not_|or_|pos|pow|rshift|sub|truediv)"
    r"|math\.(?!_)\w+|torch\._?sym_\w+"
)
#: Control flow; its bodies are graphs of the archive and looked at like the whole.
_CONTROL_FLOW = re.compile(
    r"torch\.ops\.higher_order\.(associative_scan|auto_functionalized(_v2)?|cond|flex_attention|hints_wrapper"
    r"|invoke_subgraph|map_impl|scan|strict_mode|tag_activation_checkpoint|while_loop|wrap_with_autocast"
    r"|wrap_with_set_grad_enabled)"
)
_OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.(\w+)\.(\w+)")
#: What an operator that only computes takes and gives, besides lists of these and None.
_DATA = frozenset({
    "Tensor", "int", "float", "bool", "complex", "number", "str", "ScalarType", "Layout", "MemoryFormat", "Device",
    "Generator",
})  # fmt: skip
#: Arguments that are a word from a short list or a message. A string of another name may be a file.
_SETTINGS = frozenset({
    "UPLO", "activation", "api_name", "approximate", "assert_msg", "device_type", "driver", "equation", "indexing",
    "interpolation", "mode", "norm", "ord", "p", "pad_mode", "padding", "padding_side", "reduce", "rounding_mode",
    "side",
})  # fmt: skip
#: Operators that believe the indices or offsets they are given, and read and write outside their tensors.
_UNCHECKED = re.compile(r"_sparse_\w+_unsafe|_nested_view_from_buffer\w*")


def read(path: str | Path) -> ExportedProgram:
    """The program saved at `path`; ModelError when it is missing, damaged, or would run code (see above)."""
    path = Path(path)
    _inspect(path)
    import torch

    try:
        with unlogged():
            return torch.export.load(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # whatever a damaged archive makes of the deserializer is one thing to the user
        raise ModelError(f"{path}: torch.export.load cannot read it: {_first_line(error)}") from error


def write(program: ExportedProgram, file: BinaryIO) -> None:
    """Serialize `program` into an open binary file; ModelError when torch.export.save cannot."""
    import torch

    try:
        with unlogged():
            torch.export.save(program, cast("io.BytesIO", file))
    except OSError:
        raise  # of the file, which the caller names
    except Exception as error:  # a program that torch.export.load let through need not be one that save takes
        raise ModelError(f"the program cannot be saved: {_first_line(error)}: export the model again") from error


def _inspect(path: Path) -> None:
    """Raise ModelError unless the archive at `path` consists of plain data only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len({name.casefold() for name in names}) != len(names):  # torch's reader ignores case
                raise ModelError(f"{path}: not a .pt2 archive, or damaged: two records have one name")
            _check_sizes(archive, path)
            for name in names:
                reason = _danger(archive, name)
                if reason is not None:
                    raise ModelError(
                        f"{path}: {reason}; what is not plain tensors and operators on them could run code or write "
                        "files: if you trust it, load it with torch.export.load and pass the program to "
                        "stabilize.optimize"
                    )
            if not any(_within(name).startswith("models/") for name in names):
                raise ModelError(f"{path}: not an archive written by torch.export.save (no model inside)")
    except OSError as error:
        raise _unreadable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: not a .pt2 archive, or damaged: {_first_line(error)}") from error


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """ModelError for records larger than they are in the file: torch compresses none, and reads them whole."""
    records = archive.infolist()
    packed = [r.filename for r in records if r.compress_type != zipfile.ZIP_STORED or r.compress_size != r.file_size]
    if packed:
        raise ModelError(f"{path}: not written by torch.export.save, or damaged: {packed[0]!r} is compressed")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise ModelError(f"{path}: not a .pt2 archive, or damaged: its records overlap")


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: {error.strerror or error}: check the path")


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
            if isinstance(text, str) and not is_arithmetic(text):
                return f"{text!r} is not plain arithmetic on sizes"
        for target in (item.get("target"), item.get("as_operator")):
            reason = _call_danger(target) if isinstance(target, str) else None
            if reason is not None:
                return f"its graph calls {target!r}{reason}"
        spec = item.get("in_spec")
        names = [*_strings(item.get("forward_arg_names")), *(_keywords(spec) if isinstance(spec, str) else ())]
        for name in names:
            if not name.isidentifier():
                return f"{name!r} is not the name of an argument"
    return None


def _call_danger(target: str) -> str | None:
    """What is wrong with `target` unless all it does is make tensors and numbers from tensors and numbers."""
    if _ON_SIZES.fullmatch(target) or _CONTROL_FLOW.fullmatch(target):
        return None
    named = _OPERATOR.fullmatch(target)
    if named is None:
        return ", which is no operator of aten or prims"
    if _UNCHECKED.fullmatch(named[2]):
        return ", which does not check its arguments"
    import torch

    space, name, overload = named.groups()
    try:
        schema = cast(Any, torch)._C._get_schema(f"{space}::{name}", "" if overload == "default" else overload)
    except RuntimeError:
        return f", which torch {torch.__version__} does not have"
    for argument in schema.arguments:
        kind = _element(str(argument.real_type))
        if kind not in _DATA or (kind == "str" and argument.name not in _SETTINGS):
            return f", which takes more than tensors and numbers ({argument.name})"
    if any(_element(str(result.real_type)) not in _DATA - {"str"} for result in schema.returns):
        return ", which gives something else than tensors and numbers"
    return None


def _element(kind: str) -> str:
    """`List[Optional[Tensor]]` is made of `Tensor`."""
    while (inside := re.fullmatch(r"(?:List|Optional)\[(.*)\]", kind)) is not None:
        kind = inside[1]
    return kind


def _keywords(spec: str) -> list[str]:
    """Names of keyword arguments in a serialized tree of inputs: the keys of its second branch, a dictionary."""
    match json.loads(spec or "null"):
        case [_, {"children_spec": [_, {"context": str(keys)}]}]:
            return _strings(json.loads(keys))
        case _:
            return []


def _strings(items: object) -> list[str]:
    return [item for item in cast("list[object]", items) if isinstance(item, str)] if isinstance(items, list) else []


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
