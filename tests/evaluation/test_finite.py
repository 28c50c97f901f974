"""A number that is not finite is an error that names what made it, never a score."""

import numpy as np
import pytest
import torch

from clipgan.errors import UserError
from clipgan.evaluation.features import probabilities_of_files, statistics_of_files
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.inception import load_fid_network, load_score_network
from clipgan.evaluation.metrics.frechet import Statistics, frechet_distance
from clipgan.evaluation.metrics.inception_score import inception_score
from clipgan.evaluation.metrics.r_precision import retrieval_hits

BROKEN = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture
def files(tmp_path, pictures):
    return [pictures(tmp_path / f"{number}.png", number) for number in range(4)]


@pytest.mark.parametrize("value", BROKEN)
def test_a_report_names_the_number_that_is_not_finite(value):
    with pytest.raises(UserError, match=r"FID: judges\[1\]\.real\.mean is -?(nan|inf)"):
        require_finite({"a": 1.0, "judges": [{"real": {"mean": 2.0}}, {"real": {"mean": value}}]}, "FID")
    require_finite({"a": 10**400, "b": None, "c": "nan", "d": [1.0, True]}, "FID")


@pytest.mark.parametrize("value", BROKEN[:2])
def test_features_that_are_not_finite_name_the_images_and_the_weights(files, fid_weights, value):
    network = load_fid_network(str(fid_weights), 64)
    with torch.no_grad():
        next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)).bias.fill_(value)
    with pytest.raises(UserError, match=r"features of images such as .*0\.png are not finite: .*fid\.pth.*--weights"):
        statistics_of_files(files, network, 2, 0)


def test_probabilities_that_are_not_finite_name_the_images_and_the_weights(files, score_weights):
    network = load_score_network(str(score_weights))
    with torch.no_grad():
        network.inception.fc.bias.fill_(float("inf"))
    with pytest.raises(UserError, match=r"probabilities of images such as .*0\.png are not finite: .*score\.pth"):
        probabilities_of_files(files, network, 2, 0)


def test_finite_weights_that_overflow_are_an_error_of_the_scripts(script, files, tmp_path, fid_weights):
    state = torch.load(fid_weights, weights_only=True)
    state["Conv2d_1a_3x3.conv.weight"] *= 1e38
    torch.save(state, tmp_path / "large.pth")
    folder = str(files[0].parent)
    with pytest.raises(UserError, match=r"not finite.*large\.pth"):
        flags = ["--dims", "192", "--gpu", "-1", "--weights", str(tmp_path / "large.pth")]
        script("fid_score.py").main(["--path1", folder, "--path2", folder, *flags])
    (tmp_path / "large.pth").unlink()


@pytest.mark.parametrize("scale", [1e160, 1e200, 1e308])
@pytest.mark.parametrize("where", ["mean", "covariance", "both"])
def test_statistics_whose_distance_overflows_have_none(script, tmp_path, recwarn, scale, where):
    mean = np.full(3, scale if where != "covariance" else 1.0)
    covariance = np.eye(3) * (scale if where != "mean" else 1.0) + np.eye(3)[::-1] * scale * (where == "covariance") / 4
    large, small = Statistics(mean, covariance), Statistics(np.zeros(3), np.eye(3) * 1e150)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(Statistics(-mean, covariance), large)
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    np.savez(paths[0], mu=-large.mean, sigma=large.covariance)
    np.savez(paths[1], mu=large.mean, sigma=large.covariance)
    with pytest.raises(UserError, match=r"a\.npz against .*b\.npz: the distance is not finite"):
        script("fid_score.py").main(["--path1", str(paths[0]), "--path2", str(paths[1]), "--gpu", "-1"])
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]
    assert frechet_distance(small, small) >= 0


@pytest.mark.parametrize("value", [*BROKEN, -0.1, 2.0])
def test_the_inception_score_takes_probabilities_only(value):
    probabilities = np.full((6, 4), 0.25)
    probabilities[2, 1] = value
    with pytest.raises(ValueError, match="probabilities"):
        inception_score(probabilities, 2)


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("side", [0, 1])
def test_retrieval_refuses_features_that_are_not_finite(value, side):
    features = [torch.randn(6, 4), torch.randn(6, 4)]
    features[side][4, 2] = value
    own = torch.arange(6)
    with pytest.raises(UserError, match="features are not finite"):
        retrieval_hits(*features, own, own, own)
