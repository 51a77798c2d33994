"""What README and CONTRIBUTING say is run, not believed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from stabilize.graph.text import parse, show
from stabilize.graph.value import Value
from stabilize.passes.propose import context
from stabilize.passes.rule import Options, Proposal, Rule

ROOT = Path(__file__).resolve().parents[1]


def blocks(document: str, language: str) -> list[str]:
    """The fenced code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


# -- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/half-precision.md",
        "docs/quickstart.md",
        "docs/zoo.md",
    ],
)
def test_links_and_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    here = (ROOT / document).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (here / link).exists()] == []
    paths = re.findall(r"`((?:stabilize|passes|codegen|tests|examples|docs|benchmarks)/[\w./]*)`", text)
    example = "passes/cancellation/difference_of_arctangents.py"  # the file that CONTRIBUTING tells how to write
    assert [path for path in paths if not (ROOT / path).exists() and path != example] == []


# -- CONTRIBUTING: the rule of the example --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rule() -> Rule:
    (source,) = (b for b in blocks("CONTRIBUTING.md", "python") if "RULE = Rule(" in b)
    module = types.ModuleType("difference_of_arctangents")
    exec(compile(source, "CONTRIBUTING.md", "exec"), module.__dict__)
    module.__dict__["__doc__"] = ast.get_docstring(ast.parse(source), clean=False)
    found = module.__dict__["RULE"]
    assert isinstance(found, Rule)
    return found


def proposed(rule: Rule, body: str) -> Value | None:
    view = parse(f"def graph(c: float32[5], d: float32[5]):\n{textwrap.indent(body.strip(), '    ')}")
    (value,) = view.outputs
    assert value.op in rule.ops
    proposal = rule.match(context(view, Options()), value)
    return None if proposal is None else proposal.candidates[0]


def test_the_example_rule_does_what_the_text_says(rule: Rule) -> None:
    before, after = blocks("CONTRIBUTING.md", "text")
    new = proposed(rule, before)
    assert new is not None
    assert "\n".join(line.strip() for line in show([new]).splitlines()[1:]) == after.strip()


@pytest.mark.parametrize(
    "near_miss", ["sub(atan(add(c, 2.0)), atan(c))", "sub(atan(add(c, 1.0)), atan(d))", "sub(atan(add(c, 1.0)), c)"]
)
def test_the_example_rule_declines_near_misses(rule: Rule, near_miss: str) -> None:
    assert proposed(rule, f"return {near_miss}") is None


def test_the_code_of_the_example_rule_is_free(rule: Rule) -> None:
    from stabilize.passes.rules import BY_CODE

    assert rule.code not in BY_CODE
    assert rule.documentation.startswith(f"# {rule.name} ({rule.code})")


def test_the_example_rule_has_the_sections_of_a_real_one(rule: Rule) -> None:
    from stabilize.passes.cancellation import RULES

    def sections(documentation: str) -> list[str]:
        return [line for line in documentation.splitlines() if line.startswith("## ")]

    assert sections(rule.documentation) == sections(RULES[0].documentation)


USE_THE_EXAMPLE_RULE = """
import torch, stabilize

class Angles(torch.nn.Module):
    def forward(self, c):
        rows = torch.exp(-c).sum(-1, keepdim=True)
        return torch.atan(c + 1) - torch.atan(c), torch.relu(c).argmax(-1), torch.exp(-c) / rows

c = torch.tensor([[1e4, 2.0, 3.0]])
fixed, report = stabilize.optimize(Angles(), (c,), return_report=True)
assert sorted(r.code for r in report.rewrites) == ["STB101", "STB290"], report
assert all(r.certificate.accepted for r in report.rewrites)
assert 0.99e-8 < fixed(c)[0][0, 0].item() < 1.01e-8
_, report = stabilize.optimize(Angles(), (c,), select="STB29", return_report=True)
assert [r.name for r in report.rewrites] == ["difference-of-arctangents"]
print(stabilize.__file__)
"""


def test_the_example_rule_works_in_a_copy_of_the_project(tmp_path: Path) -> None:
    """Written and registered as the text says, and asked about whole models."""
    shutil.copytree(ROOT / "stabilize", tmp_path / "stabilize", ignore=shutil.ignore_patterns("__pycache__"))
    rules = tmp_path / "stabilize" / "passes" / "cancellation"
    assert not rules.resolve().is_relative_to(ROOT)
    (source,) = (b for b in blocks("CONTRIBUTING.md", "python") if "RULE = Rule(" in b)
    (rules / "difference_of_arctangents.py").write_text(source)
    registry = (rules / "__init__.py").read_text()
    for line, addition in ((" import (", "difference_of_arctangents"), ("RULES: tuple[Rule, ...] = (", None)):
        assert registry.count(f"{line}\n") >= 1
        head, _, tail = registry.rpartition(f"{line}\n")
        registry = f"{head}{line}\n    {addition or 'difference_of_arctangents.RULE'},\n{tail}"
    (rules / "__init__.py").write_text(registry)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE_THE_EXAMPLE_RULE], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert Path(run.stdout.strip()).is_relative_to(tmp_path)


