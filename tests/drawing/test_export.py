"""tools/export_model.py: the file draws what the run draws, wherever it lies, and says where it comes from."""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
from dataclasses import asdict

import pytest
import torch
from tiny_model import architecture, tiny_config, tiny_model

from clipgan.config import load_config, save_config
from clipgan.data.from_config import data_fingerprint, read_split
from clipgan.data.toy import draw_toy_dataset
from clipgan.drawing.export import drawing_config, model_of_config, without_paths
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import networks_of
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.model_file import read_model
from clipgan.runs.snapshots import save_encoder, save_generator

TEXT = "a small red bird with black wings"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_clip, tiny_clip_config, script):
    """A folder with data, snapshots, a config that evaluates them, and their R-precision.

    The snapshot keeps the config of a training that differs from the evaluation in much.
    """
    folder = tmp_path_factory.mktemp("run")
    draw_toy_dataset(folder / "data", "birds", train=12, test=12, size=32, seed=3)
    model, config = tiny_model(tiny_clip_config), tiny_config()
    save_encoder(folder / "encoder.pth", model.encoder)
    config.DATA_DIR, config.TEXT.CAPTIONS_PER_IMAGE = str(folder / "data"), 10
    extra = {"encoder": fingerprint(model.encoder), "data": data_fingerprint(read_split(config, "train"))}
    trained = copy.deepcopy(config)
    trained.DATA_DIR, trained.TRAIN.CLIP_MODEL_BASE = "data", f"local-dir:{folder}/clip"
    trained.TRAIN.MAX_EPOCH, trained.TRAIN.BATCH_SIZE, trained.TRAIN.PRECISION = 7, 12, "bf16"
    trained.GAN.DF_DIM, trained.DATA.FLIP, trained.TRAIN.GENERATOR_LR = 24, False, 6e-4
    extra["config"] = asdict(trained)
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


def test_the_config_is_that_of_the_training_run(run, script, tmp_path, capsys):
    export(script, run, tmp_path / "m.safetensors")
    said, config = capsys.readouterr().out, read_model(tmp_path / "m.safetensors").config
    assert (config.TRAIN.MAX_EPOCH, config.TRAIN.BATCH_SIZE, config.TRAIN.PRECISION) == (7, 12, "bf16")
    assert (config.GAN.DF_DIM, config.DATA.FLIP, config.TRAIN.GENERATOR_LR) == (24, False, 6e-4)
    assert config.TRAIN.FLAG and config.DATA_DIR == "data" and config.TRAIN.CLIP_MODEL_BASE == "local-dir:clip"
    assert config.image_sizes == [8, 16, 32] and "trained" not in said and "taken for" not in said


def test_captions_read_otherwise_on_purpose_are_so_in_the_file_and_said(run, script, tmp_path, capsys):
    export(script, run, tmp_path / "m.safetensors", "--set", "TEXT.RAW_CAPTIONS=True")
    said, model = capsys.readouterr().out, read_model(tmp_path / "m.safetensors")
    assert "TEXT.RAW_CAPTIONS True, as --set says; the training had False" in said
    assert model.config.TEXT.RAW_CAPTIONS and model.config.TRAIN.MAX_EPOCH == 7
    assert {"a", "bird"} < set(model.vocabulary)  # its data are known again, though read otherwise here


def changed(run, folder, change):
    """A copy of the run with a changed snapshot in ``Model/netG.pth``; returns the flags that name it."""
    content = torch.load(run / "netG.pth", weights_only=True)
    change(content)
    (folder / "Model").mkdir(parents=True)
    torch.save(content, folder / "Model" / "netG.pth")
    return "--NET_G", str(folder / "Model" / "netG.pth")


def test_where_no_snapshot_tells_of_the_training_the_evaluation_does_and_a_line_says_so(run, script, tmp_path, capsys):
    flags = changed(run, tmp_path / "run", lambda content: (content.pop("config"), content.pop("data")))
    export(script, run, tmp_path / "m.safetensors", *flags)
    said, model = capsys.readouterr().out, read_model(tmp_path / "m.safetensors")
    assert "does not say how it was trained: the config is that of the evaluation" in said
    assert "are taken for those of the training" in said and "run.json" in said
    assert model.config.TRAIN.MAX_EPOCH == 800 and model.data_set["images"] == 12


def test_a_config_in_the_snapshot_that_is_none_is_refused(run, script, tmp_path):
    flags = changed(run, tmp_path / "run", lambda content: content["config"]["TRAIN"].update(MAX_EPOCH="seven"))
    with pytest.raises(UserError, match=r"netG\.pth: TRAIN\.MAX_EPOCH must be a whole number"):
        export(script, run, tmp_path / "m.safetensors", *flags)


@pytest.mark.parametrize("source", ["snapshot", "record", "name"])
def test_other_data_than_those_of_the_training_are_neither_named_nor_counted(run, script, tmp_path, capsys, source):
    draw_toy_dataset(tmp_path / "other", "birds", train=4, test=4, size=32, seed=9)
    flags = changed(run, tmp_path / "run", lambda content: source != "snapshot" and content.pop("data"))
    if source == "record":
        content = torch.load(run / "netG.pth", weights_only=True)
        sessions = [{"encoder": "other", "data": {"train": "0" * 16}}, {"encoder": content["encoder"], "data": {}}]
        sessions.append({"encoder": content["encoder"], "data": {"train": content["data"]}})
        (tmp_path / "run" / "run.json").write_text(json.dumps({"sessions": sessions}))
    flags += ("--data_dir", str(tmp_path / "other"))
    if source != "record":
        flags += ("--set", "DATASET_NAME=zeppelins")
    export(script, run, tmp_path / "m.safetensors", *flags)
    said, model = capsys.readouterr().out, read_model(tmp_path / "m.safetensors")
    assert "the words of training are not known" in said and str(tmp_path / "other") in said
    assert model.data_set == {"name": "drawn"} and model.vocabulary == () and "zeppelin" not in model.card
    assert "Trained on drawn." in model.card


