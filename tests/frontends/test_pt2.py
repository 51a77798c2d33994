"""Reading `.pt2` archives: ordinary ones load, damaged ones and ones that would run code are refused.

Each dangerous archive is shown to be dangerous: loaded by torch itself, it leaves a file behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import stabilize
from stabilize.errors import ModelError
from stabilize.frontends.pt2 import read, write
from stabilize.frontends.pt2_sizes import is_arithmetic

Records = dict[str, bytes]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor, extra: dict[str, list[torch.Tensor]], *, scale: torch.Tensor) -> torch.Tensor:
        rows = extra["more"][0].reshape(-1, 4)
        e = torch.exp(self.linear(torch.cat([x, rows])) + self.shift)
        return e[: x.shape[0] * 2 + 1] / e.sum() * scale


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    return torch.export.export(
        Net(),
        (torch.randn(6, 4), {"more": [torch.randn(5, 8)]}),
        {"scale": torch.randn(1)},
        dynamic_shapes={"x": {0: dynamic}, "extra": {"more": [{0: dynamic}]}, "scale": None},
    )


@pytest.fixture(scope="module")
def records(program: torch.export.ExportedProgram) -> Records:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def save(records: Records, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name}", data)
    return path


def edit_json(records: Records, name: str, edit: Callable[[object], None]) -> Records:
    tree = json.loads(records[name])
    edit(tree)
    return {**records, name: json.dumps(tree).encode()}


def edit_text(records: Records, name: str, pattern: str, new: str) -> Records:
    text, count = re.subn(pattern, lambda _: new, records[name].decode())
    assert count
    return {**records, name: text.encode()}


def test_an_ordinary_archive_round_trips(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with path.open("wb") as file:
        write(program, file)
    loaded = read(path)
    args, kwargs = program.example_inputs
    torch.testing.assert_close(loaded.module()(*args, **kwargs), program.module()(*args, **kwargs), rtol=0, atol=0)
    assert loaded.range_constraints.keys() == program.range_constraints.keys()


def test_the_helper_writes_archives_that_torch_reads(records: Records, tmp_path: Path) -> None:
    assert read(save(records, tmp_path / "net.pt2")).graph_signature.user_inputs == ("x", "extra_more_0", "scale")


# -- danger ---------------------------------------------------------------------------------------------------------

WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def pickled_weight(records: Records, canary: Path) -> Records:
    def edit(tree: dict) -> None:
        payload = next(iter(tree["config"].values()))
        payload["use_pickle"], payload["path_name"] = True, "weight_0"

    bomb = io.BytesIO()
    torch.save(Touch(canary), bomb)
    return {**edit_json(records, WEIGHTS, edit), "data/weights/weight_0": bomb.getvalue()}


def opaque_constant(records: Records, canary: Path) -> Records:
    def edit(tree: dict) -> None:
        tree["config"]["thing"] = {
            "path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None
        }  # fmt: skip

    return {
        **edit_json(records, CONSTANTS, edit),
        "data/constants/opaque_obj_0": pickle.dumps(Touch(canary)),
    }


def pickled_sample_inputs(records: Records, canary: Path) -> Records:
    bomb = io.BytesIO()
    torch.save(((Touch(canary),), {}), bomb)
    return {**records, "data/sample_inputs/model.pt": bomb.getvalue()}


def legacy_weights(records: Records, canary: Path) -> Records:
    bomb = io.BytesIO()
    torch.save({"linear.weight": Touch(canary)}, bomb)
    return {**records, "data/weights/model.pt": bomb.getvalue()}


def size_expression(records: Records, canary: Path) -> Records:
    code = f"Symbol.as_dummy.__globals__['__builtins__']['__import__']('os').mkdir({str(canary)!r})"
    escaped = json.dumps(code)[1:-1]
    return edit_text(records, "models/model.json", r'(?<="expr_str": ")Symbol[^"]*', escaped)


@pytest.mark.parametrize("size", [
    "Integer(10)**Integer(10)**Integer(10)", "Pow(Integer(10), Pow(Integer(10), Integer(10)))",
    "Pow(Pow(Pow(Integer(10), Integer(64)), Integer(64)), Integer(64))", "LShift(Integer(1), Integer(10000000000))",
    "Integer(2)**Symbol('s0')", "Symbol('s0')**-100000",
])  # fmt: skip
def test_sizes_that_take_all_memory_to_write_down_are_refused(size: str, records: Records, tmp_path: Path) -> None:
    text = r'(?<="expr_str": ")Symbol[^"]*'
    path = save(edit_text(records, "models/model.json", text, size), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="not plain arithmetic"):
        read(path)


@pytest.mark.parametrize("size", [
    "Symbol('s27', positive=True, integer=True)", "Pow(Symbol('s27', positive=True, integer=True), Integer(2))",
    "Add(Integer(-1), Mul(Rational(1, 2), Pow(Symbol('s0'), Integer(-1))))", "Mul(" + "s0, " * 99 + "Integer(3))",
    " + ".join(f"s{i}" for i in range(200)), "L['x'].size()[0] <= 8 * 2**31",
])  # fmt: skip
def test_what_torch_writes_for_sizes_is_arithmetic(size: str) -> None:
    assert is_arithmetic(size)


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (pickled_weight, "pickled tensor subclass"),
        (opaque_constant, "pickled object"),
        (pickled_sample_inputs, "sample inputs"),
        (legacy_weights, "older layout"),
        (size_expression, "not plain arithmetic"),
    ],
)
def test_archives_that_run_code_are_refused(
    attack: Callable[[Records, Path], Records], named: str, records: Records, tmp_path: Path
) -> None:
    canary = tmp_path / "ran"
    path = save(attack(records, canary), tmp_path / "net.pt2")

    with pytest.raises(ModelError, match=named) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert not canary.exists()

    with contextlib.suppress(Exception):  # the code has run by the time torch notices that what it got is no tensor
        torch.export.load(path)
    assert canary.exists(), "harmless: this archive does not test anything"


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.load_library",
        "torch.hub.load",
        "torch.load",
        "torchX.hub.load",
        "_operator.__builtins__.get",
        "math.__loader__.load_module",
        "torch.ops.__class__.mro",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.exp.__class__",
        "torch.ops.aten.exp",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.save.default",
        "torch.ops.aten.absent.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten._sparse_coo_tensor_unsafe.default",
        "torch.ops.debugprims.load_tensor.default",
        "torch.ops.mylib.exp.default",
        "torch.ops.higher_order.call_torchbind",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.call",
        "#custom",
        "exp",
    ],
)
def test_graphs_that_call_other_things_than_operators_are_refused(
    target: str, records: Records, tmp_path: Path
) -> None:
    changed = edit_text(records, "models/model.json", r"torch\.ops\.aten\.exp\.default", target)
    with pytest.raises(ModelError, match=re.escape(repr(target))):
        read(save(changed, tmp_path / "net.pt2"))


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.zeros(16)
        t.fill_(65.0)
        return x + t.sum()


def test_a_graph_that_overwrites_a_file_is_refused(tmp_path: Path) -> None:
    """aten.from_file maps a file into a tensor; what is written to the tensor is written to the file."""
    victim = tmp_path / "precious"
    victim.write_bytes(b"secret content, please keep!!!!!")
    x = torch.zeros(2)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Sum(), (x,)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}

    def edit(tree: dict) -> None:
        node = tree["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(victim)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 2},
            {"name": "size", "arg": {"as_int": 8}, "kind": 2},
        ]

    path = save(edit_json(records, "models/model.json", edit), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"aten\.from_file.*filename"):
        read(path)
    assert victim.read_bytes().startswith(b"secret")

    torch.export.load(path).module()(x)
    assert not victim.read_bytes().startswith(b"secret"), "harmless: this archive does not test anything"


def test_operators_that_are_arguments_are_looked_at(records: Records, tmp_path: Path) -> None:
    def edit(tree: dict) -> None:
        tree["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.hub.load"}

    with pytest.raises(ModelError, match=re.escape("'torch.hub.load'")):
        read(save(edit_json(records, "models/model.json", edit), tmp_path / "net.pt2"))


class Everyday(torch.nn.Module):
    """Operators with settings that are strings, control flow, arithmetic on sizes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            t = torch.cond(x.sum() > 0, lambda a: a.exp(), lambda a: a - 1, (x,))
        return (
            t / x.shape[0],
            torch.div(x, 3, rounding_mode="floor"),
            torch.nn.functional.gelu(x, approximate="tanh"),
            torch.einsum("ij,kj->ik", x, x),
            torch.searchsorted(x.sort().values, x, side="right"),
            (x > 0) & (x < 1),
        )


