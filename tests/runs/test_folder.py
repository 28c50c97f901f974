"""Run folders, and the JSON that scores leave."""

import json

import pytest

from clipgan.config import Config, load_config
from clipgan.runs.folder import RunFolder
from clipgan.runs.report import write_json


def test_an_earlier_run_is_moved_aside_and_the_config_of_the_new_one_runs_again(tmp_path, capsys):
    config = Config(OUTPUT_DIR=str(tmp_path), CONFIG_NAME="x", DATASET_NAME="birds")
    first = RunFolder.create(config)
    (first.models / "netG_epoch_1.pth").write_text("precious")
    second = RunFolder.create(config)
    assert first.root == second.root == tmp_path / "birds_x"
    assert not list(second.models.iterdir())
    kept = [path for path in tmp_path.iterdir() if path.name != "birds_x"]
    assert len(kept) == 1 and (kept[0] / "Model" / "netG_epoch_1.pth").read_text() == "precious"
    assert "is now in" in capsys.readouterr().out
    assert load_config(second.config) == config


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores" / "fid.json"
    write_json(path, {"value": 1.5})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1.5}
    assert [file.name for file in path.parent.iterdir()] == ["fid.json"]
