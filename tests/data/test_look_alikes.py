"""Who stands beside whom in the order of an epoch."""

from pathlib import Path

import numpy as np
import pytest

from clipgan.config import Config
from clipgan.data.dataset import EpochBatchSampler
from clipgan.data.examples import Example
from clipgan.data.look_alikes import LookAlikes


def example(number, caption, class_id):
    return Example(Path(f"{number}.jpg"), str(number), (caption,), class_id, None)


@pytest.fixture
def examples():
    """Of each of 20 kinds four images with a long beak, one class, and four with a short one, another."""
    found = []
    for kind in range(20):
        for number, beak in enumerate(4 * ["long", "short"]):
            caption = f"a bird of kind{kind} with a {beak} beak and wings{kind}"
            found.append(example(len(found), caption, 2 * kind + number % 2))
    return found


def test_images_meet_those_that_differ_least_but_are_of_another_class(examples):
    order = np.random.default_rng(0).permutation(len(examples))
    arranged = LookAlikes(examples, 2)(order)
    assert sorted(arranged) == list(range(len(examples)))
    pairs = arranged.reshape(-1, 2)
    of_a_kind = [(a, b) for a, b in pairs if a // 8 == b // 8]
    assert len(of_a_kind) > 30  # of 80; at random it would be 3
    assert all(examples[a].class_id != examples[b].class_id for a, b in of_a_kind)


def test_words_call_another_order_alike_and_pairs_of_words_call_another_word_alike():
    captions = ["red head blue body long beak", "blue head red body long beak", "red head blue body short beak"]
    many = [example(number, caption, number) for number, caption in enumerate([*captions, "green tail"] * 5)]
    words, pairs = LookAlikes(many, 2)._vectors
    swapped, other_beak = 1, 2
    assert words[0] @ words[swapped] == pytest.approx(1, abs=1e-5)
    assert words[0] @ words[other_beak] < 0.9
    assert pairs[0] @ pairs[swapped] < pairs[0] @ pairs[other_beak] - 0.1


def test_captions_without_words_are_no_trouble():
    many = [example(number, caption, number) for number, caption in enumerate(["", "bird", "…", "a bird"])]
    assert sorted(LookAlikes(many, 2)(np.arange(4))) == [0, 1, 2, 3]


def test_a_group_begins_with_the_next_of_the_random_order(examples):
    order = np.random.default_rng(1).permutation(len(examples))
    places = {number: place for place, number in enumerate(order)}
    firsts = [places[number] for number in LookAlikes(examples, 4)(order)[::4]]
    assert firsts == sorted(firsts)


def test_groups_of_one_leave_the_order_alone(examples):
    order = np.random.default_rng(2).permutation(len(examples))
    assert np.array_equal(LookAlikes(examples, 1)(order), order)
    assert Config().TRAIN.LOOK_ALIKES == 1


def test_more_images_than_are_searched_at_once_are_all_there(examples):
    many = [example(i, f"bird{i % 7} wing{i % 5}", i) for i in range(2500)]
    arranged = LookAlikes(many, 3)(np.arange(2500))
    assert sorted(arranged) == list(range(2500))


def test_the_sampler_arranges_every_epoch_and_all_processes_alike(examples):
    arrange = LookAlikes(examples, 2)
    whole = EpochBatchSampler(len(examples), 8, 3, arrange=arrange)
    whole.set_epoch(5)
    expected = arrange(np.random.default_rng((3, 5)).permutation(len(examples)))
    batches = list(whole)
    assert [index for batch in batches for _, index in batch] == expected.tolist()
    shares = []
    for rank in (0, 1):
        share = EpochBatchSampler(len(examples), 8, 3, rank=rank, world_size=2, arrange=arrange)
        share.set_epoch(5)
        shares.append(list(share))
    assert [first + second for first, second in zip(*shares, strict=True)] == batches