@pytest.mark.parametrize("decomposed", [False, True])
def test_operators_that_models_use_are_read(decomposed: bool, tmp_path: Path) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Everyday(), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    program = program.run_decompositions() if decomposed else program
    torch.export.save(program, tmp_path / "net.pt2")
    torch.testing.assert_close(read(tmp_path / "net.pt2").module()(x), Everyday()(x))


@pytest.mark.parametrize("name", ["absent.pt2", "folder.pt2"])
def test_what_is_no_file_is_one_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / name))):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "guard", ["__import__('os')", "L['x'].__class__", "(lambda: 1)()", "L['x').size()[0] > 1", "open('f')"]
)
def test_guards_other_than_comparisons_of_sizes_are_refused(guard: str, records: Records, tmp_path: Path) -> None:
    def edit(tree: dict) -> None:
        tree["guards_code"] = [guard]

    with pytest.raises(ModelError, match="not plain arithmetic"):
        read(save(edit_json(records, "models/model.json", edit), tmp_path / "net.pt2"))


def test_a_plain_guard_is_kept(records: Records, tmp_path: Path) -> None:
    guard = "L['x'].size()[0] % 2 == 0 and not 16*L['x'].size()[0] > 2**31"

    def edit(tree: dict) -> None:
        tree["guards_code"] = [guard]

    assert guard in read(save(edit_json(records, "models/model.json", edit), tmp_path / "net.pt2"))._guards_code


