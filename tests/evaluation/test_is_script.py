"""``inception_score.py`` as a user calls it, on made-up pictures."""

import json

import pytest

from clipgan.errors import UserError
from clipgan.evaluation.features import probabilities_of_files
from clipgan.evaluation.image_files import list_images
from clipgan.evaluation.inception import load_score_network
from clipgan.evaluation.metrics.inception_score import inception_score


@pytest.fixture
def main(script):
    return script("inception_score.py").main


def test_generated_images_are_scored_and_the_result_kept_beside_them(main, run, score_weights, capsys):
    flags = [*("--cfg", str(run["config"]), "--gpu", "-1"), *("--weights", str(score_weights), "--splits", "2")]
    main([*flags, "--batch_size", "4"])
    path = run["net_g"].with_suffix("") / "valid" / "inception_score.json"
    report = json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert printed.startswith(f"Inception Score {report['mean']:.4f} ± {report['std']:.4f} over 2 splits\n")
    assert f"6 images, {run['generated']}" in printed
    assert f"written to {path}" in printed

    network = load_score_network(str(score_weights))
    probabilities = probabilities_of_files(list_images(run["generated"]), network, 6, 0)
    expected = inception_score(probabilities, 2, shuffle_seed=100)
    assert (report["mean"], report["std"]) == pytest.approx(expected, rel=1e-4)
    assert report["mean"] > 1.001
    assert (report["classes"], report["splits"], report["images"]["count"], report["seed"]) == (7, 2, 6, 100)
    assert report["weights"]["source"] == str(score_weights)
    assert report["generator"] == str(run["net_g"])
    assert "torchvision" in report["versions"]


def test_a_folder_needs_no_config_and_random_weights_are_announced(main, run, tmp_path, capsys):
    output = tmp_path / "score.json"
    flags = ["--path", str(run["generated"]), "--weights", "random", "--splits", "1", "--gpu", "-1"]
    main([*flags, "--output", str(output)])
    first = capsys.readouterr().out.splitlines()[0]
    assert "only with itself" in first
    report = json.loads(output.read_text())
    assert "only with itself" in report["notice"]
    assert report["classes"] == 1000
    assert 1.001 < report["mean"] < 6
    assert not (run["generated"].parent / "inception_score.json").exists()


def test_invalid_requests_are_refused_before_a_network_is_loaded(main, run, tmp_path):
    weights = ["--weights", str(tmp_path / "none.pth"), "--gpu", "-1"]
    with pytest.raises(UserError, match="holds 6 images, fewer than --splits 10"):
        main(["--cfg", str(run["config"]), *weights])
    with pytest.raises(UserError, match="--splits must be at least 1"):
        main(["--cfg", str(run["config"]), *weights, "--splits", "0"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no images in"):
        main(["--path", str(empty), *weights])
    with pytest.raises(UserError, match="no folder of images at nowhere"):
        main(["--path", "nowhere", *weights])
    with pytest.raises(UserError, match="--path needs no config: leave out --cfg, --NET_G"):
        main(["--path", str(empty), "--cfg", str(run["config"]), "--NET_G", "x.pth", *weights])
    with pytest.raises(UserError, match="nothing to score"):
        main(weights)
    with pytest.raises(UserError, match=r"no generated images in .*other.valid.single: .* `python main\.py --cfg"):
        main(["--cfg", str(run["config"]), "--NET_G", str(tmp_path / "other.pth"), *weights])
    with pytest.raises(UserError, match=r"none\.pth"):
        main(["--cfg", str(run["config"]), *weights, "--splits", "2"])
