"""DiffAugment's changes, one by one, and who draws which."""

import pytest
import torch

from clipgan.config import Config, bounds
from clipgan.losses.gradient_penalty import PENALTIES
from clipgan.machine import distributed
from clipgan.training.diff_augment import POLICIES, DiffAugment, color, cutout, translation

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def config_of(*policy):
    config = Config()
    config.TRAIN.BATCH_SIZE, config.TRAIN.DIFFAUG = 4, list(policy)
    return config


def test_color_in_the_middle_changes_nothing_and_each_number_moves_what_it_names(images):
    middle = torch.full((4, 3), 0.5)
    assert torch.allclose(color(images, middle), images, atol=1e-6)
    brighter = middle.index_fill(1, torch.tensor([0]), 1.0)
    assert torch.allclose(color(images, brighter), images + 0.5, atol=1e-6)
    grey = color(images, middle.index_fill(1, torch.tensor([1]), 0.0))
    assert torch.allclose(grey, images.mean(1, keepdim=True).expand_as(images), atol=1e-6)
    flat = color(images, middle.index_fill(1, torch.tensor([2]), 0.0))
    assert torch.allclose(flat.std(dim=(1, 2, 3)), images.std(dim=(1, 2, 3)) / 2, rtol=1e-5)


def test_a_translation_moves_by_an_eighth_at_most_and_fills_with_grey(images):
    assert torch.equal(translation(images, torch.full((4, 2), 0.5)), images)
    low = translation(images, torch.zeros(4, 2))  # down and to the right by 2 of 16 pixels
    assert torch.equal(low[:, :, 2:, 2:], images[:, :, :-2, :-2])
    assert low[:, :, :2].abs().sum() == low[:, :, :, :2].abs().sum() == 0
    high = translation(images, torch.tensor([[0.999, 0.5]] * 4))
    assert torch.equal(high[:, :, :-2], images[:, :, 2:])


def test_a_cutout_hides_a_square_of_half_the_side(images):
    hidden = cutout(images, torch.full((4, 2), 0.5)) == 0
    assert hidden[:, :, 4:12, 4:12].all()
    assert hidden.sum() == 4 * 3 * 64
    in_the_corner = cutout(images, torch.zeros(4, 2)) == 0
    assert in_the_corner[:, :, :4, :4].all()
    assert in_the_corner.sum() == 4 * 3 * 16


@pytest.mark.parametrize("name", POLICIES)
def test_the_generator_learns_through_every_change_twice_over(name, images):
    change, count = POLICIES[name]
    numbers = torch.rand(4, count, generator=torch.Generator().manual_seed(1))
    images = images[:, :, :8, :8].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: change(x, numbers.double()), images)
    assert torch.autograd.gradgradcheck(lambda x: change(x, numbers.double()).square(), images)


def test_without_a_policy_the_images_themselves_come_back(images):
    assert DiffAugment(config_of(), 3, CPU)(images) is images


def test_every_image_every_call_and_every_step_is_changed_otherwise_and_again_the_same(images):
    same = images[:1].repeat(8, 1, 1, 1)  # two views
    augment = DiffAugment(config_of(*POLICIES), 3, CPU)
    first, second = augment(same), augment(same)
    assert len({tuple(image.flatten().tolist()) for image in [*first, *second]}) == 16
    assert torch.equal(DiffAugment(config_of(*POLICIES), 3, CPU)(same), first)
    assert not torch.equal(DiffAugment(config_of(*POLICIES), 4, CPU)(same), first)


def test_two_processes_change_their_images_as_one_does(images, monkeypatch):
    both = torch.cat([images, -images])  # two views of 4 images
    whole = DiffAugment(config_of(*POLICIES), 3, CPU)(both)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        own = torch.cat([view[2 * rank : 2 * rank + 2] for view in both.chunk(2)])
        parts.append(DiffAugment(config_of(*POLICIES), 3, CPU)(own).chunk(2))
    assert torch.equal(torch.cat([parts[0][0], parts[1][0], parts[0][1], parts[1][1]]), whole)


def test_the_config_knows_the_changes_and_the_penalties_there_are():
    assert bounds._NAMES_OF["TRAIN.DIFFAUG"] == tuple(POLICIES)
    assert bounds._CHOICES["TRAIN.GRADIENT_PENALTY.KIND"] == ("", *PENALTIES)
