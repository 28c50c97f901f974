"""``tools/score.py``: all scores from one pass, equal to those of other scripts, beside what real images score."""

import json
import math
import re

import pytest
from PIL import Image
from tiny_project import Project, make_project

from clipgan.config import load_config
from clipgan.errors import UserError
from clipgan.evaluation import real_features
from clipgan.evaluation.comparing import read_scores
from clipgan.evaluation.metrics import registry
from clipgan.evaluation.unfinished import REPORTS
from clipgan.flags import run_script


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_clip):
    return make_project(tmp_path_factory.mktemp("scoring"), tiny_clip, train=24, test=24, images=32)


@pytest.fixture(scope="module")
def reports(made):
    """What each test may look at: written by the first test."""
    return {}


@pytest.fixture
def project(made, script) -> Project:
    return Project(made, script)


@pytest.fixture
def weights(fid_weights, score_weights) -> list[str]:
    return ["--weights", str(fid_weights), "--is_weights", str(score_weights)]


@pytest.fixture
def scored(project, reports, weights) -> dict:
    """Everything measured once for all tests of this file."""
    if not reports:
        reports["r_precision"] = project.sample()
        reports["all"] = project.score(*weights)
    return reports["all"]


def row(report: dict, metric: str) -> dict:
    return next(score for score in report["scores"] if score["metric"] == metric)


def test_all_scores_are_measured_once_each_in_the_order_of_the_registry(scored, project):
    assert [score["metric"] for score in scored["scores"]] == list(registry.cards())
    assert scored["left_out"] == []
    assert read_scores(project.valid / "scores.json") == scored
    assert scored["generated"]["count"] == 32 and scored["reference"]["images"] == 24
    assert scored["networks"]["inception"]["dims"] == 64 and scored["networks"]["probabilities"]["classes"] == 7
    for score in scored["scores"]:
        low, high = score["interval"]
        card = registry.cards()[score["metric"]]
        assert (low <= score["value"] <= high and low < high) or score["value"] in (card.lowest, card.highest)
        assert math.isfinite(score["value"])


def test_the_scripts_that_measure_one_score_say_the_same(scored, reports, project, weights, fid_weights, score_weights):
    (judged,) = reports["r_precision"]["judges"]
    for key, name in (("value", "generated"), ("real", "real"), ("chance", None)):
        expected = judged["chance"] if name is None else judged[name]["mean"]
        assert row(scored, "r_precision")[key] == expected
    attributes = reports["r_precision"]["attributes"]
    for metric, key in (("attributes", "mean"), ("birds_found", "found")):
        assert row(scored, metric)["value"] == pytest.approx(attributes["generated"][key], rel=1e-12)
        assert row(scored, metric)["real"] == pytest.approx(attributes["real"][key], rel=1e-12)
    assert row(scored, "fid")["value"] == pytest.approx(project.fid(fid_weights)["value"], rel=1e-6)
    project._script("inception_score.py").main(project.flags("--weights", str(score_weights)))
    expected = project.report("inception_score")
    assert row(scored, "inception_score")["value"] == pytest.approx(expected["mean"], rel=1e-6)
    assert row(scored, "inception_score")["details"]["std"] == pytest.approx(expected["std"], rel=1e-4)


def test_real_images_stand_beside_the_generated_ones(scored):
    for metric in ("kid", "fid", "cmmd"):  # an untrained generator is far from what training images are
        assert row(scored, metric)["real"] < row(scored, metric)["value"]
    assert row(scored, "attributes")["real"] > 0.9 > row(scored, "attributes")["value"]
    assert row(scored, "duplicates")["real"] is None


def test_the_nearest_pairs_are_drawn_and_a_new_sampling_removes_the_scores(scored, project):
    pairs = row(scored, "duplicates")["details"]["nearest"]
    assert len(pairs) == 16 and all(0 <= ours < 32 and 0 <= train < 24 for ours, train, _ in pairs)
    with Image.open(project.valid / "nearest.png") as sheet:
        assert sheet.height > 16 * 100
    assert {"scores.json", "nearest.png"} <= set(REPORTS)


