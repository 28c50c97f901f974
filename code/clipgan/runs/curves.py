"""Reads the metrics of a run, and draws them as curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageDraw, ImageFont

from clipgan.files import shapes
from clipgan.files.gate import MEGABYTE, reading, require_file
from clipgan.files.writing import write_failure

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 3, 320, 190, 14
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 22  # room around the plot of a panel
TRAIN, EVAL, INK, FAINT, PAPER = (40, 90, 180), (210, 95, 20), (40, 40, 40), (205, 205, 205), (255, 255, 255)
NOT_DRAWN = ("kind", "step", "epoch", "seconds", "best_split", "best_by", "candidates")


# A run of a million steps writes about 30 megabytes.
LONGEST_LINE, LARGEST_FILE, MOST_LINES, MOST_CURVES = 64 * 1024, 512 * MEGABYTE, 2_000_000, 200
_NUMBERS = shapes.mapping_of(
    shapes.either(shapes.nothing, shapes.flag, shapes.text(1000), shapes.number(-1e40, 1e40)), at_most=100
)
_LINE = shapes.record({"kind": shapes.one_of("train", "eval"), "step": shapes.whole(0, 10**12)}, others=True)


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a ``metrics.jsonl``: each an object with ``kind``, ``step`` and numbers, as ``Progress`` writes it.

    Broken lines are left out: a crash can cut off the last one.

    Raises:
        UserError: no such file, or none that such a file could be.
    """
    lines = []
    with reading(path, "the metrics of a run, one JSON object a line"):
        require_file(path, LARGEST_FILE)
        for text in _lines(Path(path)):
            try:
                line = json.loads(text.decode("utf-8-sig"), parse_constant=_no_number)
                _LINE(line, "it")
                _NUMBERS(line, "it")
            except (ValueError, RecursionError):
                continue
            lines.append(line)
    return lines


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of at most ``LONGEST_LINE`` bytes; of a longer one, no more than that is in memory at once."""
    with open(path, "rb") as file:
        whole = True
        for _ in range(MOST_LINES):
            piece = file.readline(LONGEST_LINE)
            if not piece:
                return
            ends = piece.endswith(b"\n")
            if whole and (ends or len(piece) < LONGEST_LINE):
                yield piece
            whole = ends


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def series(lines: Iterable[dict]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(kind, name) → points (step, value), in the order of first appearance, without infinite values and NaN."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in NOT_DRAWN and number and math.isfinite(value):
                key = (line["kind"], name)
                if key in found or len(found) < MOST_CURVES:
                    found.setdefault(key, []).append((line["step"], value))
    return found


def draw_curves(metrics: str | Path, path: str | Path) -> bool:
    """Draw one panel for each metric: training in blue, evaluation in orange.

    Returns:
        Whether there was anything to draw.

    Raises:
        UserError: as :func:`read_metrics`, or the picture cannot be written.
    """
    curves = series(read_metrics(metrics))
    if not curves:
        return False
    rows = math.ceil(len(curves) / COLUMNS)
    width = COLUMNS * (PANEL_WIDTH + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, rows * (PANEL_HEIGHT + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    last_step = max(step for points in curves.values() for step, _ in points)
    for number, ((kind, name), points) in enumerate(curves.items()):
        row, column = divmod(number, COLUMNS)
        origin = (MARGIN + column * (PANEL_WIDTH + MARGIN), MARGIN + row * (PANEL_HEIGHT + MARGIN))
        title = f"{name} (evaluation)" if kind == "eval" else name
        _panel(draw, origin, title, points, last_step, EVAL if kind == "eval" else TRAIN)
    try:
        sheet.save(path)
    except OSError as error:
        raise write_failure(error, path) from None
    return True


def _panel(
    draw: ImageDraw.ImageDraw,
    origin: tuple[int, int],
    title: str,
    points: list[tuple[float, float]],
    last_step: float,
    colour: tuple[int, int, int],
) -> None:
    font = ImageFont.load_default(11)
    x0, y0 = origin[0] + LEFT, origin[1] + TOP
    x1, y1 = origin[0] + PANEL_WIDTH - RIGHT, origin[1] + PANEL_HEIGHT - BOTTOM
    low, high = min(value for _, value in points), max(value for _, value in points)
    if low == high:
        low, high = low - 0.5 * abs(low) - 1e-9, high + 0.5 * abs(high) + 1e-9
    draw.text((x0, origin[1] + 6), f"{title}: {points[-1][1]:.4g}", fill=INK, font=font)
    for share in (0.0, 0.5, 1.0):
        y = y1 - share * (y1 - y0)
        draw.line([(x0, y), (x1, y)], fill=FAINT)
        draw.text((x0 - 5, y), f"{low + share * (high - low):.3g}", fill=INK, font=font, anchor="rm")
    draw.text((x0, y1 + 5), "0", fill=INK, font=font)
    draw.text((x1, y1 + 5), f"step {int(last_step)}", fill=INK, font=font, anchor="ra")
    scaled = [
        (x0 + step / max(last_step, 1) * (x1 - x0), y1 - (value - low) / (high - low) * (y1 - y0))
        for step, value in points
    ]
    if len(scaled) > 1:
        draw.line(scaled, fill=colour, width=2)
    if len(scaled) <= 60:
        for x, y in scaled:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
