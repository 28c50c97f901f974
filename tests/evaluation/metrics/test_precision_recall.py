"""Precision, recall, density and coverage equal torch-fidelity's and the prdc package's, and closed forms."""

import numpy as np
import prdc
import pytest
import torch
from made_up_features import made_up
from torch_fidelity.metric_prc import prc_features_to_metric

from clipgan.errors import UserError
from clipgan.evaluation.metrics import precision_recall, products
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.precision_recall import METRIC

SETS = [(made_up(220, 24, 0, 0.3), made_up(250, 24, 1)), (made_up(100, 12, 2, scale=0.6), made_up(140, 12, 3))]


def values(ours, real) -> list[float]:
    return [measured.value for measured in METRIC.measure(ours, real, rules=Rules())]


@pytest.mark.parametrize("sets", SETS)
def test_they_equal_the_peers(sets, capsys):
    ours, real = sets
    of_fidelity = prc_features_to_metric(ours, real, prc_neighborhood=3, prc_batch_size=64, verbose=False)
    of_prdc = [prdc.compute_prdc(real.numpy(), ours.numpy(), nearest_k=k) for k in (3, 5)]
    expected = [of_fidelity["precision"], of_fidelity["recall"], of_prdc[1]["density"], of_prdc[1]["coverage"]]
    assert values(ours, real) == pytest.approx(expected, rel=1e-4)
    assert [of_prdc[0]["precision"], of_prdc[0]["recall"]] == pytest.approx(expected[:2], rel=1e-4)
    assert all(value > 0.02 for value in expected) and min(expected) < 0.9


def test_the_size_of_the_blocks_changes_nothing(monkeypatch):
    expected = values(*SETS[1])
    monkeypatch.setattr(precision_recall, "blocks", lambda total, rows: products.blocks(total, 13))
    assert values(*SETS[1]) == expected


def test_far_and_equal_sets_have_the_closed_forms():
    real = made_up(60, 10, 0)
    assert values(real + 100, real) == [0, 0, 0, 0]
    precision, recall, density, coverage = values(real.clone(), real)
    assert precision == recall == coverage == 1
    # An image lies in its own ball, and on the edge of the balls of whoever it is a k-th neighbour: 1 + k in the mean.
    assert density == pytest.approx(6 / 5)


def test_one_image_again_and_again_is_precise_but_covers_nothing():
    real = made_up(80, 10, 0)
    precision, recall, _, coverage = values(real[:1].repeat(50, 1), real)
    assert precision == 1 and recall <= 2 / 80 and coverage <= 10 / 80


def test_equal_images_have_distance_zero_however_far_they_lie_from_the_others():
    real = made_up(40, 10, 0)
    real[7] = real[3] = real[3] * 1e3
    features, other = products.around_one_centre(real, real.clone())
    distances = products.squared_distances(features, slice(0, 40), other)
    assert torch.equal(distances == 0, torch.cdist(real.double(), real.double()) == 0)


def test_effects_are_of_the_images_that_are_counted():
    measured = METRIC.measure(*SETS[0], rules=Rules())
    for one, side in zip(measured, (0, 1, 0, 1), strict=True):
        assert [len(effects) for effects in one.effects] == [220, 250]
        assert np.ptp(one.effects[side]) > 0 and not one.effects[1 - side].any()
        assert abs(one.effects[side].mean()) < 1e-12


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="at least 6 images on each side, not 5 and 40"):
        values(made_up(5, 4, 0), made_up(40, 4, 1))
