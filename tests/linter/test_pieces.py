"""A piece of a host graph computes what the whole model computes in between, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from stabilize.api import open_host
from stabilize.errors import ModelError
from stabilize.frontends import onnx_piece
from stabilize.frontends.onnx import open_onnx
from stabilize.graph.host import Host, Piece
from tests.frontends.onnx_support import model, run


class _Recorder(fx.Interpreter):
    """Every tensor that a graph computes, by the name of its node, as it was when it was computed."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = result.detach().clone()
        return result


def seen_in(module: fx.GraphModule, *inputs: Tensor) -> dict[str, Tensor]:
    recorder = _Recorder(module)
    recorder.run(*inputs)
    return recorder.seen


def given(piece: Piece, seen: Mapping[str, Tensor]) -> list[Tensor]:
    return [seen[name] for name in piece.inputs]


def assert_same(piece: Piece, seen: Mapping[str, Tensor], targets: Sequence[str]) -> None:
    results = cast(fx.GraphModule, piece.model)(*given(piece, seen))
    assert isinstance(results, tuple)
    for name, result in zip(targets, results, strict=True):
        torch.testing.assert_close(result, seen[name], rtol=0, atol=0, equal_nan=True)


# --- PyTorch --------------------------------------------------------------------------------------------------------


class _Attention(nn.Module):
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(-1, -2) / self.scale
        e = torch.exp(scores.masked_fill(mask, -1e4))
        return torch.log(e / e.sum(-1, keepdim=True) + 1e-9)


def _inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4), torch.rand(2, 3, 3) > 0.7


def _exported(module: nn.Module, *inputs: Tensor, **options: Any) -> tuple[Host, dict[str, Tensor]]:
    program = torch.export.export(module, inputs, **options)
    state = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
    signature = program.graph_signature
    lifted = {s.arg.name: state[cast(str, s.target)] for s in signature.input_specs if s.target is not None}
    users = iter(inputs)
    every = [lifted[n.name] if n.name in lifted else next(users) for n in program.graph.nodes if n.op == "placeholder"]
    return open_host(program, None, None), seen_in(program.graph_module, *every)


def test_every_piece_of_an_exported_model() -> None:
    host, seen = _exported(_Attention(), *_inputs())
    nodes = [n for n in seen if n in host.view.bindings]
    assert len(nodes) > 10
    for i, target in enumerate(nodes[::2]):
        for name in nodes[: i + 1 : 3]:
            piece = host.piece([name], [target])
            assert piece.inputs[0] == name or name not in piece.inputs[1:]
            assert_same(piece, seen, [target])


def test_weights_come_along_and_other_inputs_are_asked_for() -> None:
    host, seen = _exported(_Attention(), *_inputs())
    piece = host.piece(["div"], ["log"])
    assert piece.inputs == ("div", "mask") or set(piece.inputs) == {"div", "mask"}
    piece = host.piece([], ["log", "exp"])
    assert set(piece.inputs) == {"x", "mask"}
    assert_same(piece, seen, ["log", "exp"])


def test_a_piece_shares_nothing_with_the_model() -> None:
    module = _Attention()
    before = {n: p.clone() for n, p in module.named_parameters()}
    host, seen = _exported(module, *_inputs())
    piece = host.piece(["x"], ["log"])
    first = cast(fx.GraphModule, piece.model)(*given(piece, seen))[0]
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())
    assert torch.equal(first, host.piece(["x"], ["log"]).model(*given(piece, seen))[0])  # type: ignore[operator]


def test_gradients_flow_through_a_piece() -> None:
    host, seen = _exported(_Attention(), *_inputs())
    piece = host.piece(["div"], ["log"])
    inputs = [t.clone().requires_grad_(t.is_floating_point()) for t in given(piece, seen)]
    (result,) = cast(fx.GraphModule, piece.model)(*inputs)
    (slope,) = torch.autograd.grad(result.sum(), [t for t in inputs if t.requires_grad])
    assert slope.isfinite().all()
    assert slope.any()


class _Writes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        row.mul_(3)
        z = y + 1
        y.zero_()
        return z + y.sum()


