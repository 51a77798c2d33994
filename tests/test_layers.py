"""The import layers: a lower layer never imports a higher one, and nothing of one layer imports its neighbour.

Every import statement counts, wherever it stands: at the top, in a function, under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Layer → the layers it may import, besides itself. A layer is a package or a module of `stabilize`.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "formats": {"errors"},
    "collector": set(),
    "files": set(),
    "quiet": set(),
    "graph": {"errors", "formats"},
    "records": set(),
    "output": {"records", "passes", "stabilize"},
    "report": {"records", "output"},
    "frontends": {"errors", "files", "formats", "graph", "quiet"},
    "passes": {"errors", "formats", "graph"},
    "verify": {"errors", "formats", "graph"},
    "codegen": {"errors", "formats", "graph"},
    "scribe": {"formats", "graph", "records", "passes"},
    "respell": {"errors", "graph", "records", "report", "frontends", "passes", "verify", "scribe"},
    "pipeline": {"errors", "formats", "graph", "report", "frontends", "passes", "verify", "scribe", "respell"},
    "linter": {
        "errors",
        "files",
        "formats",
        "graph",
        "records",
        "report",
        "frontends",
        "passes",
        "verify",
        "scribe",
        "pipeline",
    },
    "certification": {"errors", "formats", "graph", "frontends", "verify"},
    "request": {"errors", "frontends", "passes", "pipeline"},
    "conversion": {
        "api",
        "collector",
        "errors",
        "formats",
        "graph",
        "quiet",
        "records",
        "report",
        "frontends",
        "passes",
        "pipeline",
        "certification",
        "request",
        "linter",
    },
    "dynamo": {"errors", "report", "frontends", "pipeline", "request"},
    "api": {
        "errors",
        "collector",
        "formats",
        "graph",
        "report",
        "frontends",
        "passes",
        "verify",
        "codegen",
        "respell",
        "pipeline",
        "certification",
        "request",
        "dynamo",
        "linter",
    },
    "export": {
        "errors",
        "collector",
        "files",
        "quiet",
        "graph",
        "report",
        "request",
        "frontends",
        "verify",
        "pipeline",
        "certification",
        "api",
    },
    "onnx": {"errors", "files", "report", "request", "frontends", "api"},
    "cli": {
        "errors",
        "files",
        "quiet",
        "records",
        "output",
        "report",
        "passes",
        "frontends",
        "api",
        "onnx",
        "stabilize",
    },
    "__main__": {"cli"},
    # The façade names the public API for type checkers; at run time it imports on first use.
    "stabilize": {"api", "conversion", "errors", "export", "records", "report"},
}


def sources() -> list[Path]:
    """Every Python file that ends up in the wheel."""
    found = [p for folder in ("stabilize", "passes", "codegen") for p in (ROOT / folder).rglob("*.py")]
    links = (ROOT / "stabilize" / "passes", ROOT / "stabilize" / "codegen")
    return sorted(p for p in found if not any(p.is_relative_to(link) for link in links))


def module_name(path: Path) -> str:
    """The dotted name under which `path` is imported."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] != "stabilize":
        parts.insert(0, "stabilize")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    """`stabilize.graph.ops` → `graph`; the façade itself is `stabilize`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "stabilize"


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of this project that a file imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.split(".")[0] == "stabilize")
            case ast.ImportFrom(level=0, module="stabilize", names=names):
                for n in names:
                    yield f"stabilize.{n.name}" if n.name in ALLOWED else "stabilize"
            case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] == "stabilize":
                yield module
            case _:
                pass


def violations(module: str, source: str) -> list[str]:
    own = layer(module)
    return [
        f"{module} imports {target}"
        for target in imported(ast.parse(source))
        if layer(target) != own and layer(target) not in ALLOWED[own]
    ]


def test_every_module_has_a_layer() -> None:
    layers = {layer(module_name(path)) for path in sources()}
    assert layers <= ALLOWED.keys(), f"say in ALLOWED what these may import: {sorted(layers - ALLOWED.keys())}"
    assert {"graph", "frontends", "passes", "verify", "cli"} <= layers


def test_the_order_of_layers_has_no_cycle() -> None:
    remaining = {name: targets & ALLOWED.keys() for name, targets in ALLOWED.items()}
    remaining["stabilize"] = set()  # what it names is imported lazily, and the CLI reads its version
    while remaining:
        free = [name for name, targets in remaining.items() if not targets & remaining.keys()]
        assert free, f"these layers import each other: {sorted(remaining)}"
        for name in free:
            del remaining[name]


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_go_down(path: Path) -> None:
    assert violations(module_name(path), path.read_text()) == []


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_are_absolute(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert (node.module or "").split(".")[0] not in ("passes", "codegen"), f"line {node.lineno}"


@pytest.mark.parametrize(
    "source",
    [
        "import stabilize.api",
        "from stabilize.passes.scaled import read",
        "from stabilize import report",
        "def f():\n    from stabilize.frontends.fx import open_module",
        "if TYPE_CHECKING:\n    from stabilize.verify import oracle",
    ],
)
def test_an_upward_import_is_seen(source: str) -> None:
    assert violations("stabilize.graph.ops", source)


def test_importing_the_facade_from_below_is_seen() -> None:
    assert violations("stabilize.passes.scaled", "import stabilize")
    assert violations("stabilize.passes.scaled", "from stabilize import optimize")
