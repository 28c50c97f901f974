"""Duplicates, images of one colour and images of another size are reported beside every score of a folder."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from clipgan.errors import UserError
from clipgan.evaluation.features import probabilities_of_files, statistics_of_files
from clipgan.evaluation.image_facts import ImageFacts, fact_of
from clipgan.evaluation.image_files import list_images
from clipgan.evaluation.inception import load_fid_network, load_score_network
from clipgan.machine import distributed


@pytest.fixture
def odd(run, pictures):
    """The generated images of ``run``, and among them 2 repeated, 1 black and 1 larger one."""
    folder = run["generated"]
    first = list_images(folder)[0]
    shutil.copy(first, folder / "x_again.png")
    with Image.open(first) as image:  # other bytes, the same pixels
        image.save(folder / "x_once_more.bmp")
    Image.new("RGB", (32, 32), (0, 0, 0)).save(folder / "y_black.png")
    pictures(folder / "z_larger.png", 7, (48, 32))
    return folder


EXPECTED = {"duplicates": 2, "constant": 1, "other_size": 1, "size": [32, 32]}
WARNINGS = (
    "2 of the 10 images in {} are duplicates of others, pixel for pixel "
    "(x_again.png is 000.Species/photo_0_0.png again)",
    "1 of the 10 images in {} are constant: all pixels have one colour (y_black.png, for example)",
    "1 of the 10 images in {} have another size than 32 x 32 pixels (z_larger.png has 48 x 32, for example)",
)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_fid_and_inception_score_of_a_run_report_what_is_odd(
    script, run, odd, fid_weights, score_weights, capsys, workers
):
    flags = ["--cfg", str(run["config"]), "--gpu", "-1", "--batch_size", "2", "--workers", workers]
    script("fid_score.py").main([*flags, "--weights", str(fid_weights), "--dims", "64"])
    report = json.loads((odd.parent / "fid.json").read_text())
    found = [(report["generated"], report["warnings"], capsys.readouterr().err)]
    assert "duplicates" not in report["real"]
    script("inception_score.py").main([*flags, "--weights", str(score_weights), "--splits", "2"])
    report = json.loads((odd.parent / "inception_score.json").read_text())
    found.append((report["images"], report["warnings"], capsys.readouterr().err))
    for images, warnings, printed in found:
        assert images | EXPECTED == images
        assert images["examples"] == {
            "duplicates": ["000.Species/photo_0_0.png", "x_again.png"],
            "constant": "y_black.png",
            "other_size": ["z_larger.png", [48, 32]],
        }
        for warning in WARNINGS:
            assert any(line.startswith(warning.format(odd)) for line in warnings)
            assert f"warning: {warning.format(odd)}" in printed


def test_folders_report_it_for_both_sides_and_say_nothing_of_good_ones(
    script, run, odd, fid_weights, tmp_path, pictures, capsys
):
    for number in range(6):
        pictures(tmp_path / "good" / f"{number}.png", 50 + number, (40 + number, 30))  # photographs of all sizes
    output = tmp_path / "fid.json"
    flags = ["--weights", str(fid_weights), "--dims", "64", "--gpu", "-1", "--output", str(output)]
    script("fid_score.py").main(["--path1", str(tmp_path / "good"), "--path2", str(odd), *flags])
    report = json.loads(output.read_text())
    good = {"duplicates": 0, "constant": 0, "other_size": 0, "size": None, "examples": {}}
    assert report["generated"] | good == report["generated"]
    assert report["real"] | EXPECTED == report["real"]
    assert not any("good" in warning and "rank" not in warning for warning in report["warnings"])


def test_images_of_a_run_that_all_have_another_size_than_the_config_s_are_told(script, run, fid_weights, capsys):
    flags = ["--cfg", str(run["config"]), "--gpu", "-1", "--weights", str(fid_weights), "--dims", "64"]
    script("fid_score.py").main([*flags, "--set", "TREE.BRANCH_NUM=3"])
    assert "6 of the 6 images" in (warning := capsys.readouterr().err)
    assert "have another size than 64 x 64 pixels" in warning


def test_facts_tell_images_apart_by_pixels_and_shape_only():
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    reshaped = Image.fromarray(noise.reshape(8, 4, 3))
    changed = noise.copy()
    changed[3, 7, 2] ^= 1
    facts = [fact_of(image), fact_of(image.copy()), fact_of(reshaped), fact_of(Image.fromarray(changed))]
    assert facts[0] == facts[1]
    assert len({fact.digest for fact in facts}) == 3
    assert not any(fact.constant for fact in facts)
    assert fact_of(Image.new("RGB", (4, 4), (1, 2, 3))).constant


def test_the_facts_of_several_processes_come_in_the_order_of_the_files(monkeypatch, tmp_path):
    facts = [fact_of(Image.new("RGB", (4, 4), (value, 0, 0))) for value in (1, 2, 3, 1)]
    joined = ImageFacts()
    joined.add(facts[::2])
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [value, facts[1::2]])
    joined.join()
    found, _ = joined.report(tmp_path, [tmp_path / name for name in "abcd"])
    assert (found["duplicates"], found["examples"]["duplicates"]) == (1, ["a", "d"])


def test_names_that_are_no_text_are_reported_as_text(script, run, fid_weights):
    first = list_images(run["generated"])[0]
    shutil.copy(first, run["generated"] / "again_\udcff.png")
    flags = ["--cfg", str(run["config"]), "--gpu", "-1", "--weights", str(fid_weights), "--dims", "64"]
    script("fid_score.py").main(flags)
    report = json.loads((run["generated"].parent / "fid.json").read_text())
    assert report["generated"]["examples"]["duplicates"][1].startswith("again_")


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_vanish_or_are_cut_while_they_are_scored_are_named(run, fid_weights, score_weights, workers):
    files = list_images(run["generated"])
    files[3].write_bytes(files[3].read_bytes()[:-40])
    with pytest.raises(UserError, match=rf"{files[3]}"):
        statistics_of_files(files, load_fid_network(str(fid_weights), 64), 2, workers)
    files[3].unlink()
    with pytest.raises(UserError, match=rf"{files[3]}"):
        probabilities_of_files(files, load_score_network(str(score_weights)), 2, workers)


def test_a_large_image_is_resized_colour_by_colour_to_the_same_features(tmp_path, pictures, fid_weights, monkeypatch):
    files = [pictures(tmp_path / f"{number}.png", number, (400, 310)) for number in range(2)]
    network = load_fid_network(str(fid_weights), 64)
    expected = statistics_of_files(files, network, 2, 0)
    monkeypatch.setattr("clipgan.evaluation.image_pass._MANY_PIXELS", 1000)
    found = statistics_of_files(files, network, 2, 0)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-6)
