"""Mutations of `.pt2` archives: records of the zip file, values of their JSON, weights, and pickles that would run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from fuzz_bytes import EDITS
from fuzz_seeds import Model

Records = dict[str, bytes]

INTS = (0, 1, -1, 2, 5, 64, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30)
WORDS = (
    "", "x", "y", "mul", "p_scale", "b_count", "cpu", "cuda", "meta", "nothing", "é", "\0", "../x", "__import__",
    "a b", "x" * 70_000,
    "as_int", "as_none", "[bold]", "\x1b[31m", "torch.ops.aten.exp.default", "graph", "self", "None", "lambda: 0",
)  # fmt: skip
TARGETS = (
    "torch.ops.aten.exp.default", "torch.ops.aten.log.default", "torch.ops.aten.add.Tensor",
    "torch.ops.aten.div.Tensor",
    "torch.ops.aten.mm.default", "torch.ops.aten.sum.dim_IntList", "torch.ops.aten.softmax.int",
    "torch.ops.aten.expand.default",
    "torch.ops.aten.repeat.default", "torch.ops.aten.view.default", "torch.ops.aten.ones.default",
    "torch.ops.aten.arange.default",
    "torch.ops.aten.full.default", "torch.ops.aten.index.Tensor", "torch.ops.aten.as_strided.default",
    "torch.ops.aten.set_.source_Tensor",
    "torch.ops.aten.resize_.default", "torch.ops.aten.from_file.default", "torch.ops.aten.item.default",
    "torch.ops.aten.cat.default",
    "torch.ops.aten._sparse_csr_tensor_unsafe.default", "torch.ops.aten.nonexistent.default",
    "torch.ops.higher_order.cond",
    "torch.ops.higher_order.while_loop", "torch.ops.higher_order.call_torchbind", "torch.ops.prims.exp.default",
    "math.pow",
    "_operator.pow", "_operator.lshift", "_operator.mul", "torch.sym_max", "torch._sym_sqrt", "os.system",
    "builtins.eval",
    "torch.load", "torch.ops.load_library", "torch.ops.inductor.foo", "torch.hub.load", "a.b.c",
)  # fmt: skip
EXPRESSIONS = (
    "s0", "s0*s0", "s77**s77**s77", "2**2**2**40", "9**9**9**9", "(" * 5000 + "s0" + ")" * 5000,
    "__import__('os').mkdir('canary')",
    "factorial(10**9)", "Integer(10)**Integer(10)**Integer(10)", "1/0", "zoo", "nan", "-1", "0", "s0 + 1e400", "''",
    "Max(s0,)" * 2,
    "FloorDiv(s0, 0)", "Symbol('s0')", "Mod(7, 0)", "+".join(["s0"] * 3000), "s0" * 1000, "Eq(s0, s1)", "10**100",
    "Pow(10, 10000000)",
)  # fmt: skip


def unpack(data: bytes) -> Records:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one name twice
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, data in records.items():
                archive.writestr(name, data)
    return buffer.getvalue()


# -- the zip file ----------------------------------------------------------------------------------------------------


def drop(chooser: random.Random, records: Records) -> bytes:
    for name in chooser.sample(list(records), chooser.choice((1, 1, 3))):
        del records[name]
    return pack(records)


def rename(chooser: random.Random, records: Records) -> bytes:
    name = chooser.choice(list(records))
    hostile = (
        "../canary",
        "/tmp/canary",
        "archive/../../canary",
        "other/" + name.partition("/")[2],
        name.upper(),
        " ",
        "\\x",
        "a/" * 500,
    )
    return pack({chooser.choice(hostile) if n == name else n: data for n, data in records.items()})


def exchange(chooser: random.Random, records: Records) -> bytes:
    a, b = chooser.sample(list(records), 2)
    records[a], records[b] = records[b], records[a]
    return pack(records)


def twice(chooser: random.Random, records: Records) -> bytes:
    buffer = io.BytesIO(pack(records))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "a") as archive:
            name = chooser.choice(list(records))
            archive.writestr(chooser.choice((name, name.upper())), records[chooser.choice(list(records))])
    return buffer.getvalue()


def bomb(chooser: random.Random, records: Records) -> bytes:
    """A record that is small in the file and gigabytes when read; the name decides who reads it."""
    buffer = io.BytesIO(pack(records))
    name = chooser.choice(
        (*records, "archive/models/second.json", "archive/data/sample_inputs/second.pt", "archive/extra/note")
    )
    size = chooser.choice((1 << 24, 1 << 28, 1 << 31))
    if name in records:
        del records[name]
        buffer = io.BytesIO(pack(records))
    fill = chooser.choice((b"\0", b" ", b"[", b"1,"))
    with (
        zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        chunk = fill * ((1 << 20) // len(fill))
        for _ in range(size >> 20):
            file.write(chunk)
    return buffer.getvalue()


def directory(chooser: random.Random, records: Records) -> bytes:
    """Fields of the zip file's own tables: sizes, offsets, methods, flags."""
    data = bytearray(pack(records))
    signature = chooser.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
    places = [i for i in range(len(data)) if data.startswith(signature, i)]
    at = chooser.choice(places) + 4 + 2 * chooser.randrange(20)
    value = chooser.choice((0, 1, 0xFFFF, 0x7FFF, 8, 9, 99))
    data[at : at + 2] = struct.pack("<H", value)
    return bytes(data)


