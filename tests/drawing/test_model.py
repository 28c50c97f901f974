"""Drawing from a model: what a seed, a text and a count decide, and what is said of a text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny_model import write_tiny_model

import clipgan
from clipgan.drawing.model import Model
from clipgan.errors import UserError
from clipgan.evaluation.sampling import generate

RED, BLUE = "a small red bird", "the blue bird with black wings"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_clip_config) -> Model:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_tiny_model(path, tiny_clip_config)
    return clipgan.load(path, "cpu")


def pixels(images) -> list[np.ndarray]:
    return [np.asarray(image, dtype=int) for image in images]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(pixels(one), pixels(other), strict=True))


def test_a_call_gives_pictures_that_only_seed_and_place_decide(model):
    two, three = model(RED, count=2, seed=1), model(RED, count=3, seed=1)
    assert [image.size for image in three] == [(32, 32)] * 3 and {image.mode for image in three} == {"RGB"}
    assert same(two, three[:2]) and not same(three[:1], three[1:2])
    assert not same(two, model(RED, count=2, seed=2)) and not same(two, model(BLUE, count=2, seed=1))
    together = model.draw([BLUE, RED], count=2, seed=1)
    assert [drawing.number for drawing in together] == [0, 1, 0, 1]
    assert same(two, [drawing.image for drawing in together[2:]])


def test_a_picture_is_the_one_that_sampling_makes_of_the_same_noise(model):
    out = generate(model.generator, model.encoder, [RED], [3], 7, torch.device("cpu"))
    drawing = model.draw(RED, count=4, seed=7)[3]
    whole = ((out.images[-1][0].permute(1, 2, 0) + 1) * 127.5).round()
    assert np.array_equal(np.asarray(drawing.image), whole.numpy())
    assert [image.width for image in drawing.images] == [8, 16, 32]


def test_attention_is_that_of_the_words_and_sums_to_one_at_every_place(model):
    pairs = model.attention(BLUE, seed=1)
    assert [word for word, _ in pairs] == BLUE.split()
    maps = np.stack([of_word for _, of_word in pairs])
    assert maps.shape == (6, 16, 16) and np.allclose(maps.sum(axis=0), 1, atol=1e-5)
    assert np.abs(maps - 1 / 6).max() > 1e-3  # not the even attention of a memory without words


def test_the_pieces_of_a_word_count_as_one_word(model):
    caption = model.read("a zzyzx bird")
    assert caption.words == ("a", "zzyzx", "bird") and sum(caption.pieces) == caption.tokens.shape[1] - 2
    assert max(caption.pieces) > 1
    maps = np.stack([of_word for _, of_word in model.attention("a zzyzx bird")])
    assert len(maps) == 3 and np.allclose(maps.sum(axis=0), 1, atol=1e-5)


def test_interpolation_starts_and_ends_at_the_texts_and_has_no_jump(model):
    steps = pixels(model.interpolate(RED, BLUE, steps=41, seed=1))
    ends = pixels([*model(RED, seed=1), *model(BLUE, seed=1)])
    assert len(steps) == 41 and np.array_equal([steps[0], steps[-1]], ends)
    distances = [np.abs(a - b).mean() for a, b in itertools.pairwise(steps)]
    assert max(distances) < 0.15 * np.abs(steps[0] - steps[-1]).mean()


def test_rank_orders_by_the_cosine(model):
    pictures = model(RED, count=3, seed=1)
    ranked = model.rank(pictures, BLUE)
    assert sorted(place.index for place in ranked) == [0, 1, 2]
    assert [place.score for place in ranked] == sorted((place.score for place in ranked), reverse=True)
    sentence = model.encoder.encode_text(model.encoder.tokenize([BLUE])).sentence
    image = torch.from_numpy(np.array(pictures[ranked[0].index])).permute(2, 0, 1)[None] / 127.5 - 1
    cosine = torch.cosine_similarity(model.encoder.encode_image(image).image, sentence)
    assert float(cosine) == pytest.approx(ranked[0].score, abs=1e-5)


def test_what_is_no_image_is_not_ranked(model):
    for image in (None, np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(UserError, match="a PIL image, a drawing or the path of an image is expected"):
            model.rank([image], RED)


def test_numbers_of_numpy_are_numbers(model):
    assert same(model(RED, count=np.int64(1), seed=np.uint8(3)), model(RED, seed=3))
    for seed in (True, np.bool_(True), 1.0, np.float64(1), "1", -1, 2**63):
        with pytest.raises(UserError, match="seed must be a whole number"):
            model(RED, seed=seed)


def test_best_keeps_the_nearest_of_the_same_pictures(model):
    drawn = model.draw(RED, count=5, seed=3)
    best = model.draw(RED, count=5, seed=3, best=2)
    ranked = model.rank([drawing.image for drawing in drawn], RED)
    assert [drawing.number for drawing in best] == [place.index for place in ranked[:2]]
    assert [drawing.score for drawing in best] == pytest.approx([place.score for place in ranked[:2]])
    assert same([drawing.image for drawing in best], [drawn[place.index].image for place in ranked[:2]])


def test_a_model_without_image_side_draws_the_same_and_does_not_rank(model, tmp_path, tiny_clip_config):
    write_tiny_model(tmp_path / "small.safetensors", tiny_clip_config, image_side=False)
    small = clipgan.load(tmp_path / "small.safetensors", "cpu")
    assert same(small(RED, seed=1), model(RED, seed=1))
    for asks in (lambda: small.rank(small(RED), RED), lambda: small.draw(RED, 2, best=1)):
        with pytest.raises(UserError, match="--with-judge"):
            asks()


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (RED, []),
        ("a RED, small Bird!", []),
        ("a small purple zeppelin", ["Training never saw the words 'purple', 'zeppelin'."]),
        ("a rötlich bird", ["It is read as 'a rtlich bird':", "Training never saw the word 'rtlich'."]),
        ("the blue bird is red with a blackblack", ["Training never saw the word 'blackblack'.", "Only its first 8"]),
        ("the red bird with black wings is a small bird", ["Only its first 8 tokens are read: 'small bird' is"]),
    ],
)
def test_what_a_reader_should_know_of_a_text_is_said(model, text, notes):
    said = model.draw(text)[0].notes
    assert len(said) == len(notes) and all(note.startswith(part) for note, part in zip(said, notes, strict=True))


def test_without_a_vocabulary_no_word_is_called_unknown(tmp_path, tiny_clip_config):
    write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config, vocabulary=())
    assert clipgan.load(tmp_path / "m.safetensors", "cpu").read("a zeppelin").notes == ()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: model(""), "holds no word"),
        (lambda model: model("!?"), "holds no word"),
        (lambda model: model(3), "a text is expected"),
        (lambda model: model(RED, count=0), "count must be a whole number from 1"),
        (lambda model: model(RED, seed=-1), "seed must be"),
        (lambda model: model(RED, seed=1.5), "seed must be"),
        (lambda model: model.draw(RED, 2, best=3), "best must be a whole number from 1 to 2"),
        (lambda model: model.interpolate(RED, BLUE, steps=1), "steps must be"),
        (lambda model: clipgan.load("none.safetensors"), "no model at none.safetensors"),
        (lambda model: model.rank(["none.png"], RED), "none.png"),
    ],
)
def test_mistakes_are_one_line(model, call, said):
    with pytest.raises(UserError, match=said):
        call(model)


def test_a_device_that_is_not_there_is_one_line(tmp_path, tiny_clip_config):
    write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config)
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(UserError, match=f"device '{device}'.*expected cpu, cuda or cuda:N"):
            clipgan.load(tmp_path / "m.safetensors", device)


def test_facts_name_the_model_its_data_and_its_scores(tmp_path, tiny_clip_config):
    scores = [{"name": "R-precision", "value": 0.51234, "spread": 0.012, "protocol": "p"}]
    scores.append({"name": "FID", "value": 0.3, "protocol": "q", "notice": "random weights"})
    facts = {"scores": scores, "data_set": {"name": "drawn", "images": 12}}
    write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config, **facts)
    facts = dict(clipgan.load(tmp_path / "m.safetensors", "cpu").facts)
    assert facts["model"] == "tiny" and facts["data set"] == "drawn, 12 training images"
    assert facts["R-precision"] == "0.512 ± 0.012; p" and facts["FID"] == "0.300 (random weights); q"
    assert facts["sizes"] == "8 px, 16 px, 32 px"
