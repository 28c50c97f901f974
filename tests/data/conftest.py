"""What the tests of this folder share: a small drawn data set, and how tiny sources are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clipgan.data.toy import draw_toy_dataset


@pytest.fixture(scope="session")
def toy_birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 12 test images of 32 px in the birds layout; to be read, not changed."""
    folder = tmp_path_factory.mktemp("drawn") / "birds"
    draw_toy_dataset(folder, "birds", train=40, test=12, size=32, seed=1)
    return folder


@pytest.fixture(scope="session")
def draw() -> Callable[[Path], Path]:
    """Writes a tiny picture, whose colour comes from its name, and the folders above it."""

    def draw(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(hashlib.sha256(path.name.encode("utf-8", "replace")).digest()[:3])
        form = {".png": "PNG", ".gif": "GIF"}.get(path.suffix.lower(), "JPEG")
        Image.new("RGB", (12, 10), colour).save(path, form)
        return path

    return draw


@pytest.fixture(scope="session")
def write() -> Callable[[Path, str], Path]:
    """Writes a text file, and the folders above it."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
