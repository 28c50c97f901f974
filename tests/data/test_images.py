"""Range, crops and sizes, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.data.images import (
    crop_to_box,
    load_image,
    load_shrunk,
    pixel_pyramid,
    prepare_image,
    pyramid,
    shrink_to_crop,
    to_pixels,
    to_tensor,
    to_uint8,
)
from clipgan.errors import UserError


def map_of_places(width: int, height: int) -> Image.Image:
    """An image whose red is the column and whose green is the row of a pixel."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8))


def corners(image: Image.Image) -> tuple[int, int, int, int]:
    """The left, upper, right and lower place that a crop of a map of places shows."""
    return *image.getpixel((0, 0))[:2], *image.getpixel((image.width - 1, image.height - 1))[:2]


def places(image: torch.Tensor) -> tuple[int, int, int, int]:
    """The same for a tensor [3, H, W]."""
    pixels = to_uint8(image)
    return *pixels[:2, 0, 0].tolist(), *pixels[:2, -1, -1].tolist()


def test_black_is_minus_one_and_white_is_one():
    pixels = np.array([[[0, 51, 255], [255, 204, 0]]], dtype=np.uint8)
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 1, 2)
    expected = torch.tensor([[[-1.0, 1.0]], [[-0.6, 0.6]], [[1.0, -1.0]]])
    torch.testing.assert_close(tensor, expected)


def test_every_byte_survives_the_way_to_a_tensor_and_back():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_uint8(to_tensor(Image.fromarray(pixels))).permute(1, 2, 0).numpy(), pixels)


def test_values_outside_the_range_are_clamped_and_others_rounded():
    values = torch.tensor([-3.0, -1.0, -0.995, 0.997, 1.0, 7.0]).view(1, 1, 6).expand(3, 1, 6)
    assert to_uint8(values)[0, 0].tolist() == [0, 0, 1, 255, 255, 255]
    assert to_uint8(values.expand(2, 4, 3, 1, 6)).shape == (2, 4, 3, 1, 6)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 30, 20, 10), (35, 20, 64, 49)),  # middle 50, 35; half int(0.75·20) = 15: from 35 to 64, from 20 to 49
        ((40.7, 30.2, 11, 21), (31, 25, 60, 54)),  # middle int(46.2), int(40.7); half int(15.75) = 15
        ((40, 30, 10, 11), (37, 27, 52, 42)),  # middle 45, int(35.5); half int(8.25) = 8
    ],
)
def test_the_box_crop_is_a_square_around_the_middle_of_the_box(box, expected):
    assert corners(crop_to_box(map_of_places(100, 80), box)) == expected


def test_the_box_crop_is_clipped_to_the_image():
    # Middle 40, 25, half 30: from 10 to 70 and from −5 to 55
    assert corners(crop_to_box(map_of_places(100, 80), (20, 10, 40, 30))) == (10, 0, 69, 54)
    # Middle 90, 70, half 22: from 68 to 112 and from 48 to 92
    assert corners(crop_to_box(map_of_places(100, 80), (80, 55, 20, 30))) == (68, 48, 99, 79)


@pytest.mark.parametrize("box", [(300, 10, 20, 20), (10, 10, 1, 1)])
def test_a_box_that_holds_nothing_of_the_image_is_refused_with_both_their_sizes(box):
    with pytest.raises(UserError, match=r"box \[.*holds nothing of the image, which is 100 x 80"):
        crop_to_box(map_of_places(100, 80), box)


def test_a_pyramid_equals_pillows_resizing():
    """Halves and quarters equal Pillow's antialiased bilinear resizing; other sizes may differ by one level."""
    allowed = 0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)
    for size, pixels in zip((24, 40, 48, 96), pixel_pyramid(to_pixels(image), [96, 24, 48, 40]), strict=True):
        pillows = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.int16).transpose(2, 0, 1)
        assert pixels.dtype == torch.uint8 and pixels.permute(1, 2, 0).is_contiguous()
        assert np.abs(pixels.numpy() - pillows).max() <= (1 if size == 40 else allowed)


def test_a_pyramid_is_smallest_first_and_keeps_the_colour():
    images = pyramid(to_pixels(Image.new("RGB", (64, 64), (255, 0, 102))), [64, 16, 32])
    assert [list(image.shape) for image in images] == [[3, 16, 16], [3, 32, 32], [3, 64, 64]]
    for image in images:
        torch.testing.assert_close(image.mean((1, 2)), torch.tensor([1.0, -1.0, -0.2]))
        assert image.std() > 0.8 and image[0].std() == 0


def test_shrinking_averages_the_pixels():
    board = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    (small,) = pyramid(to_pixels(board), [16])
    assert small[:, 2:-2, 2:-2].abs().max() < 0.1


def test_an_evaluation_image_is_the_centre_crop():
    # 76 x 152 is 76/64 of 64 already: nothing is resampled; 6 = (76 − 64) / 2 and 44 = (152 − 64) / 2
    (image,) = prepare_image(map_of_places(76, 152), None, [64])
    assert places(image) == (6, 44, 69, 107)


