"""FID equals scipy's, and its effects foretell changed sets; FID∞ comes nearer to the truth."""

import numpy as np
import pytest
import scipy.linalg
import torch
from made_up_features import made_up, moved_along

from clipgan.errors import UserError
from clipgan.evaluation.metrics import fid, fid_infinity
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.fid_infinity import intercept_weights, sizes_of
from clipgan.evaluation.metrics.frechet_effects import covariance_gradient


def measure(metric, ours, real):
    (measured,) = metric.METRIC.measure(ours, real, rules=Rules())
    return measured


def by_scipy(ours, real) -> float:
    x, y = ours.double().numpy(), real.double().numpy()
    covariances = [np.cov(z, rowvar=False) for z in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_it_equals_scipys_matrix_root():
    ours, real = made_up(300, 20, 0, 0.3), made_up(400, 20, 1)
    measured = measure(fid, ours, real)
    assert measured.value == pytest.approx(by_scipy(ours, real), rel=1e-4)
    assert measured.details == {"dims": 20, "full_rank": True}


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    own, other = (x @ x.T for x in rng.standard_normal((2, 6, 9)))
    direction = rng.standard_normal((6, 6))
    direction = (direction + direction.T) * 1e-5

    def distance(covariance):
        return np.trace(covariance - 2 * scipy.linalg.sqrtm(other @ covariance).real)

    change = (distance(own + direction) - distance(own - direction)) / 2
    assert change == pytest.approx(float((covariance_gradient(own, other) * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("metric", [fid, fid_infinity])
def test_effects_foretell_the_score_of_a_changed_set(metric):
    ours, real = made_up(3000, 8, 0, 0.3), made_up(3000, 8, 1)
    measured = measure(metric, ours, real)
    for side in (0, 1) if metric is fid else (1,):
        sets = [ours, real]
        sets[side], expected = moved_along(sets[side], measured.effects[side])
        assert measure(metric, *sets).value - measured.value == pytest.approx(expected, rel=0.15)


def test_effects_stay_finite_with_fewer_images_than_dimensions():
    measured = measure(fid, made_up(12, 30, 0, 0.3), made_up(15, 30, 1))
    assert not measured.details["full_rank"]
    assert all(np.isfinite(effects).all() for effects in measured.effects)


def test_the_extrapolation_is_nearer_to_the_true_distance():
    """Two Gaussians with the identity as covariance, |μa − μb|² = 0.25."""
    rng = np.random.default_rng(0)
    draw = lambda count: torch.from_numpy(rng.standard_normal((count, 40)))  # noqa: E731
    ours, real = draw(1500), draw(60_000)
    ours[:, 0] += 0.5
    plain, extrapolated = measure(fid, ours, real), measure(fid_infinity, ours, real)
    assert abs(extrapolated.value - 0.25) < abs(plain.value - 0.25) / 2
    sizes = extrapolated.details["sizes"]
    assert len(sizes) == 15 and sizes[0] == 750 and sizes[-1] == 1500
    # What an image moves is not that of one FID: sizes count by the weights of the line's end.
    assert extrapolated.effects[0].std() > plain.effects[0].std()


def test_the_line_ends_where_polyfit_says():
    sizes = sizes_of(30_000)
    values = 3 + 700 / sizes + np.random.default_rng(0).standard_normal(15) * 0.01
    assert sizes[0] == 5000 and sizes[-1] == 30_000
    assert intercept_weights(sizes) @ values == pytest.approx(np.polyfit(1 / sizes, values, 1)[1], rel=1e-9)


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="at least 2 images on each side, not 1 and 9"):
        measure(fid, made_up(1, 4, 0), made_up(9, 4, 1))
    with pytest.raises(UserError, match="at least 30 generated images"):
        measure(fid_infinity, made_up(29, 4, 0), made_up(9, 4, 1))
