"""The score equals closed forms and torch-fidelity's score."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from clipgan.errors import UserError
from clipgan.evaluation.metrics.inception_score import inception_score


def probabilities(count: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.2), count)


def test_images_that_all_look_alike_score_one():
    score = inception_score(np.tile(probabilities(1, 9), (40, 1)))
    assert score.mean == pytest.approx(1, abs=1e-12)
    assert score.std == pytest.approx(0, abs=1e-12)


def test_certain_images_of_all_classes_score_the_number_of_classes():
    assert inception_score(np.tile(np.eye(6), (20, 1)), splits=10) == pytest.approx((6, 0), abs=1e-12)


def test_two_kinds_of_images_have_the_closed_form():
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    expected = np.exp(0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5))
    assert inception_score(np.tile(p, (10, 1)), splits=2).mean == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("splits", [1, 5, 10])
def test_score_equals_torch_fidelitys(splits):
    p = probabilities(200, 50)
    peer = isc_features_to_metric(torch.from_numpy(np.log(p)), splits=splits, shuffle=False)
    ours = inception_score(p, splits)
    assert ours.mean == pytest.approx(peer["inception_score_mean"], rel=1e-10)
    assert ours.std == pytest.approx(peer["inception_score_std"], rel=1e-8, abs=1e-12)


def test_every_image_counts_if_the_splits_cannot_be_equal():
    p = probabilities(23, 5)
    baseline = inception_score(p, splits=10)
    for index in range(len(p)):
        changed = p.copy()
        changed[index] = changed[index, ::-1]
        assert inception_score(changed, splits=10).mean != baseline.mean, f"image {index} is in no split"


def test_order_matters_for_sorted_classes_unless_shuffled():
    sorted_by_class = np.repeat(np.eye(10), 50, axis=0)
    assert inception_score(sorted_by_class).mean == pytest.approx(1)
    shuffled = inception_score(sorted_by_class, shuffle_seed=3)
    assert shuffled.mean > 8
    assert shuffled == inception_score(sorted_by_class, shuffle_seed=3)
    assert shuffled != inception_score(sorted_by_class, shuffle_seed=4)


def test_too_few_images_and_invalid_probabilities_are_refused():
    with pytest.raises(UserError, match="at least 10 images, not 9"):
        inception_score(probabilities(9, 4))
    with pytest.raises(UserError, match="at least 1"):
        inception_score(probabilities(9, 4), splits=0)
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(np.ones((20, 4)))
    with pytest.raises(ValueError, match="expected"):
        inception_score(np.ones(20))
