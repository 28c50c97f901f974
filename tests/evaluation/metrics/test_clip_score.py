"""The CLIP score equals torchmetrics'; chance is that of other captions."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchmetrics.functional.multimodal import clip_score as peer_score

from clipgan.evaluation.metrics.caption_features import CaptionFeatures
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.clip_score import METRIC


class Model(nn.Module):
    """A CLIP whose features are given, as torchmetrics calls it."""

    config = SimpleNamespace()

    def __init__(self, images, sentences):
        super().__init__()
        self.images, self.sentences = images, sentences

    def get_image_features(self, pixels):
        return self.images

    def get_text_features(self, tokens, mask):
        return self.sentences


def processor(**inputs):
    return {name: torch.zeros(1, 1) for name in ("pixel_values", "input_ids", "attention_mask")}


def features_of(images, sentences, own, classes) -> CaptionFeatures:
    ids = torch.arange(len(sentences))
    return CaptionFeatures(images, sentences, own, classes[own], classes, ids[own], ids)


def test_it_equals_torchmetrics():
    torch.manual_seed(0)
    sentences, own = torch.rand(12, 16), torch.tensor([3, 1, 11, 0, 7])
    images = torch.rand(5, 16)
    peer = peer_score(
        [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 5,
        ["a bird"] * 5,
        model_name_or_path=lambda: (Model(images, sentences[own]), processor),
    )
    (measured,) = METRIC.measure(features_of(images, sentences, own, torch.arange(12) % 3), rules=Rules())
    assert measured.value == pytest.approx(float(peer), rel=1e-4)
    assert len(measured.effects[0]) == 5


def test_an_opposite_caption_scores_0_and_chance_is_that_of_other_classes():
    directions = torch.eye(2)
    images = torch.stack([directions[0], directions[0], -directions[0], directions[1]])
    for own, value, chance in (([0, 0, 0, 1], 75, 0), ([1, 1, 1, 0], 0, 75)):
        features = features_of(images, directions, torch.tensor(own), torch.tensor([0, 1]))
        (measured,) = METRIC.measure(features, rules=Rules())
        assert (measured.value, measured.chance) == (value, chance)


def test_one_class_leaves_no_chance():
    features = features_of(torch.rand(3, 4), torch.rand(3, 4), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    (measured,) = METRIC.measure(features, rules=Rules())
    assert measured.chance is None and measured.value > 0
