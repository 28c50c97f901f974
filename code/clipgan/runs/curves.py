"""Draws the metrics of a run as curves: a PNG drawn with Pillow, and TensorBoard files if it is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 3, 320, 190, 14
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 22  # room around the plot of a panel
TRAIN, EVAL, INK, FAINT, PAPER = (40, 90, 180), (210, 95, 20), (40, 40, 40), (205, 205, 205), (255, 255, 255)
NOT_DRAWN = ("kind", "step", "epoch", "seconds", "best_split", "best_by", "candidates")


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a ``metrics.jsonl``, without broken ones (a crash can cut off the last line)."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def series(lines: Iterable[dict]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(kind, name) → points (step, value), in the order of first appearance, without infinite values and NaN."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in NOT_DRAWN and number and math.isfinite(value):
                found.setdefault((line["kind"], name), []).append((line["step"], value))
    return found


def draw_curves(metrics: str | Path, path: str | Path) -> bool:
    """Draw one panel for each metric: training in blue, evaluation in orange.

    Returns:
        Whether there was anything to draw.
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
    sheet.save(path)
    return True


def write_tensorboard(metrics: str | Path, folder: str | Path, images: Iterable[Path] = ()) -> bool:
    """Write the metrics, and PNG files as images, for TensorBoard; returns False if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    import numpy as np

    with SummaryWriter(str(folder)) as writer:
        for (kind, name), points in series(read_metrics(metrics)).items():
            for step, value in points:
                writer.add_scalar(f"{kind}/{name}", value, int(step))
        for image in images:
            with Image.open(image) as picture:
                writer.add_image(image.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
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
