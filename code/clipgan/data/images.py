"""From an image file to tensors: box crop, upright, crop, flip, pyramid. Defines the range [−1, 1] of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clipgan.data.image_file import MOST_PIXELS, TURNS, read_image
from clipgan.errors import UserError
from clipgan.files.gate import reading

LONGEST_TO_SHORTEST = 50  # of an image's sides: what is longer has no square that shows it


def load_image(path: str | Path, box: Sequence[float] | None = None) -> Image.Image:
    """Read an image file as RGB, cut to the box and upright.

    A box refers to the pixels as stored. A photo that only its EXIF tag makes upright is turned after it is cut.

    Args:
        path: a file of one of ``image_file.FORMATS``.
        box: see :func:`crop_to_box`; None keeps the whole image.

    Raises:
        UserError: the file is missing or is not a readable image, or the box lies outside it; the message names it.
    """
    image, orientation = read_image(path)
    if box is not None:
        with reading(path, "an image that its box fits"):
            image = crop_to_box(image, box)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


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
    return from_uint8(to_pixels(image))


def to_pixels(image: Image.Image | np.ndarray) -> Tensor:
    """A copy of an RGB image, or of its bytes [H, W, 3], as uint8 [3, H, W]; the memory order stays [H, W, 3]."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def from_uint8(images: Tensor) -> Tensor:
    """Bytes of any shape as contiguous float32 in [−1, 1], bit for bit the same on every device."""
    # Divide by a tensor: CUDA turns division by a Python number into multiplication, which rounds differently.
    half = torch.full((), 127.5, device=images.device)
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(half).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images [..., 3, H, W] in [−1, 1] as uint8 0–255, rounded and clamped; undoes ``to_tensor``."""
    return images.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def pyramid(pixels: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The square image of ``to_pixels`` at several sizes, smallest first: tensors [3, s, s] in [−1, 1]."""
    return [from_uint8(of_size) for of_size in pixel_pyramid(pixels, sizes)]


def pixel_pyramid(pixels: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """As :func:`pyramid`, but uint8 [3, s, s], channels-last in memory; the full size is not copied.

    Bytes take a quarter of the memory of floats. PyTorch shrinks channels-last bytes four times as fast as Pillow
    (`_resize`). On a processor with AVX2, halves and quarters equal Pillow's; other values may differ by one level.
    """
    return [pixels if size == pixels.shape[1] else _shrink(pixels, size) for size in sorted(sizes)]


def _shrink(pixels: Tensor, size: int) -> Tensor:
    batch = pixels.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2)  # strides that PyTorch takes as channels-last
    return F.interpolate(batch, (size, size), mode="bilinear", antialias=True)[0]


def prepare_image(
    image: Image.Image,
    box: Sequence[float] | None,
    sizes: Sequence[int],
    *,
    crop_scale: float = 76 / 64,
    rng: np.random.Generator | None = None,
    flip: bool = False,
) -> list[Tensor]:
    """:func:`shrink_to_crop`, :func:`crop_and_flip` and :func:`pyramid`, S being the largest size.

    Args:
        image: RGB.
        box: x, y, width, height in pixels, or None for the whole image.
        sizes: sides of the images to make.
        crop_scale: at least 1; 1 leaves nothing to crop from a square image.
        rng: in training, places the crop and decides the flip; None (evaluation) gives a centre crop and no flip.
        flip: mirror with probability ½ (needs ``rng``).

    Returns:
        Tensors [3, s, s] in [−1, 1], smallest first.

    Raises:
        UserError: the box lies outside the image.
    """
    size = max(sizes)
    shrunk = np.asarray(shrink_to_crop(image, box, size, crop_scale))
    return pyramid(crop_and_flip(shrunk, size, rng, flip), sizes)


def shrink_to_crop(image: Image.Image, box: Sequence[float] | None, size: int, crop_scale: float) -> Image.Image:
    """The steps before the random crop: box crop → shorter side to ``crop_scale`` · ``size``, at least ``size``.

    Args:
        image: RGB.
        box: x, y, width, height in pixels, or None for the whole image.
        size: side of the crop that is to follow.
        crop_scale: at least 1; 1 leaves nothing to crop from a square image.

    Returns:
        RGB, no side below ``size``. It is square only if the image, or the box's square clipped to it, is square.

    Raises:
        UserError: the box lies outside the image, or what is to be resized is far too long for its width.
    """
    if box is not None:
        image = crop_to_box(image, box)
    shorter = max(size, round(size * crop_scale))
    factor = shorter / min(image.size)
    resized = max(size, round(image.width * factor)), max(size, round(image.height * factor))
    if max(image.size) > LONGEST_TO_SHORTEST * min(image.size) or resized[0] * resized[1] > MOST_PIXELS:
        raise UserError(
            f"is {image.width} x {image.height} pixels (cut to its box, if it has one), which would become "
            f"{resized[0]} x {resized[1]}: the longer side may be {LONGEST_TO_SHORTEST} times the shorter, and "
            f"{MOST_PIXELS / 1e6:.0f} million pixels are the most; crop it, or leave it out"
        )
    return _resize(image, resized)


def load_shrunk(path: str | Path, box: Sequence[float] | None, size: int, crop_scale: float) -> Image.Image:
    """:func:`shrink_to_crop` of an image file.

    Raises:
        UserError: as :func:`load_image` and :func:`shrink_to_crop`; the message names the file.
    """
    image = load_image(path, box)
    with reading(path, "an image that can be resized"):
        return shrink_to_crop(image, None, size, crop_scale)


def crop_and_flip(image: np.ndarray, size: int, rng: np.random.Generator | None, flip: bool) -> Tensor:
    """The random steps: crop a square of ``size``, then mirror it or not.

    Args:
        image: uint8 [H, W, 3], no side below ``size``.
        size: side of the crop.
        rng: in training, places the crop and decides the flip; None (evaluation) gives a centre crop and no flip.
        flip: mirror with probability ½ (needs ``rng``).

    Returns:
        A copy, uint8 [3, size, size], in the memory order [size, size, 3].
    """
    spare_y, spare_x = image.shape[0] - size, image.shape[1] - size
    if rng is None:
        left, upper = spare_x // 2, spare_y // 2
    else:
        left, upper = int(rng.integers(spare_x + 1)), int(rng.integers(spare_y + 1))
    pixels = to_pixels(image[upper : upper + size, left : left + size])
    return pixels.flip(2) if flip and rng is not None and rng.random() < 0.5 else pixels


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bilinear, with antialiasing where it shrinks (Pillow widens the filter)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
