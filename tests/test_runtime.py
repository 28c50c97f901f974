"""Devices, run folders and error lines."""

import json

import pytest
import torch

from clipgan import runtime
from clipgan.config import Config, load_config
from clipgan.errors import UserError


def test_a_users_mistake_is_one_line_and_exit_status_2(capsys):
    def main():
        raise UserError("no config file at x.yml")

    with pytest.raises(SystemExit) as caught:
        runtime.run_script(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no config file at x.yml\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        runtime.run_script(lambda: 1 / 0)


@pytest.mark.parametrize(("count", "expected"), [(0, "no CUDA device"), (1, "one CUDA device"), (2, "0 to 1")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, count, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"--gpu 3: .*{expected}"):
        runtime.choose_device(3)


def test_the_cpu_is_taken_silently_when_asked_for_and_with_a_line_when_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.choose_device(-1).type == "cpu"
    assert runtime.choose_device(0, use_cuda=False).type == "cpu"
    assert capsys.readouterr().out == ""
    assert runtime.choose_device(None).type == "cpu"
    assert "computing on the CPU" in capsys.readouterr().out


def test_an_earlier_run_is_moved_aside_and_the_config_of_the_new_one_runs_again(tmp_path, capsys):
    config = Config(OUTPUT_DIR=str(tmp_path), CONFIG_NAME="x", DATASET_NAME="birds")
    first = runtime.RunFolder.create(config)
    (first.models / "netG_epoch_1.pth").write_text("precious")
    second = runtime.RunFolder.create(config)
    assert first.root == second.root == tmp_path / "birds_x"
    assert not list(second.models.iterdir())
    kept = [path for path in tmp_path.iterdir() if path.name != "birds_x"]
    assert len(kept) == 1 and (kept[0] / "Model" / "netG_epoch_1.pth").read_text() == "precious"
    assert "is now in" in capsys.readouterr().out
    assert load_config(second.config) == config


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores" / "fid.json"
    runtime.write_json(path, {"value": 1.5})
    with pytest.raises(TypeError):
        runtime.write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1.5}
    assert [file.name for file in path.parent.iterdir()] == ["fid.json"]


def test_flags_override_the_config(tmp_path):
    import argparse

    (tmp_path / "run.yml").write_text("SEED: 1\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg")
    runtime.add_common_flags(parser)
    flags = ["--cfg", str(tmp_path / "run.yml"), "--gpu", "-1", "--data_dir", "d", "--NET_G", "g.pth"]
    flags += ["--manualSeed", "7", "--set", "TRAIN.BATCH_SIZE=4", "WORKERS=0", "--set", "SEED=9"]
    config = runtime.config_from_flags(parser.parse_args(flags))
    assert (config.GPU_ID, config.DATA_DIR, config.TRAIN.NET_G) == (-1, "d", "g.pth")
    assert (config.SEED, config.TRAIN.BATCH_SIZE, config.WORKERS) == (7, 4, 0)
