"""The distance equals closed forms, a computation from the data, and other libraries; the statistics equal NumPy's."""

import numpy as np
import pytest
import scipy.linalg
import torch
from pytorch_fid.fid_score import calculate_frechet_distance

from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics, frechet_distance


def sample(count: int, dims: int, seed: int, decay: float = 20.0) -> np.ndarray:
    """Correlated features [count, dims] with a spectrum that falls off as Inception's does."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99).standard_normal((dims, dims)))[0]
    return rng.standard_normal((count, dims)) * np.exp(-np.arange(dims) / decay) @ rotation + rng.random(dims)


def statistics(features: np.ndarray) -> Statistics:
    return Statistics(features.mean(axis=0), np.cov(features, rowvar=False), len(features))


def distance_of_data(x: np.ndarray, y: np.ndarray) -> float:
    """The distance without covariances: tr (Σx Σy)^½ is the nuclear norm of XᵀY for centred, scaled data."""
    centred = [(part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in (x, y)]
    nuclear = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + sum((part**2).sum() for part in centred) - 2 * nuclear


def test_equal_statistics_have_distance_zero():
    for count in (200, 10):
        a = statistics(sample(count, 24, 0))
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_diagonal_covariances_have_the_closed_form():
    a = Statistics(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 0.25]))
    b = Statistics(np.array([0.0, 2.0, 5.0]), np.diag([1.0, 16.0, 0.01]))
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2 + (0.5 - 0.1) ** 2, rel=1e-13)


def test_commuting_covariances_have_the_closed_form():
    rng = np.random.default_rng(1)
    vectors = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    first, second = rng.uniform(0.1, 5, 30), rng.uniform(0.1, 5, 30)
    a = Statistics(np.zeros(30), (vectors * first) @ vectors.T)
    b = Statistics(np.zeros(30), (vectors * second) @ vectors.T)
    assert frechet_distance(a, b) == pytest.approx(((np.sqrt(first) - np.sqrt(second)) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [(30, 200), (200, 30), (20, 20), (2, 300)])
def test_covariances_without_full_rank_give_the_distance_of_their_data(first, second):
    x, y = sample(first, 80, 2), 1.1 * sample(second, 80, 3)
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(distance_of_data(x, y), rel=1e-9)


def test_covariances_on_different_axes_have_the_sum_of_their_traces_as_distance():
    a = Statistics(np.zeros(4), np.diag([1.0, 2.0, 0.0, 0.0]))
    b = Statistics(np.zeros(4), np.diag([0.0, 0.0, 3.0, 4.0]))
    assert frechet_distance(a, b) == pytest.approx(10, rel=1e-14)


def test_the_distance_to_a_single_point_is_the_mean_difference_plus_the_trace():
    point = Statistics(np.ones(3), np.zeros((3, 3)))
    assert frechet_distance(point, Statistics(np.zeros(3), 2 * np.eye(3))) == pytest.approx(3 + 6)
    assert frechet_distance(point, Statistics(np.zeros(3), np.zeros((3, 3)))) == pytest.approx(3)


@pytest.mark.parametrize("decay", [5.0, 40.0])
def test_full_rank_distance_equals_that_computed_by_the_matrix_root(decay):
    x, y = sample(600, 100, 4, decay), 0.9 * sample(500, 100, 5, decay)
    a, b = statistics(x), statistics(y)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    difference = a.mean - b.mean
    expected = difference @ difference + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(distance_of_data(x, y), rel=1e-9)


def test_distance_equals_pytorch_fids():
    a, b = statistics(sample(300, 64, 6)), statistics(1.2 * sample(250, 64, 7))
    peer = calculate_frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet_distance(a, b) == pytest.approx(peer, rel=1e-6)


def test_distance_is_symmetric():
    a, b = statistics(sample(40, 64, 8)), statistics(sample(300, 64, 9))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)


@pytest.mark.parametrize("widen", [False, True])
def test_statistics_in_single_precision_give_nearly_the_distance_in_double(widen):
    a, b = statistics(sample(30, 80, 10)), statistics(1.1 * sample(400, 80, 11))
    rough = Statistics(a.mean.astype(np.float32), a.covariance.astype(np.float32))
    if widen:  # single precision that was saved as double
        rough = Statistics(rough.mean.astype(np.float64), rough.covariance.astype(np.float64))
    assert frechet_distance(rough, b) == pytest.approx(frechet_distance(a, b), rel=1e-2)
    assert frechet_distance(rough, rough) == pytest.approx(0, abs=1e-3)


def test_invalid_statistics_are_refused():
    good, bad = Statistics(np.zeros(2), np.eye(2)), Statistics(np.zeros(2), np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match="positive semi-definite"):
        frechet_distance(good, bad)
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(good, Statistics(np.zeros(3), np.eye(3)))
    with pytest.raises(ValueError, match="not finite"):
        Statistics(np.zeros(2), np.array([[1.0, np.nan], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match="expected"):
        Statistics(np.zeros(2), np.eye(3))


@pytest.mark.parametrize("sizes", [[97], [1] * 97, [32, 32, 32, 1], [0, 50, 0, 47]])
def test_running_statistics_equal_numpys_for_any_batches(sizes):
    features = sample(97, 12, 12)
    running = RunningStatistics(12)
    for batch in np.split(features, np.cumsum(sizes)[:-1]):
        running.update(torch.from_numpy(batch))
    result, expected = running.statistics(), statistics(features)
    assert result.count == 97
    np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(result.covariance, expected.covariance, rtol=1e-11, atol=1e-16)


def test_running_statistics_survive_features_far_from_zero():
    features = np.random.default_rng(13).standard_normal((1000, 5)) + 1e7
    running = RunningStatistics(5)
    for batch in np.split(features, 10):
        running.update(torch.from_numpy(batch))
    np.testing.assert_allclose(running.statistics().covariance, np.cov(features, rowvar=False), rtol=1e-7, atol=1e-7)


def test_single_precision_features_are_summed_in_double():
    features = torch.from_numpy(sample(500, 8, 14)).float() + 1000
    running = RunningStatistics(8)
    for batch in features.split(7):
        running.update(batch)
    np.testing.assert_allclose(running.statistics().covariance, np.cov(features.numpy().T.astype(float)), rtol=1e-9)


def test_merged_shards_equal_the_whole_and_the_merged_shard_does_not_change():
    features = torch.from_numpy(sample(90, 10, 15))
    whole, empty = RunningStatistics(10), RunningStatistics(10)
    whole.update(features)
    first, second, third = shards = [RunningStatistics(10) for _ in range(3)]
    for shard, part in zip(shards, features.split([20, 1, 69]), strict=True):
        shard.update(part)
    third_before = third.mean.clone(), third.scatter.clone()
    first.merge(second)
    first.merge(third)
    first.merge(empty)
    empty.merge(first)
    expected = whole.statistics()
    for merged in (first, empty):
        assert merged.count == 90
        np.testing.assert_allclose(merged.statistics().mean, expected.mean, rtol=1e-13)
        np.testing.assert_allclose(merged.statistics().covariance, expected.covariance, rtol=1e-11, atol=1e-16)
    assert torch.equal(third.mean, third_before[0])
    assert torch.equal(third.scatter, third_before[1])


def test_too_few_samples_and_other_dimensions_are_refused():
    running = RunningStatistics(3)
    running.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least 2 samples, not 1"):
        running.statistics()
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        running.update(torch.ones(4, 2))
    with pytest.raises(ValueError, match="cannot be merged"):
        running.merge(RunningStatistics(4))