def test_the_shorter_side_becomes_crop_scale_times_the_size():
    # 40 x 80, all red left of column 20: the shorter side becomes 20, so the edge comes to column 10, then 8
    image = Image.new("RGB", (40, 80))
    image.paste((255, 0, 0), (0, 0, 20, 80))
    (image,) = prepare_image(image, None, [16], crop_scale=20 / 16)
    assert image.shape == (3, 16, 16)
    assert (image[0, :, :7] > 0.9).all() and (image[0, :, 9:] < -0.9).all()


def test_a_crop_scale_of_one_leaves_a_square_image_whole():
    (image,) = prepare_image(map_of_places(64, 64), None, [64], crop_scale=1.0, rng=np.random.default_rng(0))
    assert places(image) == (0, 0, 63, 63)


def test_the_box_is_cut_out_before_anything_else():
    # Middle 60, 50, half int(0.75·51) = 38: a square of 76 from column 22 and row 12, whose middle 64 remain
    (image,) = prepare_image(map_of_places(120, 110), (34.5, 40, 51, 20), [64])
    assert places(image) == (22 + 6, 12 + 6, 22 + 6 + 63, 12 + 6 + 63)


def test_training_crops_reach_every_place_and_half_of_them_are_mirrored():
    rng = np.random.default_rng(0)
    seen = [places(prepare_image(map_of_places(72, 68), None, [64], crop_scale=68 / 64, rng=rng, flip=True)[0])
            for _ in range(300)]  # fmt: skip
    mirrored = [left > right for left, _, right, _ in seen]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert {min(left, right) for left, _, right, _ in seen} == set(range(9))
    assert {upper for _, upper, _, _ in seen} == set(range(5))
    assert all(abs(left - right) == 63 and lower - upper == 63 for left, upper, right, lower in seen)


def test_nothing_is_mirrored_unless_asked_for():
    rng = np.random.default_rng(0)
    seen = [places(prepare_image(map_of_places(76, 76), None, [64], rng=rng)[0]) for _ in range(30)]
    assert all(left < right for left, _, right, _ in seen)


def test_all_sizes_show_the_same_crop():
    smooth = Image.effect_noise((8, 8), 100).resize((90, 90), Image.Resampling.BICUBIC).convert("RGB")
    small, large = prepare_image(smooth, None, [64, 32], rng=np.random.default_rng(3), flip=True)
    shrunk = torch.nn.functional.avg_pool2d(large[None], 2)[0]
    assert (shrunk - small).abs().mean() < 0.02


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = load_image(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (5, 4), (255, 255, 255))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jpg: no such image"):
        load_image(tmp_path / "nowhere.jpg")


def test_a_broken_image_is_named(tmp_path):
    whole = tmp_path / "whole.jpg"
    map_of_places(64, 64).save(whole)
    for name, content in [("text.jpg", b"no image"), ("empty.jpg", b""), ("cut.jpg", whole.read_bytes()[:700])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: not a readable image"):
            load_image(tmp_path / name)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (51, 1), (2, 103)])
def test_an_image_far_too_long_for_its_width_is_refused_with_both_sizes(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "long.png")
    with pytest.raises(UserError, match=rf"long\.png: is {size[0]} x {size[1]} pixels .* 50 times the shorter"):
        load_shrunk(tmp_path / "long.png", None, 256, 76 / 64)
    with pytest.raises(UserError, match=rf"^is {size[0]} x {size[1]} pixels"):
        prepare_image(Image.new("RGB", size), None, [256])


def test_the_ratio_is_judged_after_the_box_is_cut_out(tmp_path):
    map_of_places(200, 200).resize((2000, 10)).save(tmp_path / "long.png")
    assert load_shrunk(tmp_path / "long.png", (100, 0, 10, 10), 16, 1.0).size == (22, 16)  # 14 x 10 of it
    assert shrink_to_crop(Image.new("RGB", (50, 1)), None, 16, 1.0).size == (800, 16)


def test_a_result_of_more_than_64_million_pixels_is_refused():
    with pytest.raises(UserError, match=r"would become 64000 x 1280.* 64 million"):
        shrink_to_crop(Image.new("RGB", (50, 1)), None, 1280, 1.0)


def test_an_image_of_one_pixel_fills_the_crop(tmp_path):
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "dot.png")
    shrunk = load_shrunk(tmp_path / "dot.png", None, 16, 76 / 64)
    assert shrunk.size == (19, 19) and shrunk.getcolors() == [(361, (255, 0, 51))]


def test_a_box_outside_its_image_is_refused_by_the_files_name(tmp_path):
    map_of_places(30, 20).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"small\.png: the box \[40, 3, 5, 5\] .* which is 30 x 20"):
        load_image(tmp_path / "small.png", (40, 3, 5, 5))
    assert corners(load_image(tmp_path / "small.png", (20, 4, 20, 10))) == (15, 0, 29, 19)