def test_what_is_known_of_real_images_is_not_computed_again(scored, project, made, fid_weights, monkeypatch, capsys):
    kept = sorted((made / "output" / "features").iterdir())
    assert len(kept) == 5  # Inception and the judge of both splits, the classifier of one
    collect, passes = real_features.collect, []

    def counting(items, load, extractors, *arguments):
        passes.append([extractor.name for extractor in extractors])
        return collect(items, load, extractors, *arguments)

    monkeypatch.setattr(real_features, "collect", counting)
    again = project.score("--metrics", "kid", "density", "--weights", str(fid_weights))
    assert [score["metric"] for score in again["scores"]] == ["kid", "density"]
    assert row(again, "kid")["value"] == row(scored, "kid")["value"]
    assert all(not names for names in passes)
    (inception,) = (path for path in kept if "train_inception" in path.name)
    whole = inception.read_bytes()
    inception.write_bytes(whole[:-50])
    again = project.score("--metrics", "kid", "duplicates", "--weights", str(fid_weights))
    assert "computed again" in capsys.readouterr().out
    assert passes[-1] == ["inception"] and inception.read_bytes() == whole


def test_a_protocol_may_demand_images_and_weights(project, scored, weights):
    config = load_config(project.config)
    assert config.EVAL.NUM_IMAGES == 32
    with pytest.raises(UserError, match="protocol dmgan takes published weights"):
        project.score("--protocol", "dmgan", "--weights", "random")
    with pytest.raises(UserError, match=r"there is no.*protocol|protocol.*here"):
        project.score("--protocol", "nowhere")


def test_wrong_names_and_impossible_scores_are_one_line(project, script, run, tmp_path, capsys):
    main = script("tools/score.py").main
    for flags, said in (
        (project.flags("--metrics", "sfid"), r"--metrics: there is no score 'sfid': it can be one of r_precision,"),
        (["--path2", "there"], "--path2 goes with --path1"),
        (["--path1", str(run["generated"]), "--path2", str(tmp_path / "none"), "--gpu", "-1"], "no folder of images"),
        (["--path1", "a", "--path2", "b", "--cfg", "c"], "--path2 needs no config: leave out --cfg"),
        (["--cfg", str(run["config"]), "--metrics", "attributes", "--gpu", "-1"], "only the drawn data set has an"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_script(lambda flags=flags: main(flags))
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and re.search(said, error), error


def test_two_folders_are_compared_without_a_config(script, pictures, tmp_path, fid_weights, tiny_clip, capsys):
    folders = [tmp_path / name for name in ("ours", "real")]
    for seed, folder in enumerate(folders):
        for number in range(12):
            pictures(folder / f"{number}.png", 100 * seed + number, (30 + number, 40))
    written = tmp_path / "out" / "scores.json"
    flags = ["--path1", str(folders[0]), "--path2", str(folders[1]), "--gpu", "-1", "--dims", "64"]
    flags += ["--weights", str(fid_weights), "--workers", "0", "--output", str(written)]
    judged = ["--set", f"EVAL.JUDGE.CLIP_MODEL_BASE={tiny_clip}"]
    script("tools/score.py").main([*flags, "--metrics", "kid", "recall", "cmmd", *judged])
    report = json.loads(written.read_text())
    assert [score["metric"] for score in report["scores"]] == ["kid", "cmmd", "recall"]
    assert report["reference"]["images"] == 12 and len(report["reference"]["files"]) == 16
    assert report["networks"]["judges"][0]["trained_the_generator"] is False
    assert "12 images in" in capsys.readouterr().out
    with pytest.raises(UserError, match="cmmd cannot be measured: no encoder judges"):
        script("tools/score.py").main([*flags, "--metrics", "cmmd"])


def test_what_cannot_be_measured_is_left_out_and_said(script, run, fid_weights, score_weights, tiny_clip, capsys):
    settings = ["--set", f"TRAIN.CLIP_MODEL_BASE={tiny_clip}", "TRAIN.CLIP_PRETRAINED=''"]
    weights = ["--weights", str(fid_weights), "--is_weights", str(score_weights), "--dims", "64"]
    script("tools/score.py").main(["--cfg", str(run["config"]), "--gpu", "-1", *weights, *settings])
    report = json.loads((run["net_g"].with_suffix("") / "valid" / "scores.json").read_text())
    reasons = {line.partition(":")[0]: line for line in report["left_out"]}
    assert set(reasons) >= {"attributes, birds_found", "fid_infinity", "inception_score", "duplicates"}
    assert "needs at least 10 images, not 6" in reasons["inception_score"]
    assert "left out: duplicates: " in capsys.readouterr().out
    assert "train/filenames.pickle" in reasons["duplicates"]
    assert all(score["real"] is None for score in report["scores"] if score["metric"] in ("fid", "kid"))
    assert {"fid", "kid", "precision", "clip_score"} <= {score["metric"] for score in report["scores"]}