def test_the_run_record_tells_that_the_data_are_those_of_the_training(run, script, tmp_path, capsys):
    content = torch.load(run / "netG.pth", weights_only=True)
    flags = changed(run, tmp_path / "run", lambda content: content.pop("data"))
    record = {"sessions": [{"encoder": content["encoder"], "data": {"train": content["data"]}}]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    export(script, run, tmp_path / "m.safetensors", *flags)
    model = read_model(tmp_path / "m.safetensors")
    assert "taken for" not in capsys.readouterr().out and model.data_set["fingerprint"] == content["data"]


def test_data_under_another_name_are_named_as_in_training(run, script, tmp_path):
    export(script, run, tmp_path / "m.safetensors", "--set", "DATASET_NAME=mine")
    model = read_model(tmp_path / "m.safetensors")
    assert model.data_set["name"] == "drawn" and model.data_set["images"] == 12


def test_drawing_by_a_config_reads_neither_scores_nor_weights_again(run, script, tmp_path, monkeypatch):
    args = argparse.Namespace(cfg=str(run / "eval.yml"), set=[], gpu=-1, data_dir=None, NET_G=None, manualSeed=None)
    config = drawing_config(args)
    generator, encoder = networks_of(config)
    monkeypatch.setattr("clipgan.drawing.export.fingerprint", None)
    monkeypatch.setattr("clipgan.drawing.export.scores_beside", None)
    model, said = model_of_config(config, generator, encoder, "birds")
    assert said == [] and model.scores == [] and "bird" in model.vocabulary and model.name == "birds"
    assert model.encoder.sees_images and model.data_set["images"] == 12


DAMAGED = ["", "x", "[1]", "{}", "5", "null", '{"metric": "FID", "value": NaN, "protocol": "x"}', "[" * 100_000]


@pytest.mark.parametrize("content", [*DAMAGED, None])
def test_a_damaged_report_is_left_out_and_said(run, script, tmp_path, capsys, content):
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run" / "netG" / "valid"
    flags = ("--NET_G", str(tmp_path / "run" / "netG.pth"))
    for name in ("fid.json", "inception_score.json"):
        (folder / name).mkdir() if content is None else (folder / name).write_text(content)
    export(script, run, tmp_path / "m.safetensors", *flags)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("a score is left out: ")]
    assert len(lines) == 2 and "fid.json" in lines[0] and "inception_score.json" in lines[1]
    assert len(read_model(tmp_path / "m.safetensors").scores) == 1

    report = json.loads((folder / "r_precision.json").read_text())
    for broken in (content, json.dumps({"generator_fingerprint": report["generator_fingerprint"]})):
        (folder / "r_precision.json").unlink()
        (folder / "r_precision.json").mkdir() if broken is None else (folder / "r_precision.json").write_text(broken)
        export(script, run, tmp_path / "m.safetensors", *flags)
        assert re.search(r"^no scores: .*r_precision\.json", capsys.readouterr().out, re.MULTILINE)
        assert read_model(tmp_path / "m.safetensors").scores == []
        if broken is None:
            (folder / "r_precision.json").rmdir()
            (folder / "r_precision.json").touch()


def test_all_three_reports_are_in_the_file(run, script, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run" / "netG" / "valid"
    fid = {"metric": "FID", "value": 12.5, "notice": "random", "protocol": "as said"}
    (folder / "fid.json").write_text(json.dumps(fid))
    score = {"metric": "Inception Score", "mean": 3.5, "std": 0.25, "notice": None, "protocol": "10 splits"}
    (folder / "inception_score.json").write_text(json.dumps(score))
    export(script, run, tmp_path / "m.safetensors", "--NET_G", str(tmp_path / "run" / "netG.pth"))
    assert read_model(tmp_path / "m.safetensors").scores[1:] == [
        {"name": "FID", "value": 12.5, "notice": "random", "protocol": "as said"},
        {"name": "Inception Score", "value": 3.5, "spread": 0.25, "protocol": "10 splits"},
    ]


def test_no_path_that_leads_elsewhere_is_told(run):
    config = load_config(run / "eval.yml")
    config.DATA_DIR, config.OUTPUT_DIR, config.TRAIN.NET_G = "../mine/birds", "output", "~/models/netG.pth"
    config.TRAIN.CLIP_MODEL_BASE = "hf-hub:some/model"
    told = without_paths(config)
    assert (told.DATA_DIR, told.OUTPUT_DIR, told.TRAIN.NET_G) == ("birds", "output", "netG.pth")
    assert told.TRAIN.CLIP_MODEL_BASE == "hf-hub:some/model" and told.TRAIN.CLIP_MODEL_CHECKPOINT == "encoder.pth"


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
        (("--name", "x" * 201), "--name must be a line of 1 to 200 characters, not 'xxx"),
        (("--name", "two\nlines"), "--name must be a line"),
        (("--name", ""), "--name must be a line"),
        (("--out", f"{'x' * 201}.safetensors"), "--name must be a line .*; without it, the name is that of --out"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(run, script, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        export(script, run, "m.safetensors", *flags)
    assert not list(tmp_path.iterdir())
