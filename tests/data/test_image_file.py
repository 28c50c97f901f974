"""Image files as they are found: each kind is read rightly, or refused by a line that names the file and the reason."""

import io
import os
import resource
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipgan.data import image_file
from clipgan.data.images import crop_to_box, load_image, load_shrunk, shrink_to_crop
from clipgan.errors import UserError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
NEAR = RAMP.astype(int) * 257 + np.where(RAMP > 128, -100, 100)  # of 16 bits; rounded, it is RAMP
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30))
FORMS = {
    "a.jpg": {}, "progressive.jpg": {"progressive": True}, "a.png": {}, "a.webp": {"lossless": True}, "a.bmp": {},
    "a.gif": {}, "a.tif": {}, "lzw.tif": {"compression": "tiff_lzw"}, "a.ppm": {},
}  # fmt: skip


def write(path, content):
    path.write_bytes(content)
    return path


def encode(image, form, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits, colour, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of raw rows, each after its filter byte."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + content


def tiff(tags: dict[int, tuple[int, int, int]], pixels: bytes) -> bytes:
    """A little-endian TIFF whose pixels follow the tags: tag → type (3: 16 bits), count, value."""
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags = {**tags, 273: (4, 1, offset), 279: (4, 1, len(pixels))}
    entries = b"".join(struct.pack("<HHLL", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels


def grey(image) -> np.ndarray:
    """The values of an image whose three channels are equal."""
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        load_shrunk(path, None, 16, 1.0)
    assert str(path) in str(caught.value) and len(str(caught.value)) <= 480


@pytest.mark.parametrize("name", FORMS)
def test_pixels_are_those_that_pillow_reads(tmp_path, name):
    path = tmp_path / name
    PHOTO.save(path, **FORMS[name])
    with Image.open(path) as theirs:
        assert np.array_equal(np.asarray(load_image(path)), np.asarray(theirs.convert("RGB")))
    assert load_image(path.rename(tmp_path / "UPPER.JPG")).mode == "RGB"  # the content says what it is, not the name


@pytest.mark.parametrize("name", FORMS)
def test_a_file_cut_anywhere_is_refused_or_gives_the_same_pixels(tmp_path, name):
    PHOTO.save(tmp_path / name, **FORMS[name])
    content = (tmp_path / name).read_bytes()
    whole = np.asarray(load_image(tmp_path / name))
    path, refusals = tmp_path / "cut.jpg", 0
    for length in range(0, len(content), 1 + len(content) // 60):
        write(path, content[:length])
        try:
            assert np.array_equal(np.asarray(load_image(path)), whole)
        except UserError as error:
            assert f"{path}: " in str(error)
            refusals += 1
    assert refusals > 40


@pytest.mark.parametrize("name", FORMS)
def test_spoilt_bytes_are_refused_or_read_but_nothing_else(tmp_path, name):
    PHOTO.save(tmp_path / name, **FORMS[name])
    content, rng = (tmp_path / name).read_bytes(), np.random.default_rng(3)
    for _ in range(60):
        spoilt = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 2):
            spoilt[place : place + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f", b"\0\1"][rng.integers(4)]
        path = write(tmp_path / "spoilt", spoilt)
        try:
            load_shrunk(path, None, 16, 1.0)
        except UserError as error:
            assert str(path) in str(error) and str(error).isprintable()


def test_what_is_no_picture_is_refused_and_said_what_it_is(tmp_path):
    refused(write(tmp_path / "empty.png", b""), r"empty\.png: not a readable image \(the file is empty\)")
    refused(write(tmp_path / "text.jpg", b"no image"), r"not a readable image \(none of JPEG, PNG")
    refused(write(tmp_path / "page.jpg", b"<!DOCTYPE html><html>"), r"is a web page")
    refused(write(tmp_path / "lfs.jpg", b"version https://git-lfs.github.com/spec/v1\n"), r"git lfs pull")
    refused(tmp_path, r"is a folder")
    with pytest.raises(UserError, match=r"none \.jpg: embedded null"):
        load_image(tmp_path / "none\0.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", r"is a pipe or a device")
    os.truncate(write(tmp_path / "huge.jpg", b"\xff\xd8\xff"), 600 << 20)
    refused(tmp_path / "huge.jpg", r"has 600 MB; such a file has at most 512 MB")


def test_formats_that_start_other_programs_are_never_opened(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was called"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    refused(write(tmp_path / "trick.png", eps), r"not a readable image")


@pytest.mark.parametrize(("width", "height"), [(20000, 20000), (8001, 8000), (64_000_000, 1), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(tmp_path, width, height):
    path = write(tmp_path / "bomb.png", png(width, height, 1, 0, b"\0" * 100))
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(path, rf"has {width} x {height} = [\d,]+ million pixels")
    assert time.process_time() - began < 5


SMALL = encode(Image.new("RGB", (8, 8)), "JPEG")
SCANS = encode(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
LAST = SCANS.rindex(b"\xff\xda")
GIF = encode(Image.new("P", (8, 8)), "GIF")
ROWS = bytes(8 * 25)
FORGED = {
    "exif in parts.jpg": lambda: b"\xff\xd8" + b"\xff\xe1\0\x0cExif\0\0abcd" * 120_000 + SMALL[2:],
    "junk.jpg": lambda: SMALL[:20] + bytes(4_000_000),
    "many scans.jpg": lambda: SCANS[:LAST] + SCANS[LAST:-2] * 200 + b"\xff\xd9",
    "comment.gif": lambda: GIF[:-30] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 40_000 + b"\0" + GIF[-30:],
    "chunk.png": lambda: png(8, 8, 8, 2, ROWS, chunk(b"abCd", bytes(70 << 20))),
    "chunks.png": lambda: png(8, 8, 8, 2, ROWS, chunk(b"abCd", b"") * 300_000),
    "text.png": lambda: png(8, 8, 8, 2, ROWS, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 100),
    "values.tif": lambda: tiff({256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 40_000_000, 200)}, bytes(90 << 20)),
    "comments.ppm": lambda: b"P3\n20 20\n255\n" + b"#\n" * 300_000,
    "plain.ppm": lambda: b"P3\n2000 2000\n255\n" + b"0 0 0 " * 2_000_000,
    "wide.bmp": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, 10**6, 9, 1, 8, 1, 0, 0, 0, 256, 0)
    + bytes(1024) + b"\0\2\1\xff",
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_that_would_take_minutes_or_gigabytes_are_refused(tmp_path, name):
    path = write(tmp_path / name, FORGED[name]())
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "save it|Too much memory|make it smaller")
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", encode(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG")),
        ("a.tif", encode(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF")),
        ("a.pgm", b"P5\n16 16\n65535\n" + NEAR.astype(">u2").tobytes()),
        ("thousand.pgm", b"P5\n16 16\n1020\n" + (RAMP.astype(int) * 4).astype(">u2").tobytes()),
        ("big-endian.tif", encode(Image.frombytes("I;16B", (16, 16), NEAR.astype(">u2").tobytes()), "TIFF")),
        ("white is 0.tif", tiff({256: (3, 1, 16), 257: (3, 1, 16), 258: (3, 1, 16), 259: (3, 1, 1), 262: (3, 1, 0)},
                                (65535 - RAMP.astype(int) * 257).astype("<u2").tobytes())),
        ("float.tif", encode(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF")),
    ],
)  # fmt: skip
def test_deep_greys_are_scaled_to_bytes(tmp_path, name, content):
    assert np.array_equal(grey(load_image(write(tmp_path / name, content))), RAMP)


def test_values_of_16_bits_are_rounded(tmp_path):
    values = np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert grey(load_image(tmp_path / "a.png")).tolist() == [[0, 0, 1, 254, 255, 255]]


def test_12_bits_of_a_tiff_have_a_white_of_their_own(tmp_path):
    tags = {256: (3, 1, 2), 257: (3, 1, 1), 258: (3, 1, 12), 259: (3, 1, 1), 262: (3, 1, 1)}
    path = write(tmp_path / "a.tif", tiff(tags, b"\xff\xf8\x00"))  # 4095 and 2048
    assert grey(load_image(path)).tolist() == [[255, 128]]


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.full((4, 4), 255.0, np.float32), r"floats from 255 to 255, .* from 0 \(black\) to 1 \(white\)"),
        (np.full((4, 4), -0.5, np.float32), r"floats from -0\.5"),
        (np.array([[0.5, np.nan]], np.float32), r"not finite"),
        (np.array([[0.5, np.inf]], np.float32), r"not finite"),
        (np.full((4, 4), 70000, np.int32), r"whole numbers of 32 bits or with a sign, .* save it with 8 or 16 bits"),
    ],
)
def test_numbers_without_an_agreed_white_are_refused_with_advice(tmp_path, pixels, match):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", match)


CLEAR_RED, HALF_BLUE, GREEN = (255, 0, 0, 0), (0, 0, 255, 128), (0, 255, 0, 255)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparent_pixels_are_laid_over_white(tmp_path, name):
    image = Image.new("RGBA", (3, 1))
    image.putdata([CLEAR_RED, HALF_BLUE, GREEN])
    image.save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    clear, half, green = np.asarray(load_image(tmp_path / name))[0].tolist()
    assert (clear, green) == ([255, 255, 255], [0, 255, 0])
    assert half == pytest.approx([127, 127, 255], abs=1)


def test_every_other_kind_of_transparency_is_laid_over_white(tmp_path):
    grey_alpha = Image.new("LA", (2, 1))
    grey_alpha.putdata([(0, 0), (50, 255)])
    grey_alpha.save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 0, 0, 0, 20, 0])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    palette.save(tmp_path / "alphas.png", transparency=b"\0\xff")
    colours = Image.new("RGB", (2, 1), (1, 2, 3))
    colours.putpixel((1, 0), (0, 20, 0))
    colours.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    clear = [255, 255, 255]
    assert np.asarray(load_image(tmp_path / "la.png"))[0].tolist() == [clear, [50, 50, 50]]
    for name in ("p.png", "p.gif", "alphas.png", "rgb.png"):
        assert np.asarray(load_image(tmp_path / name))[0].tolist() == [clear, [0, 20, 0]], name


@pytest.mark.parametrize(
    ("bits", "colour", "row", "clear", "expected"),
    [
        (1, 0, b"\x40", b"\0\1", [0, 255]),  # black, white; white is clear and stays white
        (1, 0, b"\x40", b"\0\0", [255, 255]),
        (2, 0, b"\x40", b"\0\1", [255, 0]),  # 1 of 3 is clear, 0 is black
        (4, 0, b"\x7a", b"\0\7", [255, 170]),  # 7 of 15 is clear, 10 of 15
        (16, 0, b"\x12\x34\x80\x80", b"\x12\x34", [255, 128]),
        (16, 2, b"\x12\x34" * 3 + b"\x80\x80" * 3, b"\x12\x34" * 3, [255, 128]),
    ],
)
def test_the_clear_colour_of_a_png_is_given_in_the_bits_of_its_pixels(tmp_path, bits, colour, row, clear, expected):
    path = write(tmp_path / "a.png", png(2, 1, bits, colour, b"\0" + row, chunk(b"tRNS", clear)))
    assert grey(load_image(path)).tolist() == [expected]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_frames_the_first_is_read(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((0, 255, 0), (255, 0, 0))]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert load_image(tmp_path / name).getpixel((1, 1)) == (0, 255, 0)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_become_what_pillow_makes_of_them(tmp_path, mode):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, Image.new(mode, (1, 1)).im.bands), dtype=np.uint8)
    Image.frombytes(mode, (7, 5), pixels.tobytes()).save(tmp_path / "a.tif")
    expected = Image.open(tmp_path / "a.tif").convert("RGB")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.tif")), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "lzw.tif"])
