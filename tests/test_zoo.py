"""The zoo's registry and tables. The models themselves need packages that are not installed here: benchmarks/zoo.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

LIST = """
import json, sys
from zoo_models import MODELS
from stabilize.passes.rules import ALL
codes = sorted(rule.code for rule in ALL)
print(json.dumps({
    "codes": codes,
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "models": [[e.name, e.package, list(e.defects), e.refused, e.onnx, callable(e.make), e.note] for e in MODELS],
}))
"""


def run(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def registry() -> dict[str, Any]:
    return json.loads(run("-c", LIST))


def test_it_is_as_large_as_the_readme_says(registry: dict[str, Any]) -> None:
    models = registry["models"]
    names = [name for name, *_ in models]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) for name in names)
    assert sum(package == "transformers" for _, package, *_ in models) >= 40
    assert sum(package not in ("transformers", "diffusers") for _, package, *_ in models) >= 20
    assert sum(onnx for *_, onnx, _, _ in models) >= 10
    assert all(makes for *_, makes, _ in models)


def test_listing_it_needs_none_of_its_packages(registry: dict[str, Any]) -> None:
    packages = {package.replace("-", "_") for _, package, *_ in registry["models"]}
    assert packages & set(registry["loaded"]) == set()


def test_its_packages_are_pinned(registry: dict[str, Any]) -> None:
    lines = (BENCHMARKS / "zoo-requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].replace("_", "-").lower() for line in lines if re.match(r"[\w-]+==[\w.]+$", line)}
    used = {package.replace("_", "-").lower() for _, package, *_ in registry["models"]}
    assert used - pinned == set()


def test_its_defects_are_of_known_rules(registry: dict[str, Any]) -> None:
    for name, _, defects, *_ in registry["models"]:
        assert set(defects) <= set(registry["codes"]), name
    assert sum(bool(defects) for _, _, defects, *_ in registry["models"]) >= 10


def _record(name: str, **changes: Any) -> dict[str, Any]:
    record = {"name": name, "family": "flows", "package": "p", "onnx": False, "seconds": 3.0, "nodes": 7,
              "export_seconds": 2.0, "optimize_seconds": 0.5, "found": [], "errors": [], "fixed": [], "declined": [],
              "identical": True, "unchanged": True, "unexpected": [], "missing": [], "note": ""}  # fmt: skip
    return {**record, **changes}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """In full and in brief."""
    broken = _record("naive", found=["STB101", "STB101"], fixed=["STB101", "STB101"], identical=False, unchanged=False,
                     error=[1e-3, 1e-7], hazard=[12, 0], undecided=[5, 2], accepted=True, harm=None)  # fmt: skip
    onnx = _record("naive", onnx=True, found=["STB101"], declined=["STB101 div: it is worse"], hazard=[3, 3],
                   undecided=[0, 0], note="said once")  # fmt: skip
    refused = _record("own", package="q", family="graphs", refused="X has the autograd function F", note="odd | so",
                      graphs=3, compile_seconds=1.0, unexpected=["STB210"], found=["STB210"], fixed=["STB210"],
                      accepted=False, harm="worse")  # fmt: skip
    for timing in ("export_seconds", "optimize_seconds"):
        del refused[timing]
    failed = {"name": "slow", "family": "graphs", "package": "q", "onnx": False, "seconds": 9.0, "failed": "no answer"}
    changed = _record("wrong", identical=False)
    records = [_record("sound"), broken, onnx, refused, failed, changed]
    path = tmp_path_factory.mktemp("zoo") / "zoo.json"
    path.write_text(json.dumps({"schema_version": 1, "versions": {"torch": "2"}, "models": records}))
    zoo = str(BENCHMARKS / "zoo.py")
    return run(zoo, "--from", str(path)), run(zoo, "--from", str(path), "--brief")


def test_a_row_for_every_model(tables: tuple[str, str]) -> None:
    full, brief = tables
    assert "| sound | p | 7 | 2.0 | 0.5 |  |  |  | bit for bit |  |  |" in full
    changes = "1.0e-03 → 1.0e-07 | 12 → 0 |"
    assert f"| naive | p | 7 | 2.0 | 0.5 | 2 × STB101 | 2 × STB101 |  | rewritten | {changes}" in full
    assert "| naive (ONNX) | p | 7 | 2.0 | 0.5 | STB101 |  | STB101 | bit for bit |  | 3 → 3 |" in full
    assert "| own (torch.compile) | q | 7 | 1.0 |  | STB210 |" in full
    assert "| wrong | p | 7 | 2.0 | 0.5 |  |  |  | CHANGED |" in full
    assert "| slow | q |  |  |  | failed: no answer |" in full
    assert f"| naive | p | 2 × STB101 | 2 × STB101 |  | {changes}" in brief
    assert "| sound |" not in brief


def test_totals_say_everything_that_is_wrong(tables: tuple[str, str]) -> None:
    for text in tables:
        assert "4 models of 2 packages in PyTorch, 1 of them in ONNX as well" in text
        assert "4 defects found, 3 fixed, 1 declined, 0 only told of" in text
        assert "Nothing rewritten: 3 runs, of which 2 give bit for bit" in text
        assert "2 runs, 15 elements of values and gradients NaN or infinite" in text
        assert "afterwards 3, in 1 of them. (Where float64 is not finite either: 5 → 2.)" in text
        assert "1 of 2 accepted.\n  - own: worse" in text
        assert "torch.export refuses 1 (1 for gradients of their own)" in text
        assert "Found, but not known to be there: own (torch.compile) STB210." in text
        assert "Failed: slow: no answer." in text
        assert "| flows | 3 | 1 | 1 | 3 | 2 | 1 | 2 of 3 |" in text
        assert "| all | 4 | 1 | 2 | 4 | 3 | 1 | 2 of 3 |" in text
        assert "- **own (torch.compile)**: odd \\| so" in text
        assert "- **naive (ONNX)**: declined STB101 div: it is worse." in text


def test_the_documents_show_the_kept_run() -> None:
    kept = str(BENCHMARKS / "zoo.json")
    assert (BENCHMARKS.parent / "docs" / "zoo.md").read_text() == run(str(BENCHMARKS / "zoo.py"), "--from", kept)
    section = re.search(r"<!-- zoo: (.*?) -->\n(.*?)<!-- /zoo -->", (BENCHMARKS.parent / "README.md").read_text(), re.S)
    assert section is not None
    assert section[1] == "benchmarks/zoo.py --from benchmarks/zoo.json --brief"
    assert section[2] == run(str(BENCHMARKS / "zoo.py"), "--from", kept, "--brief")


def test_the_kept_run_is_whole(registry: dict[str, Any]) -> None:
    """Every model, once in each host that its entry names, nothing failed, nothing changed that was not rewritten."""
    records = json.loads((BENCHMARKS / "zoo.json").read_text())["models"]
    expected = [
        (name, kind) for name, *_, onnx, _, _ in registry["models"] for kind in ([False, True] if onnx else [False])
    ]
    assert [(r["name"], r["onnx"]) for r in records] == expected
    assert [r["name"] for r in records if "failed" in r or not (r["identical"] or r["fixed"])] == []
    assert [r["name"] for r in records if r.get("accepted") is False] == []
    lost = {r["name"] for r in records if r.get("hazard", (0, 0))[1]}
    assert lost - {name for name, *_, explained in registry["models"] if explained} == set()
    text = (BENCHMARKS.parent / "docs" / "zoo.md").read_text()
    assert not any(said in text for said in ("not known to be there", "Known, but not found", "CHANGED"))