def test_argument_names_that_are_code_are_refused(records: Records, tmp_path: Path) -> None:
    def edit(tree: dict) -> None:
        signature = tree["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(signature["in_spec"])
        assert spec[1]["children_spec"][1]["context"] == '["scale"]'
        spec[1]["children_spec"][1]["context"] = '["scale=print()"]'
        signature["in_spec"] = json.dumps(spec)

    changed = edit_json(records, "models/model.json", edit)
    with pytest.raises(ModelError, match="not the name of an argument"):
        read(save(changed, tmp_path / "net.pt2"))


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not an archive at all",
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes(300) + data[500:],
    ],
    ids=["empty", "text", "truncated", "overwritten"],
)
def test_damaged_files_are_one_error(damage: Callable[[bytes], bytes], records: Records, tmp_path: Path) -> None:
    path = save(records, tmp_path / "net.pt2")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize("missing", ["models/model.json", WEIGHTS, "data/weights/weight_0", "archive_version"])
def test_incomplete_archives_are_one_error(
    missing: str, records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save({k: v for k, v in records.items() if k != missing}, tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=re.escape(str(path))):
        read(path)


def test_two_records_of_one_name_are_refused(records: Records, tmp_path: Path) -> None:
    path = save({**records, "MODELS/model.json": b"{}"}, tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="two records"):
        read(path)


# -- records and their sizes ----------------------------------------------------------------------------------------


def test_a_compressed_record_is_refused(records: Records, tmp_path: Path) -> None:
    """Gigabytes of zeros take kilobytes in a file; torch writes no such record, and would read it whole."""
    path = save(records, tmp_path / "bomb.pt2")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/extra/zeros", bytes(1 << 20))
    with pytest.raises(ModelError, match=r"bomb\.pt2: .*'model/extra/zeros' is compressed"):
        read(path)


def test_overlapping_records_are_refused(records: Records, tmp_path: Path) -> None:
    path = save({**records, "extra": bytes(1 << 16)}, tmp_path / "bomb.pt2")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        whole = archive.getinfo("model/extra")
        for i in range(4):
            twin = zipfile.ZipInfo(f"model/extra{i}")
            twin.header_offset, twin.file_size, twin.compress_size, twin.CRC = (
                whole.header_offset, whole.file_size, whole.compress_size, whole.CRC
            )  # fmt: skip
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True
    with pytest.raises(ModelError, match=r"bomb\.pt2: .*its records overlap"):
        read(path)


def test_a_program_that_torch_cannot_make_a_module_of_is_named(tmp_path: Path) -> None:
    """torch.export.load lets it through; it fails only when it is to run."""
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    program.module_call_graph.clear()
    with pytest.raises(ModelError, match=r"first model \(ExportedProgram\) is no program that PyTorch can run"):
        stabilize.certify(program, program)
