"""KID equals torch-fidelity's on the same subsets and a sum over all pairs; its effects foretell changed sets."""

import numpy as np
import pytest
from made_up_features import made_up, moved_along
from torch_fidelity.metric_kid import kid_features_to_metric

from clipgan.errors import UserError
from clipgan.evaluation.metrics import mmd, products
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.kid import METRIC, kid, kid_of_subsets


def over_all_pairs(x: np.ndarray, y: np.ndarray) -> float:
    within = [np.mean([(a @ b / len(a) + 1) ** 3 for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
              for z in (x, y)]  # fmt: skip
    return within[0] + within[1] - 2 * np.mean([(a @ b / len(a) + 1) ** 3 for a in x for b in y])


def test_the_same_subsets_give_torch_fidelitys_numbers():
    ours, real = made_up(300, 64, 0, 0.3), made_up(260, 64, 1)
    peer = kid_features_to_metric(ours, real, kid_subsets=8, kid_subset_size=100, rng_seed=7, verbose=False)
    rng = np.random.RandomState(7)
    subsets = [tuple(rng.choice(n, 100, replace=False) for n in (300, 260)) for _ in range(8)]
    mean, std = kid_of_subsets(ours, real, subsets)
    assert mean == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-4)
    assert std == pytest.approx(peer["kernel_inception_distance_std"], rel=1e-4)
    assert mean > 1e-3


def test_all_pairs_are_summed_whatever_the_size_of_the_blocks(monkeypatch):
    ours, real = made_up(23, 8, 0, 0.2), made_up(31, 8, 1)
    expected = over_all_pairs(ours.double().numpy(), real.double().numpy())
    assert kid(ours, real).value == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(mmd, "blocks", lambda total: products.blocks(total, 7))
    assert kid(ours, real).value == pytest.approx(expected, rel=1e-6)


def test_two_samples_of_one_distribution_are_about_zero_and_on_both_sides_of_it():
    values = [kid(made_up(150, 16, seed), made_up(150, 16, 1000 + seed)).value for seed in range(12)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < kid(made_up(150, 16, 0, 0.5), made_up(150, 16, 1)).value / 20


def test_effects_foretell_the_score_of_a_changed_set():
    ours, real = made_up(2000, 16, 0, 0.3), made_up(2000, 16, 1)
    measured = kid(ours, real)
    for side in (0, 1):
        effects = measured.effects[side]
        assert abs(effects.mean()) < 1e-12
        sets = [ours, real]
        sets[side], expected = moved_along(sets[side], effects)
        assert kid(*sets).value - measured.value == pytest.approx(expected, rel=0.1)


def test_the_card_of_a_score_with_few_images():
    (measured,) = METRIC.measure(made_up(30, 8, 0), made_up(20, 8, 1), rules=Rules())
    assert measured.details["subset_size"] == 10 and measured.details["subsets"] == 100
    with pytest.raises(UserError, match="at least 2 images on each side, not 1 and 20"):
        METRIC.measure(made_up(1, 8, 0), made_up(20, 8, 1), rules=Rules())
