import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clipgan.data.examples import read_examples
from clipgan.data.images import load_image, prepare_image, to_tensor
from clipgan.data.toy import draw_toy_dataset
from clipgan.data.toy_oracle import accuracies, chance_accuracy, read_attributes, read_truth, right_attributes
from clipgan.data.toy_scene import BACKGROUND_COLOURS, BIRD_COLOURS, Attributes, draw_scene, random_pose

COLOURED = ("body", "wing", "head")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """200 test images as the loader gives them, at 32 and at 64 px, and their truth."""
    root = tmp_path_factory.mktemp("toy") / "birds"
    draw_toy_dataset(root, train=1, test=200)
    truth = read_truth(root)
    examples = read_examples(root, "test", "birds", captions_per_image=1)
    images = [prepare_image(load_image(example.image), None, [32, 64], crop_scale=1.0) for example in examples]
    small, large = (torch.stack(size) for size in zip(*images, strict=True))
    return small, large, [truth[example.key] for example in examples]


def attribute_accuracy(images, truths):
    return accuracies(right_attributes(images, truths))


def blurred(images, sigma):
    """Gaussian blur, borders replicated. Row and column are filtered apart: one square kernel would take seconds."""
    reach = int(3 * sigma + 1)
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))


def resized(images, size):
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def draw(truth, rng, size=32):
    attributes = Attributes(**truth)
    return draw_scene(attributes, random_pose(attributes, rng), size)


def colours_of(truth):
    colours = [BIRD_COLOURS[truth[part]] for part in COLOURED] + [BACKGROUND_COLOURS[truth["background"]]]
    return torch.tensor(colours) / 127.5 - 1  # [4, 3]


def test_drawings_are_read_without_error_at_any_size(scenes):
    small, large, truths = scenes
    for images in (small, large, resized(large, 16), resized(large, 48), resized(large, 256)):
        accuracy = attribute_accuracy(images, truths)
        assert min(accuracy.values()) >= 0.99, (images.shape, accuracy)


def test_the_report_has_the_mean_each_attribute_and_the_share_of_birds(scenes):
    small, _, truths = scenes
    accuracy = attribute_accuracy(small, truths)
    assert list(accuracy) == ["mean", "body", "wing", "head", "beak", "size", "background", "found"]
    wrong = [truth | {"beak": "long" if truth["beak"] == "short" else "short"} for truth in truths]
    assert attribute_accuracy(small, wrong)["beak"] <= 0.01
    assert attribute_accuracy(small, wrong)["mean"] == pytest.approx(5 / 6, abs=0.01)


def test_drawings_survive_jpeg_and_shrinking_and_growing(scenes, tmp_path):
    _, large, truths = scenes
    assert min(attribute_accuracy(resized(resized(large, 32), 64), truths).values()) >= 0.99
    rng, recoded = np.random.default_rng(0), []
    for truth in truths:
        draw(truth, rng, 64).save(tmp_path / "a.jpg", quality=80)
        recoded.append(to_tensor(Image.open(tmp_path / "a.jpg")))
    assert min(attribute_accuracy(torch.stack(recoded), truths).values()) >= 0.99


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.3])
def test_soft_drawings_are_read_nearly_without_error(scenes, sigma):
    small, _, truths = scenes
    assert min(attribute_accuracy(blurred(small, sigma), truths).values()) >= 0.97


def test_drawings_with_a_little_noise_are_read_nearly_without_error(scenes):
    small, _, truths = scenes
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    assert min(attribute_accuracy(small + 0.15 * noise, truths).values()) >= 0.97


def test_a_heavily_blurred_bird_is_no_bird(scenes):
    small, large, truths = scenes
    for images in (blurred(small, 4.0), blurred(small, 5.0), blurred(small, 8.0), blurred(large, 10.0)):
        assert attribute_accuracy(images, truths)["mean"] < 0.05


def shuffled_patches(images, size):
    patches = F.unfold(images, size, stride=size)  # [N, 3·size², patches]
    order = torch.randperm(patches.shape[-1], generator=torch.Generator().manual_seed(0))
    return F.fold(patches[..., order], images.shape[-1], size, stride=size)


@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_the_same_pixels_in_other_places_are_no_bird(scenes, size):
    small, _, truths = scenes
    assert attribute_accuracy(shuffled_patches(small, size), truths)["mean"] < 0.05


