"""How pictures are divided: shares, classes, seeds, and no dependence on order."""

import random
from pathlib import Path

import pytest

from clipgan.data.sources.pictures import LeftOut, Picture, Source
from clipgan.data.sources.splitting import divide
from clipgan.errors import UserError


def source(pictures, split_by="") -> Source:
    return Source("made up", Path("home"), Path("home"), list(pictures), LeftOut(), split_by)


def pictures(classes: int, each: int) -> list[Picture]:
    return [Picture(f"{c}/{i}.jpg", ("a",), f"class{c}") for c in range(classes) for i in range(each)]


def names(part) -> list[str]:
    return [picture.name for picture in part]


def test_by_class_no_class_is_in_both_and_the_share_is_of_classes():
    parts = divide(source(pictures(20, 7)), None, 0.2, 0)
    train, test = ({picture.label for picture in part} for part in (parts.train, parts.test))
    assert len(test) == 4 and len(train) == 16 and not train & test
    assert len(parts.test) == 28 and parts.how == "by class, seed 0"


def test_at_random_each_class_gives_its_share():
    parts = divide(source(pictures(10, 20)), "random", 0.3, 0)
    assert len(parts.test) == 60 and parts.how == "at random, seed 0"
    by_class = [sum(picture.label == f"class{c}" for picture in parts.test) for c in range(10)]
    assert by_class == [6] * 10


@pytest.mark.parametrize("way", ["class", "random"])
def test_the_same_seed_divides_the_same_way_whatever_the_order(way):
    everything = pictures(12, 5)
    first = divide(source(everything), way, 0.25, 3)
    random.Random(0).shuffle(everything)
    again, other = divide(source(everything), way, 0.25, 3), divide(source(everything), way, 0.25, 4)
    assert first == again and names(first.train) == sorted(names(first.train))
    assert names(first.test) != names(other.test)
    assert sorted(names(first.train) + names(first.test)) == sorted(names(everything))


def test_the_division_is_the_same_on_every_machine():
    """By hash: these names are to stay, so that two people compare the same split."""
    parts = divide(source(Picture(f"{i}.jpg", ("a",)) for i in range(10)), None, 0.2, 0)
    assert names(parts.test) == ["0.jpg", "4.jpg"]
    parts = divide(source(pictures(6, 2)), None, 0.34, 1)
    assert {picture.label for picture in parts.test} == {"class0", "class5"}


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_each_split_gets_two_pictures_or_two_classes(share):
    for count in (4, 5, 7, 10):
        parts = divide(source(Picture(f"{i}.jpg", ("a",)) for i in range(count)), None, share, 0)
        assert len(parts.train) >= 2 and len(parts.test) >= 2 and len(parts.train) + len(parts.test) == count
    parts = divide(source(pictures(4, 3)), None, share, 0)
    assert len({picture.label for picture in parts.train}) == len({picture.label for picture in parts.test}) == 2


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("sizes", [(2, 2), (9, 2), (2, 50), (2, 1, 1), (1, 7, 1), (1, 1, 1, 1), (30, 1, 1), (5, 5, 5)])
def test_at_random_each_split_gets_two_classes_where_that_can_be(sizes, share):
    some = [Picture(f"{c}/{i}.jpg", ("a",), f"class{c}") for c, size in enumerate(sizes) for i in range(size)]
    for seed in range(20):
        parts = divide(source(some), "random", share, seed)
        assert sorted(names(parts.train) + names(parts.test)) == sorted(names(some))
        for part in (parts.train, parts.test):
            assert len({picture.label for picture in part}) >= 2


@pytest.mark.parametrize("sizes", [(4,), (9, 1)])
def test_at_random_a_second_class_is_not_divided_where_it_cannot_be(sizes):
    some = [Picture(f"{c}/{i}.jpg", ("a",), f"class{c}") for c, size in enumerate(sizes) for i in range(size)]
    parts = divide(source(some), None, 0.2, 0)
    assert len(parts.test) == 2 and len(parts.train) == len(some) - 2


def test_few_classes_or_none_are_divided_at_random():
    for few in (pictures(3, 10), [Picture(f"{i}.jpg", ("a",)) for i in range(30)]):
        parts = divide(source(few), None, 0.2, 0)
        assert parts.how == "at random, seed 0" and len(parts.test) == 6
    with pytest.raises(UserError, match=r"has 3 classes; to divide by class it needs 4 at least: --split-by random"):
        divide(source(pictures(3, 10)), "class", 0.2, 0)
    with pytest.raises(UserError, match=r"has 0 classes; to divide"):
        divide(source([Picture(f"{i}.jpg", ("a",)) for i in range(30)]), "class", 0.2, 0)
    with pytest.raises(UserError, match=r"has 1 class; to divide"):
        divide(source(pictures(1, 9)), "class", 0.2, 0)


def test_a_picture_without_a_class_among_others_is_a_class_of_its_own():
    mixed = [*pictures(3, 2), Picture("loose.jpg", ("a",))]
    parts = divide(source(mixed), None, 0.5, 0)
    assert parts.how == "by class, seed 0" and len(names(parts.train)) + len(names(parts.test)) == 7


def test_the_sources_own_split_is_taken_unless_another_is_asked_for():
    own = [Picture(f"{i}.jpg", ("a",), split="test" if i > 3 else "train") for i in range(10)]
    parts = divide(source(own, "a list"))
    assert names(parts.train) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"] and parts.how == "by a list"
    assert len(divide(source(own, "a list"), "random", 0.2, 0).test) == 2


@pytest.mark.parametrize("flag, given", [("--test-share", (0.2, None)), ("--seed", (None, 0))])
def test_a_share_or_seed_that_the_sources_own_split_has_no_use_for_is_refused(flag, given):
    own = [Picture(f"{i}.jpg", ("a",), split="test" if i > 3 else "train") for i in range(10)]
    with pytest.raises(UserError, match=rf"^{flag}: has no effect, as the split is that by a list; .*--split-by"):
        divide(source(own, "a list"), None, *given)
    divide(source(own, "a list"), "random", *given)


@pytest.mark.parametrize("test, said", [(0, "no picture to test"), (1, "1 picture to test"), (4, "1 picture to train")])
def test_an_own_split_with_fewer_than_two_pictures_on_a_side_is_refused(test, said):
    own = [Picture(f"{i}.jpg", ("a",), split="test" if i < test else "train") for i in range(5)]
    with pytest.raises(UserError, match=rf"home: the split by a list leaves {said} on, which needs 2 .*--split-by"):
        divide(source(own, "a list"))


@pytest.mark.parametrize("split_by", ["", "a list"])
@pytest.mark.parametrize("count, said", [(1, "1 picture can"), (3, "3 pictures can")])
def test_fewer_than_four_pictures_are_refused_with_what_was_left_out(split_by, count, said):
    few = source([Picture(f"{i}.jpg", ("a",), split="train") for i in range(count)], split_by)
    few.left_out.add("pictures without a caption", "x.jpg")
    with pytest.raises(UserError, match=rf"home: only {said} be used; .* need 2 each, so 4 in all; .*caption: 1 \(x"):
        divide(few)
