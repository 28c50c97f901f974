"""CMMD equals sums over scipy's distances."""

import numpy as np
import pytest
from made_up_features import made_up
from scipy.spatial.distance import cdist

from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.cmmd import METRIC


def test_it_is_the_unbiased_mmd_of_directions_times_1000():
    ours, real = made_up(90, 24, 0, 0.5), made_up(70, 24, 1)
    unit = [x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True) for x in (ours, real)]
    x, y = unit
    kernels = [np.exp(-cdist(a, b, "sqeuclidean") / (2 * 10**2)) for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    expected = 1000 * (within[0] + within[1] - 2 * kernels[2].mean())
    for scale in (1, 7):  # the length of a feature does not count
        (measured,) = METRIC.measure(ours * scale, real, rules=Rules())
        assert measured.value == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01


def test_two_points_have_the_closed_form():
    ours, real = np.array([[1.0, 0], [1, 0]], dtype=np.float32), np.array([[0, 1.0], [0, 2]], dtype=np.float32)
    (measured,) = METRIC.measure(ours, real, rules=Rules())
    assert measured.value == pytest.approx(1000 * (2 - 2 * np.exp(-2 / 200)), rel=1e-9)