def compress(chooser: random.Random, records: Records) -> bytes:
    return pack(records, chooser.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


# -- JSON ------------------------------------------------------------------------------------------------------------


def _containers(tree: Any) -> Iterator[Any]:
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            if item:
                yield item
            pending.extend(item.values() if isinstance(item, dict) else item)


def _odd(chooser: random.Random) -> Any:
    deep: Any = []
    for _ in range(chooser.choice((5, 900))):
        deep = chooser.choice(([deep], {"a": deep}))
    return chooser.choice((
        None, True, False, 0.5, float("nan"), float("inf"), 1e400, [], {}, deep, [1] * 1000, chooser.choice(INTS),
        chooser.choice(INTS),
        chooser.choice(WORDS), chooser.choice(WORDS), {"as_int": chooser.choice(INTS)},
        {"as_tensor": {"name": chooser.choice(WORDS)}},
        {"as_expr": {"expr_str": chooser.choice(EXPRESSIONS), "hint": None}}, {"as_none": True}, {"$type": "x"},
    ))  # fmt: skip


def _json_name(chooser: random.Random, records: Records) -> str:
    names = [n for n in records if n.endswith(".json")]
    model = next(n for n in names if "/models/" in n)
    return chooser.choice((*names, model, model, model, model))


def any_value(chooser: random.Random, records: Records) -> bytes:
    """A value becomes another, goes, is repeated, or changes places."""
    name = _json_name(chooser, records)
    tree = json.loads(records[name])
    for _ in range(chooser.choice((1, 1, 1, 2, 5, 20))):
        everything = list(_containers(tree))
        if not everything:
            break
        item = chooser.choice(everything)
        key = chooser.choice(list(item) if isinstance(item, dict) else range(len(item)))
        match chooser.randrange(5):
            case 0 | 1:
                item[key] = _odd(chooser)
            case 2:
                del item[key]
            case 3:
                item[key] = json.loads(json.dumps(chooser.choice(everything)))
            case _ if isinstance(item, list):
                item.insert(key, json.loads(json.dumps(item[chooser.randrange(len(item))])))
            case _:
                item[chooser.choice(list(item))] = item[key]
    records[name] = json.dumps(tree).encode("utf-8", "surrogatepass")
    return pack(records)


def _model(records: Records) -> tuple[str, Any]:
    name = next(n for n in records if "/models/" in n)
    return name, json.loads(records[name])


def _edit_model(records: Records, edit: Callable[[list[dict[str, Any]]], None]) -> bytes:
    name, tree = _model(records)
    edit([item for item in _containers(tree) if isinstance(item, dict)])
    records[name] = json.dumps(tree).encode()
    return pack(records)


def targets(chooser: random.Random, records: Records) -> bytes:
    def edit(objects: list[dict[str, Any]]) -> None:
        nodes = [o for o in objects if isinstance(o.get("target"), str)]
        for node in chooser.sample(nodes, chooser.choice((1, 1, 2))):
            node["target"] = chooser.choice(TARGETS)

    return _edit_model(records, edit)


def rewire(chooser: random.Random, records: Records) -> bytes:
    """Arguments and results renamed: cycles, uses before computation, results of one name."""

    def edit(objects: list[dict[str, Any]]) -> None:
        names = [o["as_tensor"] for o in objects if isinstance(o.get("as_tensor"), dict)]
        for _ in range(chooser.choice((1, 2, 5))):
            chooser.choice(names)["name"] = chooser.choice(names)["name"]
        if chooser.random() < 0.3:
            nodes = next(o["nodes"] for o in objects if isinstance(o.get("nodes"), list))
            chooser.shuffle(nodes)

    return _edit_model(records, edit)


def sizes(chooser: random.Random, records: Records) -> bytes:
    """Types of tensors: sizes, strides, offsets, dtypes, devices, layouts; expressions and ranges of sizes."""

    def edit(objects: list[dict[str, Any]]) -> None:
        for _ in range(chooser.choice((1, 2, 4))):
            metas = [o for o in objects if "sizes" in o or "expr_str" in o or "min_val" in o or "as_int" in o]
            target = chooser.choice(metas)
            if "sizes" in target:
                field = chooser.choice(
                    ("sizes", "strides", "storage_offset", "dtype", "device", "layout", "requires_grad")
                )
                number: Any = {"as_int": chooser.choice(INTS)}
                target[field] = chooser.choice((
                    [number], [{"as_int": 2}, number], [{"as_int": 1}] * 70,
                    [{"as_expr": {"expr_str": chooser.choice(EXPRESSIONS)}}], number,
                    chooser.choice(range(40)),
                    {"type": chooser.choice(("cuda", "meta", "xla", "x")), "index": chooser.choice((None, 0, 99))},
                ))  # fmt: skip
            elif "expr_str" in target:
                target["expr_str"] = chooser.choice(EXPRESSIONS)
            else:
                target[chooser.choice(list(target))] = chooser.choice(INTS)

    return _edit_model(records, edit)


def weights(chooser: random.Random, records: Records) -> bytes:
    """Weights and what is said about them do not fit."""
    name = chooser.choice([n for n in records if n.endswith("_config.json")])
    files = [n for n in records if "/data/weights/weight" in n or "/data/constants/tensor" in n]
    if files and chooser.random() < 0.5:
        file = chooser.choice(files)
        records[file] = chooser.choice(
            (b"", records[file][:-1], records[file] * 3, records[file][: len(records[file]) // 2])
        )
        return pack(records)
    tree = json.loads(records[name])
    entries = list(tree["config"].values())
    if not entries:
        tree["config"]["new"] = {"path_name": "weight_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
        entries = list(tree["config"].values())
    entry = chooser.choice(entries)
    match chooser.randrange(4):
        case 0:
            entry["path_name"] = chooser.choice(("../x", "weight_9", "/etc/passwd", "", "weight_0", "custom_obj_0", 3))
        case 1 if entry["tensor_meta"]:
            entry["tensor_meta"][chooser.choice(("sizes", "strides"))] = [
                {"as_int": chooser.choice(INTS)},
                {"as_int": chooser.choice(INTS)},
            ]
        case 2 if entry["tensor_meta"]:
            entry["tensor_meta"][chooser.choice(("dtype", "layout"))] = chooser.choice(range(-1, 45))
        case _ if entry["tensor_meta"]:
            entry["tensor_meta"]["storage_offset"] = {"as_int": chooser.choice(INTS)}
        case _:
            entry["tensor_meta"] = chooser.choice((None, {}, 3))
    records[name] = json.dumps(tree).encode()
    return pack(records)


def deep(chooser: random.Random, records: Records) -> bytes:
    """JSON that is nothing but depth, or breadth, or not JSON."""
    name = _json_name(chooser, records)
    depth = chooser.choice((500, 2_000, 100_000, 3_000_000))
    text, nested = records[name], b"[" * depth + b"]" * depth
    records[name] = chooser.choice((
        nested, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth,
        text[:-1] + b',"deep":' + nested + b"}",
        b"\xff\xfe" + text, text.replace(b":", b";", 1), b"1" * depth, b'"' + b"\\u0000" * 1000 + b'"', b"", b"NaN",
        b"[" + b"0," * depth + b"0]",
        text[:-1] + b',"deep":' + b"9" * 5000 + b"}",
    ))  # fmt: skip
    return pack(records)


# -- pickles ---------------------------------------------------------------------------------------------------------


class Touch:
    """Unpickling this makes a folder, which is how one sees that it was unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("canary",)


def hostile_pickle(chooser: random.Random, records: Records) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": Touch()}, buffer, _use_new_zipfile_serialization=chooser.random() < 0.5)
    payload = chooser.choice((buffer.getvalue(), pickle.dumps(Touch())))
    sample = next((n for n in records if "/sample_inputs/" in n), "archive/data/sample_inputs/model.pt")
    folder = sample.partition("/")[0]
    choice = chooser.randrange(5)
    if choice == 0:
        records[sample] = payload
    elif choice == 1:
        records[f"{folder}/data/sample_inputs/other.pt"] = payload
    elif choice == 2:
        records[f"{folder}/data/weights/model.pt"] = payload
    else:
        name = next(n for n in records if n.endswith("weights_config.json"))
        tree = json.loads(records[name])
        tree["config"]["evil"] = {
            "path_name": "weight_0",
            "is_param": False,
            "use_pickle": choice == 3,
            "tensor_meta": None,
        }
        if choice == 4:
            tree["config"]["evil"]["path_name"] = "custom_obj_0"
            records[f"{folder}/data/constants/custom_obj_0"] = payload
        records[name] = json.dumps(tree).encode()
        records[f"{folder}/data/weights/weight_0"] = payload
    return pack(records)


def sample_bytes(chooser: random.Random, records: Records) -> bytes:
    """Damage inside one record, which the zip file's checksum then agrees with."""
    name = chooser.choice([*records, *(n for n in records if "/sample_inputs/" in n)] * 2)
    edit = chooser.choice(list(EDITS.values()))
    records[name] = edit(chooser, records[name] or b"0")
    return pack(records)


ArchiveEdit = Callable[[random.Random, Records], bytes]

STRUCTURED: Mapping[str, ArchiveEdit] = {
    "records missing": drop,
    "records renamed": rename,
    "records exchanged": exchange,
    "records of one name": twice,
    "bombs": bomb,
    "zip tables": directory,
    "compressed": compress,
    "any JSON value": any_value,
    "targets": targets,
    "values renamed": rewire,
    "types and sizes": sizes,
    "weights": weights,
    "deep JSON": deep,
    "hostile pickles": hostile_pickle,
    "bytes of a record": sample_bytes,
}

WEIGHTS = {
    "any JSON value": 8,
    "targets": 4,
    "values renamed": 3,
    "types and sizes": 5,
    "weights": 3,
    "bombs": 0.3,
    "deep JSON": 2,
    "bytes of a record": 3,
}


def mutate(chooser: random.Random, seed: Model) -> tuple[str, Model]:
    """(name of the mutation, mutant)."""
    names = [*STRUCTURED, *EDITS]
    name = chooser.choices(names, [WEIGHTS.get(n, 0.5 if n in EDITS else 1) for n in names])[0]
    if name in STRUCTURED:
        return name, Model("pt2", STRUCTURED[name](chooser, unpack(seed.data)))
    return name, Model("pt2", EDITS[name](chooser, seed.data))
