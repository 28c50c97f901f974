"""The JSON that a score leaves behind."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan.files.writing import write_text


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one; its folder is made.

    Raises:
        UserError: it cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """The versions that a score depends on."""
    import open_clip
    import PIL
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "open_clip": open_clip.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }
