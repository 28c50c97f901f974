"""Images that share captions, without classes: what the generator's and the encoder's scores make of them."""

import dataclasses
from pathlib import Path

import pytest
import torch

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.errors import UserError
from clipgan.evaluation.encoding import encode_captions
from clipgan.evaluation.metrics import r_precision
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.retrieval import Validation
from clipgan.evaluation.sampling import sample_order
from clipgan.networks.clip_encoder import build_encoder

CPU = torch.device("cpu")
FIVE = tuple(f"a {colour} bird" for colour in ("red", "blue", "green", "black", "white"))


def examples_of(captions, classes=None):
    classes = range(len(captions)) if classes is None else classes
    return [Example(Path("none.png"), str(i), tuple(texts), c, None)
            for i, (texts, c) in enumerate(zip(captions, classes, strict=True))]  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_clip):
    torch.manual_seed(0)
    return build_encoder(str(tiny_clip), "", 28).freeze()


def test_perfect_images_of_shared_captions_score_1(encoder):
    examples = examples_of([FIVE] * 30)
    captions, samples = encode_captions(encoder, examples, CPU, batch_size=16), sample_order(examples, 60)
    own = captions.row(torch.tensor([s.example for s in samples]), torch.tensor([s.caption for s in samples]))
    (score,) = r_precision.METRIC.measure(captions.features(captions.sentences[own], samples), rules=Rules())
    assert score.value == 1.0 and score.details["candidates"] == 100
    assert captions.shared == 150
    alone = dataclasses.replace(captions, ids=torch.arange(150))  # as if no two captions were equal
    (score,) = r_precision.METRIC.measure(alone.features(captions.sentences[own], samples), rules=Rules())
    assert score.value == 0.0


def test_shared_captions_are_those_that_another_class_has_too(encoder):
    examples = examples_of([("one", "two"), ("two", "three"), ("three", "four"), ("Four", "four")], [0, 0, 1, 1])
    assert encode_captions(encoder, examples, CPU).shared == 2  # "three", in class 0 and in class 1


def test_one_caption_for_all_images_is_refused_before_the_first_epoch(tmp_path):
    config = Config()
    Validation(examples_of([("one", "two"), ("one", "two"), ("three", "four")]), config, CPU, tmp_path)
    for captions in ([("one",)] * 4, [("one", "two"), ("two", "one")]):
        with pytest.raises(UserError, match="for each caption a different one in another class"):
            Validation(examples_of(captions), config, CPU, tmp_path)
