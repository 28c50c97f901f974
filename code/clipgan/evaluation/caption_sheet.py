"""Generates images of the user's own captions at all sizes, and sheets that show where each word attends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.evaluation.sampling import generate, require_finite_images
from clipgan.files.writing import writing
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator
from clipgan.visualize import save_attention_sheet, save_grid, to_image

_DRAWN = re.compile(r"[0-9]+_[0-9]+\.png|grid(_[0-9]+)?\.png|attention_[0-9]+(_[0-9]+)?\.png")


def has_words(encoder: ClipEncoder, caption: str) -> bool:
    """Whether CLIP's tokenizer finds anything in a caption."""
    try:
        encoder.tokenize([caption])
    except UserError:
        return False
    return True


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

    The pictures that an earlier call drew into the folder are removed first, and nothing else.

    Args:
        generator: in evaluation mode, on ``device``.
        encoder: frozen, on ``device``.
        captions: one image each is generated, whose number is the caption's place; empty texts are left out.
        config: sizes, seed and batch size.
        device: where to compute.
        folder: created if missing.

    Raises:
        UserError: the images are not finite, or the folder cannot be written.
    """
    with writing(folder):
        _make_empty(folder)
    size = config.EVAL.BATCH_SIZE
    places = [place for place, caption in enumerate(captions) if caption]
    for start in range(0, len(places), size):
        numbers = places[start : start + size]
        part = [captions[number] for number in numbers]
        out = generate(generator, encoder, part, numbers, config.SEED, device)
        require_finite_images(out.images[-1], config)
        with writing(folder):
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


def _make_empty(folder: Path) -> None:
    """Make the folder, or remove the pictures that :func:`draw_captions` drew into it before."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _DRAWN.fullmatch(path.name) and not path.is_dir():
            path.unlink()
