"""Finds and reads the image files of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from clipgan.data.images import load_image, to_pixels
from clipgan.errors import UserError
from clipgan.evaluation.image_facts import fact_of
from clipgan.evaluation.image_pass import Loaded
from clipgan.evaluation.unfinished import SAMPLES, refuse_unfinished
from clipgan.files.gate import reading

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def list_images(folder: str | Path) -> list[Path]:
    """All image files below ``folder``, sorted; nothing hidden, and each folder once, however many links lead to it.

    Raises:
        UserError: no such folder, one that cannot be read, or the images of a sampling that was cut.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    for parent in folder.resolve().parents:
        if parent.name == SAMPLES:  # the folder is a part of a sampling
            refuse_unfinished(parent)
    found, seen = [], set()
    with reading(folder, "a folder of images"):
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_fail):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                folders[:] = []
                continue
            seen.add((status.st_dev, status.st_ino))
            refuse_unfinished(Path(parent))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)


def _fail(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})")


def require_images(folder: str | Path) -> list[Path]:
    """The image files below a folder that the user named.

    Raises:
        UserError: no such folder, no image in it, or those of a sampling that was cut or still goes on.
    """
    files = list_images(folder)
    if not files:
        raise UserError(f"no images in {folder} or below it: expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def load_file(path: Path) -> Loaded:
    """The pixels of an image file and what is noted of it; raises ``UserError`` for one that cannot be read."""
    image = load_image(path)
    return to_pixels(image), fact_of(image)
