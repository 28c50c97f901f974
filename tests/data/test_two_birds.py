"""The scenes of two birds: what their captions say, what the oracle reads, and that each has its swapped one."""

import re
from dataclasses import asdict

import numpy as np
import pytest
import torch

from clipgan.data.examples import read_examples
from clipgan.data.toy import class_number, draw_toy_dataset
from clipgan.data.toy_oracle import (
    TWO_BIRDS,
    accuracies,
    chance_accuracy,
    read_attributes,
    read_truth,
    right_attributes,
)
from clipgan.data.two_birds import (
    ATTRIBUTES,
    TwoBirds,
    draw_two_birds,
    random_two_birds_pose,
    split_two_birds,
    two_birds_captions,
)

SCENE = TwoBirds("red", "blue", "black", "yellow", "before")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("two") / "birds"
    draw_toy_dataset(root, "birds", train=200, test=120, size=32, scene="two_birds")
    return root


def drawn(scenes, seed=0):
    """The scenes as images [N, 3, 32, 32], with random backgrounds and poses."""
    rng = np.random.default_rng(seed)
    images = [
        draw_two_birds(scene, str(rng.choice(["pink", "mint"])), random_two_birds_pose(scene, rng), 32)
        for scene in scenes
    ]
    return torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1


def test_the_oracle_reads_fresh_drawings_and_their_swapped_ones():
    train, test = split_two_birds(400, np.random.default_rng(1))
    scenes = [*train[::5], *test[::2]]
    right = right_attributes(drawn(scenes), [asdict(scene) for scene in scenes])
    assert right.mean(dim=0).min() >= 0.98
    assert set(accuracies(right)) == {"mean", "found", *ATTRIBUTES}
    swapped = read_attributes(drawn([scene.swapped() for scene in scenes]), TWO_BIRDS)
    assert sum(read == asdict(scene.swapped()) for read, scene in zip(swapped, scenes, strict=True)) >= len(scenes) - 1


def test_a_scene_without_birds_is_none():
    assert read_attributes(torch.randn(2, 3, 32, 32), TWO_BIRDS) == [None, None]


def test_chance_is_that_of_the_attributes():
    assert chance_accuracy(5) == pytest.approx((4 / 4 + 1 / 2) / 5)
    assert chance_accuracy() == chance_accuracy(6) == pytest.approx((4 / 4 + 2 / 2) / 6)


def test_captions_say_who_is_where_from_either_bird():
    for caption in two_birds_captions(SCENE, 16, np.random.default_rng(0)):
        one, where, other = re.fullmatch(
            r".*?(\w+ bird with \w+ wings) (?:stands )?(.+) (?:a|the) (\w+ bird with \w+ wings)", caption
        ).groups()
        first, second = "red bird with blue wings", "black bird with yellow wings"
        assert (one, other) == ((first, second) if where in ("in front of", "before") else (second, first))


def test_swapped_scenes_have_the_same_words_in_their_captions():
    own, swapped = (
        {" ".join(sorted(caption.split())) for caption in two_birds_captions(scene, 16, np.random.default_rng(0))}
        for scene in (SCENE, SCENE.swapped())
    )
    assert own & swapped


def test_no_pair_of_birds_is_in_both_splits_and_swapped_scenes_stand_together():
    def pair(scene):
        return frozenset([(scene.first_body, scene.first_wing), (scene.second_body, scene.second_wing)])

    train, test = split_two_birds(400, np.random.default_rng(2))
    assert not set(map(pair, train)) & set(map(pair, test))
    assert all(one.swapped() == two for one, two in zip(test[::2], test[1::2], strict=True))
    assert all(scene.first_body != scene.second_body for scene in train + test)
    assert len({class_number(scene) for scene in train + test}) == len(train + test) == 216


def test_the_data_set_is_read_back_with_its_truth(root):
    truth = read_truth(root)
    test = read_examples(root, "test", "birds", captions_per_image=10)
    assert len(test) == 120
    for one, two in zip(test[::2], test[1::2], strict=True):
        assert TwoBirds(**truth[one.key]).swapped() == TwoBirds(**truth[two.key])
    train = read_examples(root, "train", "birds", captions_per_image=10)
    assert {example.class_id for example in train}.isdisjoint(example.class_id for example in test)
