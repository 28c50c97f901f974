"""Intervals cover the truth as often as they say, follow the seed, and stay in the score's range."""

import numpy as np
import pytest

from clipgan.evaluation.metrics.card import Measured
from clipgan.evaluation.metrics.interval import interval
from clipgan.evaluation.metrics.registry import cards

CARD = cards()["r_precision"]


def test_a_mean_has_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).random(4000) / 2
    low, high = interval(Measured.mean_of(values), CARD, seed=1)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=1e-3)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 4000**0.5, rel=0.06)


def test_both_sets_add_to_it_and_the_level_widens_it():
    effects = np.random.default_rng(0).standard_normal((2, 1000)) / 10
    width = lambda measured, **more: np.diff(interval(measured, CARD, 0, **more))[0]  # noqa: E731
    one, both = Measured(0.5, (effects[0],)), Measured(0.5, tuple(effects))
    assert width(both) == pytest.approx(width(one) * 2**0.5, rel=0.1)
    assert width(one, level=0.5) < width(one) / 2


def test_nineteen_of_twenty_intervals_cover_the_truth():
    rng, inside = np.random.default_rng(0), 0
    for seed in range(200):
        low, high = interval(Measured.mean_of(rng.random(150) < 0.3), CARD, seed, draws=300)
        inside += low <= 0.3 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_it_follows_the_seed_and_stays_in_the_range():
    measured = Measured.mean_of(np.random.default_rng(0).random(99))
    assert interval(measured, CARD, 3) == interval(measured, CARD, 3) != interval(measured, CARD, 4)
    assert interval(Measured(0.999, measured.effects), CARD, 3)[1] == 1
    assert interval(Measured(0.5), CARD, 0) is None