def test_what_is_written_in_place_is_what_it_is_by_then() -> None:
    x = torch.randn(3, 2)
    program = torch.export.export(_Writes(), (x,))
    graph = program.graph_module
    host, seen = open_host(program, None, None), seen_in(graph, x)
    for name in ("add", "add_1"):
        piece = host.piece(["x"], [name])
        (result,) = cast(fx.GraphModule, piece.model)(x.clone())
        assert torch.equal(result, seen[name])


@pytest.mark.parametrize("rows", [2, 5])
def test_symbolic_sizes_are_what_they_were(rows: int) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x).reshape(x.shape[0] * 4).cumsum(0) / x.shape[0]

    x = torch.randn(rows, 4)
    dim = torch.export.Dim("rows", min=2, max=64)
    host, seen = _exported(Mean(), x, dynamic_shapes={"x": {0: dim}})
    assert set(host.sizes.values()) == {rows} or rows in host.sizes.values()
    target = next(n for n in seen if n.startswith("div"))
    assert_same(host.piece(["exp"], [target]), seen, [target])


def test_graph_modules() -> None:
    module = fx.symbolic_trace(_Attention())
    host = open_host(module, _inputs(), None)
    inputs = _inputs()
    seen = seen_in(module, *inputs)
    targets = [n for n in seen if n in host.view.bindings]
    assert targets
    for target in targets:
        piece = host.piece(["x"], [target])
        assert_same(piece, seen, [target])


def test_what_stands_around_a_region_can_be_taken_out() -> None:
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = torch.exp(x)
            return torch.log(y + 1) * x

    x = torch.randn(3)
    program = torch.export.export(Frozen(), (x,))
    host = open_host(program, None, None)
    target = next(n for n in host.view.bindings if n.startswith("mul"))
    piece = host.piece(["x"], [target])
    (result,) = cast(fx.GraphModule, piece.model)(x)
    torch.testing.assert_close(result, Frozen()(x), rtol=0, atol=0)
    for body in host.bodies().values():
        inner = [n for n in body.view.bindings if n.startswith("exp")]
        for name in inner:
            source = next(n for n, v in body.view.bindings.items() if v.op == "input")
            (value,) = cast(fx.GraphModule, body.piece([source], [name]).model)(x)
            torch.testing.assert_close(value, torch.exp(x), rtol=0, atol=0)


def test_unknown_names() -> None:
    host, _ = _exported(_Attention(), *_inputs())
    for names, targets in ((["absent"], ["log"]), (["x"], ["absent"])):
        with pytest.raises(ModelError, match="the graph has no node 'absent'"):
            host.piece(names, targets)


# --- ONNX -----------------------------------------------------------------------------------------------------------