def test_mirrored_upside_down_and_shifted_birds_are_no_birds(scenes):
    small, _, truths = scenes
    for images in (small.flip(3), small.flip(2), small.roll(8, 3)):
        assert attribute_accuracy(images, truths)["mean"] < 0.1


@pytest.mark.parametrize("sharpness", [1.0, 3.0, 10.0])
def test_random_blobs_in_the_right_colours_are_no_bird(scenes, sharpness):
    _, _, truths = scenes
    fields = torch.randn(len(truths), 4, 32, 32, generator=torch.Generator().manual_seed(0))
    fields = blurred(fields, 4.0)
    fields = fields / fields.std() + torch.tensor([0.0, 0.0, 0.0, 0.8]).view(1, 4, 1, 1)
    colours = torch.stack([colours_of(truth) for truth in truths])
    blobs = torch.einsum("nkhw,nkc->nchw", (sharpness * fields).softmax(1), colours)
    assert attribute_accuracy(blobs, truths)["mean"] < 0.05


def test_soft_spots_of_the_right_colours_at_the_right_places_are_no_bird(scenes):
    _, _, truths = scenes
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    spots = [((columns - x) ** 2 + (rows - y) ** 2, s) for x, y, s in ((15, 18, 6), (11, 18, 4), (21, 10, 4))]
    weights = torch.stack([*(torch.exp(-d / (2 * s * s)) for d, s in spots), torch.full((32, 32), 0.3)])
    weights = weights / weights.sum(0)
    smears = torch.stack([torch.einsum("khw,kc->chw", weights, colours_of(truth)) for truth in truths])
    assert attribute_accuracy(smears, truths)["mean"] < 0.05


def test_a_smear_inside_a_sharp_outline_is_no_bird(scenes):
    _, _, truths = scenes
    red = (torch.tensor(BIRD_COLOURS["red"]) / 127.5 - 1).view(3, 1, 1)
    drawn, masks = [], []
    for number, truth in enumerate(truths):
        drawn.append(to_tensor(draw(truth, np.random.default_rng(number))))
        all_red = to_tensor(draw(truth | dict.fromkeys(COLOURED, "red"), np.random.default_rng(number)))
        masks.append(((all_red - red).abs().sum(0, keepdim=True) < 0.4).float())
    images, mask = torch.stack(drawn), torch.stack(masks)
    inside = blurred(images * mask, 5.0) / blurred(mask, 5.0).clamp_min(1e-3)
    assert attribute_accuracy(mask * inside + (1 - mask) * images, truths)["mean"] < 0.1


def test_the_right_colours_in_the_wrong_parts_count_as_wrong(scenes):
    _, _, truths = scenes
    truths = [truth for truth in truths if truth["wing"] != truth["head"]]
    moved = [truth | {"body": truth["wing"], "wing": truth["head"], "head": truth["body"]} for truth in truths]
    rng = np.random.default_rng(0)
    accuracy = attribute_accuracy(torch.stack([to_tensor(draw(truth, rng)) for truth in moved]), truths)
    assert accuracy["found"] >= 0.99
    assert max(accuracy[part] for part in COLOURED) < 0.05


def test_birds_that_ignore_their_caption_score_at_chance(scenes):
    _, large, truths = scenes
    others = truths[37:] + truths[:37]
    accuracy = attribute_accuracy(large, others)
    assert accuracy["found"] >= 0.99
    assert accuracy["mean"] == pytest.approx(chance_accuracy(), abs=0.08)


def test_chance_is_the_mean_of_guessing_each_attribute():
    assert chance_accuracy() == pytest.approx((3 / 4 + 2 / 2 + 1 / 4) / 6)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_an_empty_image_holds_no_bird(value):
    assert read_attributes(torch.full((2, 3, 32, 32), value)) == [None, None]


def test_an_images_reading_does_not_depend_on_its_batch(scenes):
    small, _, truths = scenes
    whole = read_attributes(small)
    assert whole == truths
    for index in (0, 7):
        assert read_attributes(small[index : index + 1]) == [whole[index]]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 16), (1, 3, 8, 8)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images \[N, 3, S, S\]"):
        read_attributes(torch.zeros(shape))
