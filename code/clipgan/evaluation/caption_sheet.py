"""Generates images of the user's own captions at all sizes, and sheets that show where each word attends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from clipgan.config import Config
from clipgan.evaluation.sampling import generate
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator
from clipgan.visualize import save_attention_sheet, save_grid, to_image


@torch.no_grad()
@full_precision()
def draw_captions(
    generator: Generator,
    encoder: ClipEncoder,
    captions: Sequence[str],
    config: Config,
    device: torch.device,
    folder: Path,
) -> None:
    """Write ``<i>_<size>.png`` for every caption and size, ``attention_<size>.png`` and ``grid.png``.

    Args:
        generator: in evaluation mode, on ``device``.
        encoder: frozen, on ``device``.
        captions: one image each is generated.
        config: sizes, seed and batch size.
        device: where to compute.
        folder: created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = config.EVAL.BATCH_SIZE
    for start in range(0, len(captions), size):
        part = list(captions[start : start + size])
        numbers = range(start, start + len(part))
        out = generate(generator, encoder, part, list(numbers), config, device)
        for images in out.images:
            for number, image in zip(numbers, images, strict=True):
                to_image(image).save(folder / f"{number}_{image.shape[-1]}.png")
        suffix = f"_{start}" if start else ""
        columns = [(f"{images.shape[-1]} px", images) for images in out.images]
        save_grid(folder / f"grid{suffix}.png", columns, part)
        words = [encoder.tokenize.words_of(row) for row in encoder.tokenize(part)]
        for stage, attention in enumerate(out.attention, start=1):
            images = out.images[stage]
            path = folder / f"attention_{images.shape[-1]}{suffix}.png"
            save_attention_sheet(path, images, words, attention)