_TEXT = """g (float[2, 3] x, float[2, 3] z) => (float[2, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
    a = MatMul(x, w)
    e = Exp(a)
    b = Add(e, z)
    y = Tanh(b)
}"""
_X = np.linspace(-0.1, 0.1, 6, dtype=np.float32).reshape(2, 3)
_Z = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def computed(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """What ONNX Runtime gives for values inside a model, as outputs of it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(proto)
    types = {i.name: i for i in (*inferred.graph.value_info, *inferred.graph.output)}
    copy.graph.output.extend(types[n] for n in names)
    return {**feeds, **dict(zip(names, run(copy, feeds), strict=True))}


def assert_same_in_onnx(proto: onnx.ModelProto, host: Host, names: list[str], target: str, feeds: Any) -> Piece:
    inside = [n for n in (*names, target) if n not in feeds]
    seen = computed(proto, feeds, inside)
    piece = host.piece(names, [target])
    part = cast(onnx.ModelProto, piece.model)
    onnx.checker.check_model(part)
    assert [i.name for i in part.graph.input] == list(piece.inputs)
    (result,) = run(part, {n: seen[n] for n in piece.inputs})
    np.testing.assert_array_equal(result, seen[target])
    return piece


def test_every_piece_of_an_onnx_model() -> None:
    proto = model(_TEXT)
    host = open_onnx(proto)
    order = ["x", "a", "e", "b", "y"]
    for i, target in enumerate(order[1:], start=1):
        for name in order[:i]:
            piece = assert_same_in_onnx(proto, host, [name], target, {"x": _X, "z": _Z})
            weights = [t.name for t in cast(onnx.ModelProto, piece.model).graph.initializer]
            assert weights == (["w"] if name == "x" else [])
            assert set(piece.inputs) <= {name, "z"}
    assert proto.SerializeToString() == model(_TEXT).SerializeToString()


def _external(folder: Path) -> Path:
    proto = model(_TEXT)
    w = numpy_helper.from_array(numpy_helper.to_array(proto.graph.initializer[0]), "w")
    proto.graph.initializer[0].CopyFrom(w)  # parsed tensors are not in the raw form that is saved outside
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    return folder / "m.onnx"


def test_external_data_comes_along(tmp_path: Path) -> None:
    path = _external(tmp_path)
    piece = open_onnx(str(path)).piece(["x"], ["e"])
    (path.parent / "m.bin").unlink()
    (result,) = run(cast(onnx.ModelProto, piece.model), {"x": _X})
    np.testing.assert_array_equal(result, computed(model(_TEXT), {"x": _X, "z": _Z}, ["e"])["e"])


def test_external_data_that_is_gone(tmp_path: Path) -> None:
    path = _external(tmp_path)
    (path.parent / "m.bin").unlink()
    with pytest.raises(ModelError):
        open_onnx(str(path)).piece(["x"], ["e"])


_IF = """g (float[2, 3] x, bool c) => (float[2, 3] y) <float k = {3}> {
    t = Exp(x)
    u = Add(t, k)
    y = If (c) <
        then_branch = then () => (float[2, 3] p) { l = Log(u) p = Mul(l, k) },
        else_branch = other () => (float[2, 3] q) { q = Neg(t) }
    >
}"""


def test_a_node_with_bodies_takes_what_they_use_along() -> None:
    proto = model(_IF)
    host = open_onnx(proto)
    for flag in (True, False):
        feeds = {"x": _X, "c": np.array(flag)}
        assert_same_in_onnx(proto, host, ["x"], "y", feeds)
        piece = assert_same_in_onnx(proto, host, ["t"], "y", feeds)
        assert set(piece.inputs) == {"t", "c"}


def test_pieces_inside_a_body() -> None:
    bodies = open_onnx(model(_IF)).bodies()
    then = next(b for b in bodies.values() if "l" in b.view.bindings)
    assert "u" in then.outer_names
    piece = then.piece(["u"], ["l"])
    assert piece.inputs == ("u",)
    (result,) = run(cast(onnx.ModelProto, piece.model), {"u": np.exp(_X)})
    np.testing.assert_allclose(result, _X, atol=1e-6)


def test_functions_come_along() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[2, 3] x) => (float[2, 3] y) { t = own.twice(x) e = Exp(t) y = Neg(e) }
    <domain: "own", opset_import: ["" : 18]>
    twice (a) => (b) { b = Add(a, a) }"""
    proto = onnx.parser.parse_model(text)
    host = open_onnx(proto)
    piece = host.piece(["x"], ["e"])
    assert [f.name for f in cast(onnx.ModelProto, piece.model).functions] == ["twice"]
    (result,) = run(cast(onnx.ModelProto, piece.model), {"x": _X})
    np.testing.assert_array_equal(result, run(_cut(proto, "e"), {"x": _X})[0])
    # without a call of it, it stays behind
    part = cast(onnx.ModelProto, host.piece(["t"], ["e"]).model)
    (result,) = run(part, {"t": _X + _X})
    np.testing.assert_array_equal(result, run(_cut(proto, "e"), {"x": _X})[0])


def _cut(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output[0].name = name
    return copy


def test_what_cannot_be_taken_out_of_an_onnx_model(monkeypatch: pytest.MonkeyPatch) -> None:
    host = open_onnx(model(_TEXT))
    with pytest.raises(ModelError, match="the graph has no value 'absent'"):
        host.piece(["x"], ["absent"])
    monkeypatch.setattr(onnx_piece, "_MOST_BYTES", 35)
    with pytest.raises(ModelError, match="what 'a' is computed from holds too many weights"):
        host.piece(["x"], ["a"])
    assert host.piece(["a"], ["e"]).inputs == ("a",)
    monkeypatch.setattr(onnx_piece, "_MOST_BYTES", 36)
    assert host.piece(["x"], ["a"]).inputs == ("x",)