def test_numbers_of_the_example_rule() -> None:
    import torch

    a = torch.tensor(1e4)
    assert torch.atan(a + 1) - torch.atan(a) == 0
    assert torch.atan(1 / (a * (a + 1) + 1)).item() == pytest.approx(1e-8, rel=0.02)


# -- the architecture's walk -----------------------------------------------------------------------------------------


def test_the_walk_ends_where_the_text_says() -> None:
    from stabilize.passes.propose import proposals

    before, after = blocks("docs/architecture.md", "text")
    view = parse(before)
    codes: list[str] = []

    def take(proposal: Proposal) -> Value:
        codes.append(proposal.rule.code)
        return proposal.candidates[0]

    replaced = proposals(view, context(view, Options()), take)
    assert codes == ["STB102"]
    assert list(replaced) == list(view.outputs)
    assert show(list(replaced.values())).strip() == after.strip()


def test_the_walk_reads_values_as_the_text_says() -> None:
    view = parse(blocks("docs/architecture.md", "text")[0])
    ctx = context(view, Options())
    x, e, p = (view.bindings[name] for name in ("x", "e", "p"))
    total = p.operands[1]
    assert ctx.engine.scaled(x).trivial
    for value, coefficients in ((e, {"input": 2}), (total, {"logsumexp": 1}), (p, {"input": 2, "logsumexp": -1})):
        reading = ctx.engine.scaled(value)
        assert reading.number == 1
        assert {atom.op: k for atom, k in reading.exponent.terms} == coefficients
        assert reading.exponent.constant == 0
    assert [ctx.broken(v) for v in (e, total, p, view.outputs[0])] == [False, False, True, True]


# -- make -----------------------------------------------------------------------------------------------------------


def make_commands() -> list[str]:
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / ".ci/run").read_text()
    return sorted(set(re.findall(r"\bmake (\w+)", text)))


def test_documents_name_demo_and_test() -> None:
    assert {"demo", "test"} <= set(make_commands())


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", make_commands())
def test_make_targets_exist(target: str) -> None:
    run = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


# -- README ---------------------------------------------------------------------------------------------------------


def test_readme_quotes_a_run_of_the_demo() -> None:
    """Defects, places and formulas are those of a run now; errors in ulps may differ from machine to machine."""
    section = re.search(r"<!-- demo: (.*?) -->\n(.*?)<!-- /demo -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert section is not None
    run = subprocess.run([sys.executable, *section[1].split()], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    quoted, now = (
        [[cell.strip() for cell in line.split(" | ")][:3] for line in text.splitlines() if line.startswith("| STB")]
        for text in (section[2], run.stdout)
    )
    assert quoted == now
    assert len(now) >= 8


def test_readme_python_runs(tmp_path: Path) -> None:
    """The Python of the README, in order, as one program; it needs the model that the text speaks of."""
    setup = textwrap.dedent("""
        import torch

        class Model(torch.nn.Module):
            def forward(self, x):
                e = torch.exp(x)
                return e / e.sum(-1, keepdim=True)

        model, example_inputs = Model(), (torch.randn(4, 10),)
    """)
    source = setup + "\n".join(blocks("README.md", "python"))
    run = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_readme_commands_run(tmp_path: Path) -> None:
    """The `stabilize` command lines of the README, on files of the names they use."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    commands = [
        line.removeprefix("stabilize ").split("#")[0].split()
        for block in blocks("README.md", "sh")
        for line in block.splitlines()
        if line.startswith("stabilize ")
    ]
    assert {command[0] for command in commands} == {"lint", "explain", "optimize", "certify", "convert", "export"}
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["total"], keepdims=1),
        helper.make_node("Log", ["total"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    (tmp_path / "exported").mkdir()
    for name in ("model.onnx", "exported/model.onnx"):
        onnx.save(model, tmp_path / name)
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 5), np.float32))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "module.py").write_text(
        "import torch\n\n"
        "class Head(torch.nn.Module):\n    def forward(self, x):\n        return torch.log(torch.exp(x).sum(-1))\n\n"
        "def factory():\n    return Head(), (torch.randn(3, 5),)\n"
    )
    for command in commands:
        run = subprocess.run(
            [sys.executable, "-m", "stabilize", *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert (run.returncode, run.stderr) == (int(command == ["lint", "model.onnx"]), ""), (command, run.stdout)
