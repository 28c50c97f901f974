"""The first lines of a run say which CLIP it uses, from where, with which activation and image statistics."""

import pytest
import torch
from tiny_clips import HALF, changed, json_file, open_clips

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import encoder_of
from clipgan.evaluation.measure import load_judges
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.snapshots import save_encoder


@pytest.fixture
def files(tmp_path):
    torch.save(open_clips().state_dict(), tmp_path / "w.pt")
    return json_file(tmp_path, changed(quick_gelu=...)), str(tmp_path / "w.pt")


def said(base, weights, **keys):
    config = Config()
    config.TRAIN.CLIP_MODEL_BASE, config.TRAIN.CLIP_PRETRAINED, config.TEXT.WORDS_NUM = base, weights, 12
    for section in (config.TRAIN, config.EVAL.JUDGE):
        for key, value in keys.items():
            setattr(section, key, value)
    config.EVAL.JUDGE.CLIP_MODEL_BASE, config.EVAL.JUDGE.CLIP_PRETRAINED = base, weights
    return config


def test_main_says_its_encoder_and_its_judge(files, capsys):
    config = said(*files, CLIP_ACTIVATION="quick_gelu", CLIP_MEAN=HALF)
    encoder = encoder_of(config)
    load_judges(config, encoder, torch.device("cpu"))
    lines = capsys.readouterr().out.splitlines()
    settings = "activation quick_gelu; image mean 0.5/0.5/0.5, std 0.2686/0.2613/0.2758"
    line = f"CLIP tiny: weights from {files[1]}; {settings}"
    assert lines[-2:] == [line, f"judge: {line}"]


def test_keys_of_the_judge_are_asked_for_by_their_names(files):
    with pytest.raises(UserError, match=r"EVAL\.JUDGE\.CLIP_ACTIVATION"):
        load_judges(said(*files), build_encoder(files[0], "", 12), torch.device("cpu"))


def test_pretraining_says_its_encoder_before_it_reads_the_data(script, files, tmp_path, capsys):
    save_encoder(tmp_path / "e.pth", build_encoder(files[0], files[1], 12, activation="gelu"))
    with pytest.raises(UserError):  # no data
        script("pretrain_DAMSM.py").main(
            ["--cfg", "cfg/toy/DAMSM.yml", "--gpu", "-1", "--data_dir", str(tmp_path / "nowhere"), "--set",
             f"TRAIN.CLIP_MODEL_CHECKPOINT={tmp_path / 'e.pth'}", f"TRAIN.CLIP_MODEL_BASE={files[0]}",
             "TEXT.WORDS_NUM=12", "TEXT.EMBEDDING_DIM=16", f"OUTPUT_DIR={tmp_path}"]
        )  # fmt: skip
    assert f"CLIP tiny: weights from {tmp_path / 'e.pth'}; activation gelu; image mean" in capsys.readouterr().out
