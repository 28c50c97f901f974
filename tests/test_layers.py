"""Imports point one way, and the method knows nothing of files, configs and processors."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "code" / "clipgan"
SCRIPTS = sorted([*ROOT.glob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "bench").glob("*.py")])

# What each part may import besides itself. `machine.door` is open to all.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "losses": set(),
    "networks": {"errors", "files"},
    "config": {"errors", "files"},
    "machine": {"errors", "files"},
    "runs": {"errors", "files", "networks", "config", "machine"},
    "data": {"errors", "files", "config", "machine"},
    "visualize": {"data"},
    "flags": {"errors", "files", "config", "machine", "runs"},
    "training": {"errors", "files", "losses", "networks", "config", "machine", "runs", "data"},
    "evaluation": {
        "errors", "files", "losses", "networks", "config", "machine", "runs", "data", "visualize", "flags", "training",
    },
    "drawing": {
        "errors", "files", "networks", "config", "machine", "runs", "data", "visualize", "flags", "evaluation",
    },
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.removeprefix("clipgan.") for name in names if name.startswith("clipgan.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    names = {name for name in imported(path) if not name.startswith("machine.door")}
    assert {name.split(".")[0] for name in names} <= ALLOWED[part] | {part}


@pytest.mark.parametrize("part", ["losses", "networks"])
def test_the_method_reaches_neither_config_nor_runs_nor_machine(part):
    modules = [f"clipgan.{part}.{path.stem}" for path in (PACKAGE / part).glob("*.py") if path.stem != "__init__"]
    program = f"import sys, {', '.join(modules)}; print(*(n for n in sys.modules if n.startswith('clipgan')))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    reached = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).split()
    assert f"clipgan.{part}" in reached
    others = {"clipgan", "clipgan.errors", "clipgan.machine", "clipgan.machine.door"}
    reached = {name for name in reached if not name.startswith((f"clipgan.{part}", "clipgan.files"))}
    assert reached <= others


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_scripts_import_from_the_package_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clipgan"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):  # a module of a package
                    importlib.import_module(f"{node.module}.{alias.name}")
