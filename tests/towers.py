"""Models of any size, to see how cost grows: naive transformer blocks, as a PyTorch module and as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, ROWS = 32, 4, 8


class Block(torch.nn.Module):
    """A transformer block: attention with its softmax by hand, a GELU layer, norms before both."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
        self.q, self.k, self.v, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        q, k, v = (
            project(y).reshape(-1, ROWS, HEADS, WIDTH // HEADS).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        e = torch.exp(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5)
        mixed = (e / e.sum(-1, keepdim=True)) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(-1, ROWS, WIDTH))
        h = self.up(self.norms[1](x))
        return x + self.down(h * 0.5 * (1 + torch.erf(h / 2**0.5)))


class Tower(torch.nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        p = torch.exp(x)
        return torch.log(p / p.sum(-1, keepdim=True))


def tower(nodes: int) -> tuple[Tower, torch.Tensor]:
    """A tower whose exported graph has about `nodes` calls, and an input."""
    torch.manual_seed(0)
    x = torch.randn(2, ROWS, WIDTH)
    one = len(list(torch.export.export(Tower(1).eval(), (x,)).graph.nodes))
    two = len(list(torch.export.export(Tower(2).eval(), (x,)).graph.nodes))
    blocks = max(1, round((nodes - (2 * one - two)) / (two - one)))
    return Tower(blocks).eval(), x


class _Writer:
    """Collects the nodes and weights of an ONNX graph."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.random = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, name: str, value: object) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(self, rows: int, columns: int) -> str:
        value = (self.random.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
        return self.constant(f"weight_{len(self.weights)}", value)

    def linear(self, x: str, rows: int, columns: int) -> str:
        bias = self.constant(f"bias_{len(self.weights)}", np.zeros(columns, np.float32))
        return self.op("Add", self.op("MatMul", x, self.weight(rows, columns)), bias)

    def norm(self, x: str) -> str:
        scale = self.constant(f"scale_{len(self.weights)}", np.ones(self.width, np.float32))
        return self.op("LayerNormalization", x, scale, self.constant("shift", np.zeros(self.width, np.float32)))

    def heads(self, x: str, perm: list[int]) -> str:
        split = self.constant("split", np.array([-1, ROWS, HEADS, self.width // HEADS]))
        return self.op("Transpose", self.op("Reshape", self.linear(x, self.width, self.width), split), perm=perm)

    def block(self, x: str) -> str:
        y = self.norm(x)
        q, k, v = self.heads(y, [0, 2, 1, 3]), self.heads(y, [0, 2, 3, 1]), self.heads(y, [0, 2, 1, 3])
        depth = self.constant("depth", np.float32((self.width // HEADS) ** 0.5))
        e = self.op("Exp", self.op("Div", self.op("MatMul", q, k), depth))
        mixed = self.op("Transpose", self.op("MatMul", self.share(e), v), perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", mixed, self.constant("join", np.array([-1, ROWS, self.width])))
        x = self.op("Add", x, self.linear(mixed, self.width, self.width))
        h = self.linear(self.norm(x), self.width, 2 * self.width)
        one, half, root = (self.constant(f"c{c:.1f}", np.float32(c)) for c in (1, 0.5, 2**0.5))
        tail = self.op("Add", one, self.op("Erf", self.op("Div", h, root)))
        return self.op("Add", x, self.linear(self.op("Mul", self.op("Mul", h, half), tail), 2 * self.width, self.width))

    def share(self, e: str) -> str:
        return self.op("Div", e, self.op("ReduceSum", e, self.constant("last", np.array([-1])), keepdims=1))


def onnx_tower(nodes: int, width: int = WIDTH) -> onnx.ModelProto:
    """The same tower with `nodes` nodes, up to a block, and its weights of `width` rows or columns."""
    writer = _Writer(width)
    x = "x"
    while len(writer.nodes) < nodes:
        x = writer.block(x)
    x = writer.op("Log", writer.share(writer.op("Exp", x)))
    shape = ["batch", ROWS, width]
    graph = helper.make_graph(
        writer.nodes,
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        list(writer.weights.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def large_onnx(folder: Path, gigabytes: float) -> Path:
    """A naive head over one weight of that size in an external file, sparse on disk where the file system can."""
    rows = round(gigabytes * 2**30) // (4 * WIDTH)
    data = folder / "large.data"
    with data.open("wb") as file:
        file.truncate(rows * WIDTH * 4)
        file.write(np.ones((4, WIDTH), np.float32).tobytes())
    table = TensorProto(data_type=TensorProto.FLOAT, name="table", dims=[rows, WIDTH])
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", "0"), ("length", str(rows * WIDTH * 4))):
        table.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"], axis=0),
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e", "last"], ["s"], keepdims=1),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [table, numpy_helper.from_array(np.array([-1]), "last")],
    )
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path
