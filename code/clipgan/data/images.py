"""From an image file to tensors: box crop, crop, flip, pyramid. The owner of the [−1, 1] range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clipgan.errors import UserError


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB, as stored: boxes count the pixels of the file, so EXIF turns are not applied.

    Raises:
        UserError: the file is missing or no readable image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    # A broken file raises, by format and by place, any of these.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def crop_to_box(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """Cut a square around the middle of a bounding box: half-side ``int(0.75 · max(w, h))``, clipped to the image.

    Args:
        image: any image.
        box: x and y of the upper left corner, width, height, in pixels.

    Raises:
        UserError: the box lies outside the image.
    """
    x, y, width, height = box
    half = int(0.75 * max(width, height))
    middle_x, middle_y = int(x + width / 2), int(y + height / 2)
    left, upper = max(0, middle_x - half), max(0, middle_y - half)
    right, lower = min(image.width, middle_x + half), min(image.height, middle_y + half)
    if left >= right or upper >= lower:
        raise UserError(
            f"the box {list(box)} (x, y, width, height in pixels) holds nothing of the image, "
            f"which is {image.width} x {image.height}"
        )
    return image.crop((left, upper, right, lower))


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as float32 [3, H, W] in [−1, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # [H, W, 3], a copy: an image's own memory is read-only
    return pixels.permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images [..., 3, H, W] in [−1, 1] as uint8 0–255, rounded, what lies outside clamped; undoes ``to_tensor``."""
    return images.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def pyramid(image: Image.Image, sizes: Sequence[int]) -> list[Tensor]:
    """A square RGB image at several sizes, smallest first: tensors [3, s, s] in [−1, 1]."""
    return [to_tensor(_resize(image, (size, size))) for size in sorted(sizes)]


def prepare_image(
    image: Image.Image,
    box: Sequence[float] | None,
    sizes: Sequence[int],
    *,
    crop_scale: float = 76 / 64,
    rng: np.random.Generator | None = None,
    flip: bool = False,
) -> list[Tensor]:
    """Box crop → shorter side to ``crop_scale`` · S → S-sized crop → flip → pyramid, S being the largest size.

    Args:
        image: RGB.
        box: x, y, width, height in pixels, or None for the whole image.
        sizes: sides of the images to make.
        crop_scale: at least 1; 1 leaves nothing to crop from a square image.
        rng: training, it places the crop and decides the flip; None is evaluation: centre crop, no flip.
        flip: mirror with probability ½ (needs ``rng``).

    Returns:
        Tensors [3, s, s] in [−1, 1], smallest first.

    Raises:
        UserError: the box lies outside the image.
    """
    if box is not None:
        image = crop_to_box(image, box)
    size = max(sizes)
    shorter = max(size, round(size * crop_scale))
    factor = shorter / min(image.size)
    image = _resize(image, (max(size, round(image.width * factor)), max(size, round(image.height * factor))))

    spare_x, spare_y = image.width - size, image.height - size
    if rng is None:
        left, upper = spare_x // 2, spare_y // 2
    else:
        left, upper = int(rng.integers(spare_x + 1)), int(rng.integers(spare_y + 1))
    image = image.crop((left, upper, left + size, upper + size))
    if flip and rng is not None and rng.random() < 0.5:
        image = ImageOps.mirror(image)
    return pyramid(image, sizes)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bilinear, with antialiasing where it shrinks (Pillow widens the filter)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
