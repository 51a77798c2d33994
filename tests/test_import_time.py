"""What `import stabilize` costs: counted in modules, since seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = """
import json, sys
before = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

HEAVY = ("torch", "numpy", "sympy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "tvm", "flint", "click", "rich")


def loaded_by(statement: str) -> set[str]:
    """Modules that `statement` adds in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)], capture_output=True, text=True, check=True
    )
    return set(json.loads(run.stdout))


def top_level(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def test_import_stabilize_loads_only_itself() -> None:
    modules = loaded_by("import stabilize")
    own = {name for name in modules if name.split(".")[0] == "stabilize"}
    assert own == {"stabilize"}
    # `importlib` and `typing` with what they stand on; an editable install may add its finder.
    assert not top_level(modules) & set(HEAVY)
    assert len(modules - own) < 40, sorted(modules)


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import stabilize; stabilize.Report; stabilize.StabilizeError", HEAVY),
        ("import stabilize.cli", tuple(set(HEAVY) - {"click"})),
        (
            "import stabilize; stabilize.optimize",
            ("onnx", "onnx_ir", "onnxruntime", "onnxscript", "tvm", "rich", "click"),
        ),
    ],
)
def test_names_are_loaded_on_first_use(statement: str, forbidden: tuple[str, ...]) -> None:
    assert not top_level(loaded_by(statement)) & set(forbidden)


def test_facade_is_complete() -> None:
    import stabilize

    for name in stabilize.__all__:
        assert getattr(stabilize, name) is not None
        assert name in dir(stabilize)
    with pytest.raises(AttributeError, match="has no attribute 'linter_of'"):
        _ = stabilize.linter_of
