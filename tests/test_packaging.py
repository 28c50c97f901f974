"""What ``pip install .`` takes along: every package, every file that the code reads, the nine requirements."""

from __future__ import annotations

import re
from pathlib import Path

import clipgan

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "code" / "clipgan"


def files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for path in files() if path.suffix == ".py"}
    assert len(folders) > 8 and all((folder / "__init__.py").is_file() for folder in folders)


def test_every_other_file_is_named_as_the_packages_data():
    (named,) = re.findall(r"^package-data = \{clipgan = \[(.*)\]\}$", (ROOT / "pyproject.toml").read_text(), re.M)
    patterns = [pattern.strip().strip('"') for pattern in named.split(",")]
    others = {path for path in files() if path.suffix != ".py"}
    assert others and others == {path for pattern in patterns for path in PACKAGE.glob(pattern)}


def test_version_and_requirements_are_told_once():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'version = {attr = "clipgan.__version__"}' in text and re.fullmatch(r"\d+\.\d+\.\d+", clipgan.__version__)
    assert 'dependencies = {file = ["requirements.txt"]}' in text
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith(("#", "-"))]) == 9
