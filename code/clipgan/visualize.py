"""Image grids with captions, and attention sheets, drawn with Pillow."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clipgan.data.images import to_uint8

MARGIN, LINE, FONT_SIZE = 8, 15, 12
INK, FAINT, PAPER = (30, 30, 30), (120, 120, 120), (255, 255, 255)


def to_image(tensor: Tensor) -> Image.Image:
    """One image [3, H, W] in [−1, 1] as a Pillow image."""
    return Image.fromarray(to_uint8(tensor.detach().cpu()).permute(1, 2, 0).numpy())


def save_grid(
    path: str | Path,
    columns: Sequence[tuple[str, Tensor]],
    captions: Sequence[str],
    *,
    cell: int = 128,
) -> None:
    """Rows of images under column titles, the caption of each row at its right.

    Args:
        path: the PNG to write.
        columns: (title, images [N, 3, S, S] in [−1, 1]); S may differ, smaller images are enlarged to ``cell``.
        captions: N texts.
        cell: side of an image in the sheet, in pixels.
    """
    font, text_width = _font(), 260
    width = MARGIN + len(columns) * (cell + MARGIN) + text_width + MARGIN
    height = MARGIN + LINE + len(captions) * (cell + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (title, images) in enumerate(columns):
        x = MARGIN + i * (cell + MARGIN)
        draw.text((x, MARGIN // 2), title, fill=FAINT, font=font)
        for row, image in enumerate(images):
            sheet.paste(fit_to_cell(to_image(image), cell), (x, MARGIN + LINE + row * (cell + MARGIN)))
    for row, caption in enumerate(captions):
        x = MARGIN + len(columns) * (cell + MARGIN)
        y = MARGIN + LINE + row * (cell + MARGIN)
        lines = textwrap.wrap(caption, width=38)[: max(1, cell // LINE)]
        draw.multiline_text((x, y), "\n".join(lines), fill=INK, font=font, spacing=2)
    _write(sheet, path)


def save_attention_sheet(
    path: str | Path,
    images: Tensor,
    words: Sequence[Sequence[str]],
    attention: Tensor,
    *,
    cell: int = 96,
) -> None:
    """One row per image: the image, then for each word the image, bright where the word attends.

    Args:
        path: the PNG to write.
        images: [N, 3, S, S] in [−1, 1].
        words: N lists of words, at most W each.
        attention: [N, W, h, w], non-negative; every word's map is scaled to its own maximum.
        cell: side of an image in the sheet, in pixels.
    """
    font = _font()
    longest = max(len(row) for row in words)
    width = MARGIN + (longest + 1) * (cell + 4) + MARGIN
    height = MARGIN + len(images) * (cell + LINE + MARGIN)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, image in enumerate(images):
        y = MARGIN + row * (cell + LINE + MARGIN)
        picture = fit_to_cell(to_image(image), cell)
        sheet.paste(picture, (MARGIN, y + LINE))
        for column, word in enumerate(words[row]):
            x = MARGIN + (column + 1) * (cell + 4)
            draw.text((x, y), word[:14], fill=INK, font=font)
            sheet.paste(lit(picture, attention[row, column], cell), (x, y + LINE))
    _write(sheet, path)


def lit(picture: Image.Image, heat: Tensor, cell: int) -> Image.Image:
    """The picture, dark where ``heat`` [h, w] is low and red where it is high."""
    heat = heat.detach().float().cpu()[None, None]
    heat = F.interpolate(heat, size=(cell, cell), mode="bilinear", align_corners=False)[0, 0]
    heat = (heat / heat.max().clamp_min(1e-12)).clamp(0, 1).numpy()[..., None]
    pixels = np.asarray(picture, dtype=np.float32)
    glow = np.array([255, 60, 0], dtype=np.float32)
    lit = pixels * (0.25 + 0.5 * heat) + glow * 0.35 * heat**2
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def fit_to_cell(image: Image.Image, cell: int) -> Image.Image:
    if image.size == (cell, cell):
        return image
    whole = cell % image.width == 0 and image.width == image.height
    return image.resize((cell, cell), Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(FONT_SIZE)


def _write(sheet: Image.Image, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def first_of_each_class(class_ids: Sequence[int], count: int) -> list[int]:
    """Indices of ``count`` examples spread over the classes, so that a grid shows variety."""
    seen: set[int] = set()
    first = [i for i, c in enumerate(class_ids) if not (c in seen or seen.add(c))]
    rest = [i for i in range(len(class_ids)) if i not in set(first)]
    chosen = (first + rest)[: max(count, 1)] if len(first) < count else first
    step = torch.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().long().tolist()
    return [chosen[i] for i in step]
