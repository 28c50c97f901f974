"""Writes drawings as files: pictures, a grid, attention sheets, a strip and a GIF."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from clipgan.data.images import to_tensor
from clipgan.drawing.drawing import Drawing
from clipgan.errors import UserError
from clipgan.files.writing import writing
from clipgan.visualize import save_attention_sheet, save_grid

_LONGEST_NAME = 60  # characters of a caption in a file's name
_STEP, _PAUSE = 120, 700  # milliseconds that a GIF shows a picture, and those at its two ends
SHOWN_SIDE = 128  # pixels; smaller pictures are enlarged in a strip and a GIF, by a whole number
GRID_ROWS, SHOWN = 32, 16  # captions of a grid; pictures of each in grids and attention sheets
MARGIN = 4  # pixels between the pictures of a strip


def name_of(*captions: str) -> str:
    """A caption (or several) as the beginning of file names: lower case, words joined by ``_``.

    Captions that lose letters on the way, or are cut, get a few digits of their hash, so that no two share a name.
    """
    text = " to ".join(captions)
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    short = plain[:_LONGEST_NAME].rstrip("_")
    if short.replace("_", " ") == text:
        return short
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{short}_{digits}".strip("_")


def write_drawings(folder: Path, drawings: Iterable[Drawing], *, all_scales: bool = False) -> list[Path]:
    """Write each picture as ``<caption>_s<seed>_<number>.png``; for each caption ``…_attention.png``, and a grid.

    The pictures are written caption by caption, as they come, so that thousands of sentences take no more memory than
    a few. There is a grid for every ``GRID_ROWS`` captions. Grids and attention sheets show the first ``SHOWN``
    pictures of a caption.

    Args:
        folder: made if it is missing; files of other names stay.
        drawings: of one model and one seed, those of a caption one after the other.
        all_scales: also write the smaller sizes, as ``…_<size>px.png``.

    Returns:
        The files, the last grid last.

    Raises:
        UserError: the folder cannot be written.
    """
    written: list[Path] = []
    rows: list[list[Drawing]] = []  # of the grid to come

    def write_grid() -> None:
        captions = [row[0].caption for row in rows]
        written.append(folder / f"{name_of(*captions)}_s{rows[0][0].seed}_grid.png")
        _grid(written[-1], captions, rows)
        rows.clear()

    for caption, group in itertools.groupby(drawings, key=lambda drawing: drawing.caption):
        shown: list[Drawing] = []
        for drawing in group:
            name = f"{name_of(caption)}_s{drawing.seed}"
            with making(folder):
                written.append(_save(drawing.image, folder / f"{name}_{drawing.number}.png"))
                for image in drawing.images[:-1] if all_scales else ():
                    written.append(_save(image, folder / f"{name}_{drawing.number}_{image.width}px.png"))
            if len(shown) < SHOWN:
                shown.append(drawing)
        with making(folder):
            if shown[0].attention:
                written.append(folder / f"{name}_attention.png")
                _attention_sheet(written[-1], shown)
            rows.append(shown)
            if len(rows) == GRID_ROWS:
                write_grid()
    if rows:
        with making(folder):
            write_grid()
    return written


def _save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def _attention_sheet(path: Path, drawings: Sequence[Drawing]) -> None:
    """A row for each picture: at which places each word attends, in the finest memory."""
    images = torch.stack([to_tensor(drawing.image) for drawing in drawings])
    attention = torch.stack([torch.from_numpy(drawing.attention[-1]) for drawing in drawings])
    save_attention_sheet(path, images, [drawing.words for drawing in drawings], attention)


def _grid(path: Path, captions: Sequence[str], rows: Sequence[Sequence[Drawing]]) -> None:
    """A row for each caption, a column for each of its pictures."""
    columns = []
    for place in range(len(rows[0])):
        number = rows[0][place].number
        title = f"{place + 1}" if rows[0][place].score is None else f"{place + 1} (number {number})"
        columns.append((title, torch.stack([to_tensor(row[place].image) for row in rows])))
    save_grid(path, columns, captions)


def write_interpolation(folder: Path, pictures: Sequence[Image.Image], a: str, b: str, seed: int) -> list[Path]:
    """Write the pictures between two captions as a strip and as a GIF that goes there and back; small ones enlarged.

    Raises:
        UserError: the folder cannot be written.
    """
    name = f"{name_of(a, b)}_s{seed}"
    side = pictures[0].width * max(1, SHOWN_SIDE // pictures[0].width)
    pictures = [picture.resize((side, side), Image.Resampling.NEAREST) for picture in pictures]
    strip = Image.new("RGB", (len(pictures) * (side + MARGIN) - MARGIN, side), "white")
    for place, picture in enumerate(pictures):
        strip.paste(picture, (place * (side + MARGIN), 0))
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    durations = [_STEP] * len(there_and_back)
    durations[0] = durations[len(pictures) - 1] = _PAUSE
    paths = [folder / f"{name}_strip.png", folder / f"{name}.gif"]
    with making(folder):
        strip.save(paths[0])
        options = {"save_all": True, "append_images": there_and_back[1:], "duration": durations, "loop": 0}
        there_and_back[0].save(paths[1], **options)
    return paths


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """For a block that writes into a folder, which is made; what the disk refuses becomes a ``UserError``."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder to draw into (--out)")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield
