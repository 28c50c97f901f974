"""Opens image files that may come from strangers: which formats are read, how large, and how their pixels become RGB.

Pillow decodes; what it would believe of a forged or unusual file is bounded here. Images with a transparent part are
laid over white, 16 bits are scaled to 8, and what has no agreed white is refused by name.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import (  # noqa: F401 (an imported plugin is one that Pillow need not look for among all formats)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from clipgan.errors import UserError, one_line
from clipgan.files.gate import MEGABYTE, reading, refuse_other_files, require_file

READING = 2  # goes up when the same file gives other pixels, so that what was computed from the old ones is not reused
# Not among them: formats that start other programs (EPS starts Ghostscript). JPEG includes MPO, the cameras' variant.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 64_000_000
_MOST_COSTLY_PIXELS = 40_000_000  # of WebP, which takes 16 bytes for each, and of LAB, which takes long
_LONGEST_SIDE = 100_000
_MOST_BYTES = 512 * MEGABYTE
_METADATA = 64 * MEGABYTE  # what may lie before the pixels; WebP is read whole before its pixels are
_JPEG_METADATA = 32 * MEGABYTE  # Pillow looks into it in Python
_GIF_METADATA = 2 * MEGABYTE  # Pillow joins a comment block by block, in quadratic time
_READS = 500_000  # some decoders read byte by byte; a large PNG takes 200 000 reads
_EXIF_PARTS = 64
_SCANNED = 1_000_000_000  # pixels times scans of a progressive JPEG: a scan of few bytes goes over all pixels
_PLAIN_BYTES, _PLAIN_COMMENTS = 8 * MEGABYTE, 100  # of a PPM written as text, which Pillow reads in Python
_BAND = 1 << 20  # pixels that are converted at once
_READABLE = f"a whole image ({', '.join(FORMATS)})"

Image.MAX_IMAGE_PIXELS = None  # Pillow would warn first; read_image refuses less than it would
warnings.filterwarnings("ignore", module=r"PIL\.")  # about broken metadata, which nothing here depends on
logging.getLogger("PIL").setLevel(logging.CRITICAL)

# How the pixels as stored become upright, by the EXIF orientation; and back.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS_BACK = TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
# PNG names its transparent colour in the file's bits; Pillow holds it beside pixels of 8 bits.
_TO_8_BITS = {"1": 255.0, "L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}


def read_image(path: str | Path) -> tuple[Image.Image, int]:
    """The first frame of an image file as RGB, its pixels as stored, and its EXIF orientation.

    Returns:
        The image, and a key of ``TURNS`` that makes it upright, or 1.

    Raises:
        UserError: no such file, no regular file, no readable image of ``FORMATS``, one that is too large, or one
            whose numbers have no agreed white; the message names the file.
    """
    with reading(path, _READABLE):
        try:
            size = require_file(path, _MOST_BYTES)
        except FileNotFoundError:
            raise UserError(f"{path}: no such image") from None
        with _Source(path, size) as file:
            start = file.peek(64)[:64]
            if not start:
                raise UserError(f"{path}: not a readable image (the file is empty)")
            refuse_other_files(path, start)
            small = {b"GIF8": _GIF_METADATA, b"\xff\xd8\xff": _JPEG_METADATA}
            file.allow(next((most for sign, most in small.items() if start.startswith(sign)), _METADATA))
            try:
                return _decode(file)
            except (UserError, MemoryError, RecursionError):
                raise
            except UnidentifiedImageError:
                raise UserError(
                    f"{path}: not a readable image (none of {', '.join(FORMATS)}, or broken at its start)"
                ) from None
            except Exception as error:  # a broken file raises nearly anything, depending on its format
                if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a forged offset
                    raise
                reason = one_line(str(error).strip("'\""), 200) or type(error).__name__
                raise UserError(f"{path}: not a readable image ({reason})") from None


class _Source(io.BufferedReader):
    """A file that may be read so far and so often only, since a forged header makes decoders read on and on."""

    def __init__(self, path: str | Path, size: int):
        super().__init__(io.FileIO(path, "rb"))
        self.size = size
        self._left, self._reads, self._exif = 0, _READS, _EXIF_PARTS

    def allow(self, count: int) -> None:
        """So many bytes may be read from now on."""
        self._left = count

    def read(self, size: int | None = -1) -> bytes:
        self._left -= self.size - self.tell() if size is None or size < 0 else min(size, self.size)
        self._reads -= 1
        if self._left < 0:
            raise UserError("has more data beside its pixels than is read: save it again without metadata")
        if self._reads < 0:
            raise UserError("is stored in too many small pieces: save it again as PNG or JPEG")
        content = super().read(size)
        if content.startswith(b"Exif\0\0"):  # Pillow joins the parts of a JPEG's EXIF in quadratic time
            self._exif -= 1
            if self._exif < 0:
                raise UserError(f"has EXIF data in more than {_EXIF_PARTS} parts: save it again without metadata")
        return content


def _decode(file: _Source) -> tuple[Image.Image, int]:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        most = _MOST_COSTLY_PIXELS if image.format == "WEBP" or image.mode == "LAB" else MOST_PIXELS
        if width * height > most or max(width, height) > _LONGEST_SIDE:
            raise UserError(
                f"has {width} x {height} = {width * height / 1e6:,.0f} million pixels; at most {most / 1e6:.0f} "
                f"million are read, and {_LONGEST_SIDE} in a row: make it smaller first"
            )
        _bound_the_work(file, image)
        if image.tile and image.tile[0][0] == "ppm":
            return _read_ppm(file, image), 1
        rawmode = image.tile[0][3] if image.tile else None
        # A TIFF is turned while it is loaded, and then its tag is gone; a PNG's EXIF may lie behind its pixels.
        orientation = _orientation(image) if image.format == "TIFF" else 1
        file.allow(_METADATA + 9 * width * height)
        image.load()
        if image.format != "TIFF":
            orientation = _orientation(image)
        rgb = _to_rgb(image, rawmode)
    if image.format == "TIFF" and orientation != 1:
        rgb = rgb.transpose(_TURNS_BACK[orientation])
    return rgb, orientation


def _bound_the_work(file: _Source, image: Image.Image) -> None:
    """Refuse the small files that take long: many passes over a large image, and text with many comments."""
    plain = bool(image.tile) and image.tile[0][0] == "ppm_plain"
    if plain and file.size > _PLAIN_BYTES:
        raise UserError(f"is a PPM written as text of over {_PLAIN_BYTES / MEGABYTE:.0f} MB: save it in binary form")
    if plain and _count(file, b"#") > _PLAIN_COMMENTS:
        raise UserError(f"is a PPM with more than {_PLAIN_COMMENTS} comments: save it without them")
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        scans = _count(file, b"\xff\xda")
        if scans * image.width * image.height > _SCANNED:
            raise UserError(f"has {scans} passes over {image.width} x {image.height} pixels: save it again as a JPEG")


def _count(file: _Source, pattern: bytes) -> int:
    """How often a file holds one or two bytes; its position stays."""
    place, count, before = file.tell(), 0, b""
    file.seek(0)
    while block := io.BufferedReader.read(file, MEGABYTE):
        count += (before + block).count(pattern)
        before = block[len(block) + 1 - len(pattern) :]
    file.seek(place)
    return count


def _read_ppm(file: _Source, image: Image.Image) -> Image.Image:
    """The pixels of a binary PPM with an unusual white, which Pillow would read one by one in Python."""
    _, _, offset, (mode, white) = image.tile[0]
    shape = (image.height, image.width, 3) if mode == "RGB" else (image.height, image.width)
    kind = np.dtype(np.uint8 if white < 256 else ">u2")
    size = math.prod(shape) * kind.itemsize
    file.allow(size)
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise UserError("not a readable image (image file is truncated)")
    levels = np.rint(np.arange(65536) / white * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels[np.frombuffer(content, kind).reshape(shape)]).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """A key of ``TURNS``, or 1 if there is no orientation, or EXIF that cannot be read."""
    try:
        orientation = image.getexif().get(0x0112)
        return int(orientation) if orientation in TURNS else 1
    except Exception:  # broken metadata is no reason to refuse the picture
        return 1


def _to_rgb(image: Image.Image, rawmode: object) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return _by_bands(image, _grey_of_16_bits(image))
    if mode == "I":
        raise UserError(
            "holds whole numbers of 32 bits or with a sign, for which no white is agreed: save it with 8 or 16 bits"
        )
    if mode == "F":
        return _by_bands(image, _grey_of_floats(_is_negative(image)))
    if not image.has_transparency_data:
        return image if mode == "RGB" else image.convert("RGB")
    scale = _TO_8_BITS.get(rawmode if isinstance(rawmode, str) else "")
    clear = image.info.get("transparency")
    if scale is not None and isinstance(clear, int | tuple):
        values = tuple(int(value * scale) for value in np.atleast_1d(clear))
        image.info["transparency"] = values if isinstance(clear, tuple) else values[0]
    return _by_bands(image, _over_white)


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert to RGB some rows at a time, since converting takes several times their memory."""
    rgb = Image.new("RGB", image.size)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        rgb.paste(convert(band), (0, top))
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # only this step has a conversion in Pillow
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, (0, 0), image)
    return white


def _is_negative(image: Image.Image) -> bool:
    """Whether 0 is white, which Pillow heeds only in TIFFs of up to 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(262) == 0


def _grey_of_16_bits(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    white = 4095 if image.format == "TIFF" and image.tag_v2.get(258) == (12,) else 65535
    levels = np.clip(np.arange(65536) * (255 / white) + 0.5, 0, 255).astype(np.uint8)
    if _is_negative(image):
        levels = 255 - levels
    clear = image.info.get("transparency")
    if isinstance(clear, int) and 0 <= clear <= 65535:
        levels[clear] = 255

    def convert(band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        return Image.fromarray(levels[values if values.dtype.kind == "u" else values.clip(0, 65535)])

    return convert


def _grey_of_floats(negative: bool) -> Callable[[Image.Image], Image.Image]:
    def convert(band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise UserError("holds numbers that are not finite (NaN or infinity)")
        if values.min() < 0 or values.max() > 1:
            raise UserError(
                f"holds floats from {values.min():g} to {values.max():g}, but they are read from 0 (black) to "
                "1 (white): scale them, or save the image with 8 or 16 bits"
            )
        return Image.fromarray(np.rint((1 - values if negative else values) * 255).astype(np.uint8))

    return convert
