"""Config files of the tests."""

from pathlib import Path

import pytest

from clipgan.config import load_config
from clipgan.errors import UserError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The line with which a file is refused, checked to be a short printable one that names it."""
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    line = str(caught.value)
    assert line.startswith(("--set", str(path))) and len(line) <= 480 and line.isprintable()
    return line
