"""The wheel: what it holds, and that it works outside the checkout. `passes/` and `codegen/` live at the top of the
repository and are installed as `stabilize.passes` and `stabilize.codegen`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP_FOLDERS = ("stabilize", "passes", "codegen")


def packages_on_disk() -> set[str]:
    """Folders with an `__init__.py`, under the name they are imported by."""
    found: set[str] = set()
    for top in TOP_FOLDERS:
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if parts[0] == "stabilize" and len(parts) > 1 and parts[1] in TOP_FOLDERS:
                continue  # the links stabilize/passes and stabilize/codegen
            found.add(".".join(parts if parts[0] == "stabilize" else ("stabilize", *parts)))
    return found


def test_declared_packages_are_those_on_disk() -> None:
    declared = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(declared) == declared
    assert set(declared) == packages_on_disk()


def test_every_folder_with_sources_is_a_package() -> None:
    folders = {p.parent for top in TOP_FOLDERS for p in (ROOT / top).rglob("*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_links_resolve_to_the_top_level_folders() -> None:
    for name in ("passes", "codegen"):
        link = ROOT / "stabilize" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"


def test_version_is_said_once() -> None:
    import stabilize

    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", stabilize.__version__)


def test_constraints_pin_every_dependency() -> None:
    pins = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *extras["dev"], *extras["onnx"], *extras["tvm"]]
    names = {re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - {"stabilize"} <= pins
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_optional_dependencies_are_extras() -> None:
    required = " ".join(PYPROJECT["project"]["dependencies"])
    assert "onnx" not in required
    assert "tvm" not in required
    assert {"onnx", "tvm", "all"} <= PYPROJECT["project"]["optional-dependencies"].keys()


# -- building -------------------------------------------------------------------------------------------------------


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a wheel or sdist without a network: with the setuptools of this environment."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed to build, so that no build folder appears in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in TOP_FOLDERS:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", checkout, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=["from the checkout", "from the sdist"])
def wheel(request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = checkout
    if request.param == "from the sdist":
        with tarfile.open(request.getfixturevalue("sdist")) as archive:
            unpacked = tmp_path_factory.mktemp("unpacked")
            archive.extractall(unpacked, filter="data")
        (source,) = unpacked.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_the_sources_and_nothing_else(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        head = archive.read(metadata).decode()
        licences = [n for n in archive.namelist() if n.endswith("LICENSE")]
    expected = {"stabilize/py.typed"}
    for top in TOP_FOLDERS:
        for path in (checkout / top).rglob("*.py"):
            parts = path.relative_to(checkout).parts
            if parts[0] != "stabilize":
                parts = ("stabilize", *parts)
            expected.add("/".join(parts))
    assert files == expected
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Python: >=3.11" in head
    assert len(licences) == 1


PROBE = """
import importlib.util, json, stabilize, stabilize.passes, stabilize.codegen, stabilize.graph.text, stabilize.report
print(json.dumps({
    "file": stabilize.__file__,
    "passes": stabilize.passes.__file__,
    "codegen": stabilize.codegen.__file__,
    "top": [n for n in ("passes", "codegen") if importlib.util.find_spec(n) is not None],
    "version": stabilize.__version__,
}))
"""


def test_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    import stabilize

    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    # Dependencies come from this environment: plain paths of a .pth file are searched after the venv's own packages,
    # and .pth files inside them (an editable install of this project) are not processed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}

    run = subprocess.run(
        [str(python), "-I", "-c", PROBE], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    found = json.loads(run.stdout)
    assert found["top"] == []
    assert found["version"] == stabilize.__version__
    for key in ("file", "passes", "codegen"):
        assert Path(found[key]).is_relative_to(site.resolve()), found[key]

    script = subprocess.run(
        [str(home / "bin" / "stabilize"), "--version"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert script.stdout.strip() == f"stabilize, version {stabilize.__version__}"
