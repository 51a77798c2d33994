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
from stabilize.passes import cancellation
from stabilize.passes.catalogue import CATALOGUE
codes = sorted(rule.code for rule in (*CATALOGUE, *cancellation.BEFORE_FAMILY, *cancellation.RULES))
print(json.dumps({
    "codes": codes,
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "models": [[e.name, e.package, list(e.defects), e.refused, e.onnx, callable(e.make)] for e in MODELS],
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
    assert sum(onnx for *_, onnx, _ in models) >= 10
    assert all(makes for *_, makes in models)


def test_listing_it_needs_none_of_its_packages(registry: dict[str, Any]) -> None:
    packages = {package.replace("-", "_") for _, package, *_ in registry["models"]}
    assert packages & set(registry["loaded"]) == set()


def test_its_packages_are_pinned(registry: dict[str, Any]) -> None:
    lines = (BENCHMARKS / "zoo-requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].replace("_", "-").lower() for line in lines if re.match(r"[\w-]+==[\w.]+$", line)}
    used = {package.replace("_", "-").lower() for _, package, *_ in registry["models"]}
    assert used - pinned == set()


def test_its_defects_are_of_known_rules(registry: dict[str, Any]) -> None:
    for name, _, defects, refused, *_ in registry["models"]:
        assert set(defects) <= set(registry["codes"]), name
        assert not (defects and refused), name
    assert sum(bool(defects) for _, _, defects, *_ in registry["models"]) >= 10


def _record(name: str, **changes: Any) -> dict[str, Any]:
    record = {"name": name, "package": "p", "onnx": False, "seconds": 3.0, "nodes": 7, "export_seconds": 2.0,
              "optimize_seconds": 0.5, "found": [], "errors": [], "fixed": [], "declined": [], "text": "",
              "identical": True, "unchanged": True, "unexpected": [], "missing": []}  # fmt: skip
    return {**record, **changes}


def test_the_tables(tmp_path: Path) -> None:
    broken = _record("naive", found=["STB101", "STB101"], fixed=["STB101", "STB101"], identical=False, unchanged=False,
                     error=[1e-3, 1e-7], hazard=[12, 0])  # fmt: skip
    refused = {"name": "own", "package": "q", "onnx": False, "seconds": 1.0, "refused": "X has the autograd function F"}
    failed = {"name": "slow", "package": "q", "onnx": False, "seconds": 9.0, "failed": "no answer after 9 s"}
    document = {"schema_version": 1, "versions": {}, "models": [_record("sound"), broken, refused, failed]}
    path = tmp_path / "zoo.json"
    path.write_text(json.dumps(document))
    text = run(str(BENCHMARKS / "zoo.py"), "--from", str(path))
    assert "| sound | 7 | 2.0 | 0.25 |  |  |  | yes |  |  |" in text
    assert "| naive | 7 | 2.0 | 0.25 | 2 × STB101 | 2 × STB101 |  |  | 1.0e-03 → 1.0e-07 | 12 → 0 |" in text
    assert "2 models of 1 packages in PyTorch" in text
    assert "2 defects found, 2 fixed, 0 declined" in text
    assert "Nothing rewritten: 1, of which 1 give bit for bit" in text
    assert "1 models, 12 elements of values and gradients not finite; afterwards 0" in text
    assert "Refused, as expected: 1 (custom gradients)" in text
    assert "Failed: slow: no answer after 9 s" in text
    brief = run(str(BENCHMARKS / "zoo.py"), "--from", str(path), "--brief")
    assert "| naive |" in brief
    assert "| sound |" not in brief
