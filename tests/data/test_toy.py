import json
import pickle
import pickletools
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clipgan.data import toy
from clipgan.data.examples import read_examples, read_own_captions
from clipgan.data.images import load_image
from clipgan.data.toy_oracle import read_truth
from clipgan.data.toy_scene import ATTRIBUTES, BACKGROUND_COLOURS, BIRD_COLOURS, Attributes, Pose, bird_box, draw_scene
from clipgan.errors import UserError

SPELLINGS = {"small": "small|little|tiny", "large": "large|big|huge"}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("toy") / "many", train=40, test=200)


def draw(root, **options):
    toy.draw_toy_dataset(root, **{"train": 12, "test": 8, "size": 32, **options})
    return root


def content(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout, captions, boxes", [("birds", 10, True), ("coco", 5, False), ("manifest", 10, True)])
def test_each_layout_is_read_back_whole(tmp_path, layout, captions, boxes):
    root = draw(tmp_path / layout, layout=layout)
    truth = read_truth(root)
    for split, count in (("train", 12), ("test", 8)):
        examples = read_examples(root, split, layout, captions_per_image=10)
        assert len(examples) == count
        for example in examples:
            assert load_image(example.image).size == (32, 32)
            assert len(set(example.captions)) == captions
            assert example.key in truth
            assert (example.box is not None) == boxes
    ((_, own),) = read_own_captions(root)
    assert len(own) == toy.EXAMPLE_CAPTIONS


def test_the_same_seed_draws_the_same_files_and_another_one_others(tmp_path):
    first, second, other = (draw(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert content(first) == content(second)
    assert content(first) != content(other)


def test_every_caption_names_every_attribute(toy_birds):
    truth = read_truth(toy_birds)
    for example in read_examples(toy_birds, "train", "birds", captions_per_image=10):
        for caption in example.captions:
            for value in truth[example.key].values():
                assert re.search(rf"\b({SPELLINGS.get(value, value)})\b", caption), (caption, value)


def test_captions_are_short_enough_to_stay_whole_and_worded_in_many_ways():
    attributes = Attributes("red", "blue", "black", "long", "small", "pink")
    captions = toy.scene_captions(attributes, 100, np.random.default_rng(0))
    assert len(set(captions)) == 100
    assert max(len(caption.split()) for caption in captions) <= 18


def test_test_images_show_new_combinations_of_colours_seen_in_training():
    train, test = toy.split_combinations(400, np.random.default_rng(0))
    assert not set(train) & set(test)
    assert len(set(test)) == 40 and len(set(train)) == 104
    for place, name in enumerate(("body", "wing", "head", "background")):
        counts = Counter(combination[place] for combination in train)
        assert set(counts) == set(ATTRIBUTES[name])
        assert min(counts.values()) > 20
    assert all(body not in (wing, head) for body, wing, head, _ in train + test)


def test_a_class_is_a_combination_of_all_attributes(many):
    truth, of_class, ids, colours = read_truth(many), {}, {}, {}
    for split in ("train", "test"):
        examples = read_examples(many, split, "birds", captions_per_image=1)
        ids[split] = Counter(example.class_id for example in examples)
        for example in examples:
            scene = truth[example.key]
            assert of_class.setdefault(example.class_id, scene) == scene  # no other has its number
            colours.setdefault(split, set()).add(tuple(scene[name] for name in ("body", "wing", "head", "background")))
    assert not colours["train"] & colours["test"] and len(colours["test"]) == 40
    assert len({tuple(scene.values()) for scene in of_class.values()}) == len(of_class)
    assert len(ids["test"]) > 70 and max(ids["test"].values()) <= 10  # enough classes for retrieval among 100


def test_the_palette_is_well_separated():
    colours = [*BIRD_COLOURS.values(), *BACKGROUND_COLOURS.values()]
    distances = [np.linalg.norm(np.subtract(a, b)) for i, a in enumerate(colours) for b in colours[:i]]
    birds = [np.linalg.norm(np.subtract(a, b)) for a in BIRD_COLOURS.values() for b in BIRD_COLOURS.values() if a != b]
    assert min(birds) > 100
    assert min(distances) > 50


@pytest.mark.parametrize("scale, beak", [(0.77, "short"), (1.0, "long")])
def test_the_box_is_tight_around_the_bird(scale, beak):
    pose = Pose(scale, beak, (0.01, -0.02))
    image = np.array(draw_scene(Attributes("red", "blue", "black", beak, "small", "mint"), pose, 128), int)
    mint = np.array(BACKGROUND_COLOURS["mint"])
    ground = (np.arange(128) >= 0.82 * 128)[:, None, None]
    rows, columns = np.nonzero(np.abs(image - np.where(ground, 0.86 * mint, mint)).sum(-1) > 60)
    x, y, width, height = bird_box(pose, 128)
    found = (columns.min(), rows[rows < 104].min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(found, (x, y, x + width, y + height))).max() < 2.5


def test_pickles_use_protocol_2_for_old_readers(tmp_path):
    root = draw(tmp_path / "toy")
    for path in root.rglob("*.pickle"):
        assert next(pickletools.genops(path.read_bytes()))[1] == 2
    assert len(pickle.loads((root / "train/filenames.pickle").read_bytes())) == 12


def test_the_jpegs_keep_their_colour_resolution(toy_birds):
    with Image.open(next(toy_birds.rglob("*.jpg"))) as image:
        assert {component[1:3] for component in image.layer} == {(1, 1)}


def test_a_folder_that_is_not_empty_is_refused_and_kept(tmp_path):
    root = draw(tmp_path / "toy")
    before = content(root)
    with pytest.raises(UserError, match="exists already"):
        draw(root, seed=9)
    assert content(root) == before
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "empty")


@pytest.mark.parametrize("options", [{"layout": "voc"}, {"train": 0}, {"test": 0}, {"size": 8}])
def test_invalid_options_are_refused_before_anything_is_written(tmp_path, options):
    with pytest.raises(UserError):
        draw(tmp_path / "toy", **options)
    assert not list(tmp_path.iterdir())


def test_the_truth_is_found_by_key_and_only_for_toy_data(toy_birds, tmp_path):
    truth = read_truth(toy_birds)
    example = read_examples(toy_birds, "test", "birds", captions_per_image=1)[0]
    scene = truth[example.key]
    assert list(scene) == list(ATTRIBUTES)
    assert example.key.split("/")[0].endswith(f".{'_'.join(scene.values())}")
    assert read_truth(tmp_path) is None
    (tmp_path / "attributes.json").write_text(json.dumps({"attributes": {"a": {"colour": "red"}}}))
    with pytest.raises(UserError, match=r"attributes\.json"):
        read_truth(tmp_path)