def test_a_photo_that_its_exif_tag_makes_upright_is_turned_and_its_box_with_it(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTO.save(tmp_path / name, exif=exif, **FORMS[name])
    PHOTO.save(tmp_path / f"stored {name}", **FORMS[name])
    with Image.open(tmp_path / f"stored {name}") as image:
        stored = image.convert("RGB")
    with Image.open(tmp_path / name) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(np.asarray(load_image(tmp_path / name)), upright)

    box = (4.0, 2.0, 12.0, 10.0)
    tagged = crop_to_box(stored, box)
    tagged.getexif()[0x0112] = orientation
    cut = load_image(tmp_path / name, box)
    assert np.array_equal(np.asarray(cut), np.asarray(ImageOps.exif_transpose(tagged)))
    shrunk = shrink_to_crop(cut, None, 18, 1.0)
    assert np.array_equal(np.asarray(load_shrunk(tmp_path / name, box, 18, 1.0)), np.asarray(shrunk))


@pytest.mark.parametrize("exif", [
    b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0\0\0\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x36\0\0\0\0\0\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_turns_nothing_and_says_nothing(tmp_path, name, exif, capfd):
    PHOTO.save(tmp_path / f"without {name}", **FORMS[name])
    PHOTO.save(tmp_path / name, exif=exif, **FORMS[name])
    assert np.array_equal(np.asarray(load_image(tmp_path / name)), np.asarray(load_image(tmp_path / f"without {name}")))
    assert capfd.readouterr().err == ""


def test_large_images_are_converted_in_bands_that_join_without_a_seam(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (23, 17, 4), dtype=np.uint8), "RGBA").save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 65536, (23, 17), dtype=np.uint16)).save(tmp_path / "b.png")
    whole = [np.asarray(load_image(tmp_path / name)) for name in ("a.png", "b.png")]
    monkeypatch.setattr(image_file, "_BAND", 17 * 5)
    for name, expected in zip(("a.png", "b.png"), whole, strict=True):
        assert np.array_equal(np.asarray(load_image(tmp_path / name)), expected)
