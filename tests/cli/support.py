"""Models on the command line, and what a run of it gave."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

FACTORY = """
import torch

class Head(torch.nn.Module):
    def forward(self, x):
        e = torch.exp(x)
        return e / e.sum(dim=-1, keepdim=True)

class Clean(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)

class WrongOne(torch.nn.Module):
    def forward(self, x):
        e = torch.exp(x - x.max(dim=-1, keepdim=True).values)
        return e / (1 + e.sum(dim=-1, keepdim=True))

def head():
    return Head(), (torch.randn(3, 5),)

def clean():
    return Clean(), (torch.randn(3, 5),)

def wrong_one():
    return WrongOne(), (torch.randn(3, 5),)

def keywords():
    return Head(), {"x": torch.randn(3, 5)}

def branching():
    class Branch(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Branch(), (torch.randn(3),)

def raises():
    raise ValueError("no weights\\nat all")

def not_a_pair():
    return Head()

constant = 3
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


def softmax_model(stable: bool = False) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["total"], keepdims=1),
        helper.make_node("Div", ["e", "total"], ["y"]),
    ]
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)] if stable else nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [] if stable else [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def commands_of(help_text: str) -> list[str]:
    """The commands that a help text lists."""
    lines = help_text.partition("Commands:")[2].splitlines()
    return [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]


def one_line(outcome: Outcome) -> str:
    """The error of a failed run: status 2, nothing on stdout, exactly one line on stderr."""
    assert outcome.status == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("stabilize: ")
    return line


def on_terminal(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a command writes to a terminal of 200 columns."""
    terminal, device = pty.openpty()
    command = [sys.executable, "-m", "stabilize", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", **environment}
    with subprocess.Popen(command, cwd=folder, stdout=device, stderr=device, env=environment) as process:
        os.close(device)
        shown = b""
        while chunk := read(terminal):
            shown += chunk
    assert process.returncode in (0, 1), shown
    return shown.decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side of the terminal was closed
        return b""
