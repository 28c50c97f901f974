"""tools/export_model.py: the file draws what the run draws, wherever it lies, and says where it comes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from tiny_model import architecture, tiny_config, tiny_model

from clipgan.config import save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.model_file import read_model
from clipgan.runs.snapshots import save_encoder, save_generator

TEXT = "a small red bird with black wings"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_clip, tiny_clip_config, script):
    """A folder with data, snapshots, a config that evaluates them, and their R-precision."""
    folder = tmp_path_factory.mktemp("run")
    draw_toy_dataset(folder / "data", "birds", train=12, test=12, size=32, seed=3)
    model, config = tiny_model(tiny_clip_config), tiny_config()
    save_encoder(folder / "encoder.pth", model.encoder)
    extra = {"encoder": fingerprint(model.encoder), "config": asdict(config)}
    save_generator(folder / "netG.pth", model.generator, architecture(config, model.encoder), **extra)
    config.DATA_DIR, config.OUTPUT_DIR, config.WORKERS, config.GPU_ID = str(folder / "data"), str(folder), 0, -1
    config.TRAIN.FLAG, config.B_VALIDATION, config.EVAL.NUM_IMAGES = False, True, 12
    config.TRAIN.NET_G, config.TRAIN.CLIP_MODEL_CHECKPOINT = str(folder / "netG.pth"), str(folder / "encoder.pth")
    config.TRAIN.CLIP_MODEL_BASE = str(tiny_clip)
    save_config(config, folder / "eval.yml")
    script("main.py").main(["--cfg", str(folder / "eval.yml")])
    return folder


def export(script, run, out, *flags):
    script("tools/export_model.py").main(["--cfg", str(run / "eval.yml"), "--out", str(out), *flags])


def draw(script, out, *flags):
    script("main.py").main([*flags, "--text", TEXT, "--count", "2", "--seed", "4", "--gpu", "-1", "--out", str(out)])
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_file_draws_what_the_run_draws_also_from_another_folder(run, script, tmp_path, monkeypatch):
    export(script, run, tmp_path / "one" / "birds.safetensors")
    from_run = draw(script, tmp_path / "a", "--cfg", str(run / "eval.yml"))
    from_file = draw(script, tmp_path / "b", "--model", str(tmp_path / "one" / "birds.safetensors"))
    (tmp_path / "two").mkdir()
    shutil.move(tmp_path / "one" / "birds.safetensors", tmp_path / "two" / "others.safetensors")
    monkeypatch.chdir(tmp_path / "two")
    moved = draw(script, tmp_path / "c", "--model", "others.safetensors")
    assert len(from_run) == 4 and from_run == from_file == moved


def test_it_says_where_it_comes_from_and_tells_no_path(run, script, tmp_path, capsys):
    (tmp_path / "words.md").write_text("Made for a test.")
    path = tmp_path / "birds.safetensors"
    export(script, run, path, "--name", "Toy birds", "--card", str(tmp_path / "words.md"))
    said, model = capsys.readouterr().out, read_model(path)
    assert "without the encoder's image side, 1 score" in said and not model.encoder.sees_images
    report = json.loads((run / "netG" / "valid" / "r_precision.json").read_text())
    (score,) = model.scores
    assert score["value"] == report["judges"][0]["generated"]["mean"] and report["protocol"] in score["protocol"]
    assert "trained the generator" in score["protocol"]
    assert model.data_set["images"] == 12 and len(model.data_set["fingerprint"]) == 16
    assert {"a", "bird"} < set(model.vocabulary) and list(model.vocabulary) == sorted(set(model.vocabulary))
    assert model.name == "Toy birds" and "Made for a test." in model.card and "R-precision" in model.card
    assert model.fingerprints["generator"] == report["generator_fingerprint"]
    assert str(run).encode() not in path.read_bytes() and "torch" in model.versions


def test_with_judge_keeps_the_image_side(run, script, tmp_path):
    export(script, run, tmp_path / "small.safetensors")
    export(script, run, tmp_path / "whole.safetensors", "--with-judge")
    whole = read_model(tmp_path / "whole.safetensors")
    assert whole.encoder.sees_images and fingerprint(whole.encoder) == whole.fingerprints["encoder"]
    assert (tmp_path / "small.safetensors").stat().st_size < (tmp_path / "whole.safetensors").stat().st_size


def test_scores_of_other_weights_and_missing_data_are_left_out_and_said(run, script, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    content = torch.load(run / "netG.pth", weights_only=True)
    content["weights"]["heads.0.conv.weight"] *= 2
    torch.save(content, tmp_path / "run" / "netG.pth")
    flags = ("--NET_G", str(tmp_path / "run" / "netG.pth"), "--data_dir", str(tmp_path / "none"))
    export(script, run, tmp_path / "m.safetensors", *flags)
    said, model = capsys.readouterr().out, read_model(tmp_path / "m.safetensors")
    assert "are of other weights" in said and "the words of training are not known" in said
    assert model.scores == [] and model.vocabulary == ()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--out", "m.pth"), "must end in"),
        (("--set", "TRAIN.NET_G="), "TRAIN.NET_G is empty"),
        (("--NET_G", "none.pth"), "none.pth"),
        (("--card", "none.md"), "none.md"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(run, script, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        export(script, run, "m.safetensors", *flags)
    assert not list(tmp_path.iterdir())
