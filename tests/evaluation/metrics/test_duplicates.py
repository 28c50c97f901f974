"""Duplicates: nearest training images equal scipy's, copies are found, new images score about chance."""

import numpy as np
import pytest
from made_up_features import made_up
from scipy.spatial.distance import cdist

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.duplicates import METRIC, nearest

TRAIN, TEST = made_up(600, 12, 0), made_up(400, 12, 1)


def measure(ours):
    (measured,) = METRIC.measure(ours, TRAIN, TEST, rules=Rules())
    return measured


def test_the_nearest_rows_are_scipys():
    distances, rows = nearest(TEST, TRAIN)
    expected = cdist(TEST.double().numpy(), TRAIN.double().numpy())
    np.testing.assert_array_equal(rows, expected.argmin(axis=1))
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-6)
    assert (nearest(TRAIN, TRAIN)[0] == 0).all()


def test_new_images_of_the_same_kind_score_about_chance_and_copies_do_not():
    measured = measure(made_up(2000, 12, 2))
    assert measured.value == pytest.approx(0.05, abs=0.03) and measured.chance == 0.05
    assert measured.details["copies"] == 0
    ours = made_up(100, 12, 3)
    ours[40:60] = TRAIN[100:120]
    measured = measure(ours)
    assert measured.value >= 0.2 and measured.details["copies"] == 20
    pairs = measured.details["nearest"]
    assert len(pairs) == 16 and all(train == ours_row + 60 and distance == 0 for ours_row, train, distance in pairs)


def test_a_handful_of_test_images_is_refused():
    with pytest.raises(UserError, match="at least 20 test images to compare with, not 19"):
        METRIC.measure(TRAIN, TRAIN, TEST[:19], rules=Rules())
