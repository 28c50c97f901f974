"""The four scripts from end to end, on a small drawn data set in all three layouts, with the shipped configs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.config import load_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs import checkpoint
from clipgan.runs.snapshots import load_generator, save_encoder

ROOT = Path(__file__).resolve().parents[1]
TEN_COMMANDS = """
python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml --gpu 0
python pretrain_DAMSM.py --cfg cfg/DAMSM/coco.yml --gpu 0
python main.py --cfg cfg/clip_bird_DMGAN.yml --gpu 0
python main.py --cfg cfg/clip_coco_DMGAN.yml --gpu 0
python main.py --cfg cfg/eval_clip_bird.yml
python main.py --cfg cfg/eval_clip_coco.yml
python fid_score.py --data bird --dims 2048 --batch_size 32
python fid_score.py --data coco --dims 2048 --batch_size 32
python inception_score.py --data bird
python inception_score.py --data coco
""".strip().splitlines()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


class Project:
    """A folder with data in which the scripts run with tiny networks."""

    def __init__(self, folder: Path, layout: str, clip: Path, script):
        self.folder, self.layout, self._script = folder, layout, script
        self.data = folder / "data"
        draw_toy_dataset(self.data, layout, train=24, test=12, size=32, seed=3)
        self.name = {"birds": "birds", "coco": "coco", "manifest": "mine"}[layout]
        self.tiny = [
            f"OUTPUT_DIR={folder / 'output'}",
            f"DATASET_NAME={self.name}",
            "TRAIN.BATCH_SIZE=6",
            "TRAIN.MAX_STEPS=3",
            "TRAIN.SNAPSHOT_INTERVAL=1",
            "WORKERS=0",
        ]
        self.clip = [f"TRAIN.CLIP_MODEL_BASE={clip}", "TEXT.EMBEDDING_DIM=16"]
        self.gan = ["TREE.BASE_SIZE=8", "TREE.BRANCH_NUM=2", "GAN.GF_DIM=4", "GAN.DF_DIM=2", "GAN.CONDITION_DIM=6"]
        self.encoder = folder / "output" / f"{self.name}_DAMSM" / "Model" / "clip_best.pth"
        self.run = folder / "output" / f"{self.name}_clip_DMGAN"
        self.net_g = self.run / "Model" / "netG_epoch_1.pth"
        self.samples = self.run / "Model" / "netG_epoch_1" / "valid"

    def call(self, command: str, *settings: str, flags: tuple[str, ...] = ()) -> None:
        """One of the ten commands, on the CPU, with this folder's data and tiny networks."""
        name, *arguments = shlex.split(command)[1:]
        arguments = [str(ROOT / value) if value.startswith("cfg/") else value for value in arguments]
        if "--gpu" in arguments:
            del arguments[arguments.index("--gpu") : arguments.index("--gpu") + 2]
        arguments += ["--gpu", "-1", "--data_dir", str(self.data), *flags, "--set", *self.tiny, *settings]
        self._script(name).main(arguments)

    def pretrain(self, *settings: str) -> None:
        kind = "coco" if self.layout == "coco" else "bird"
        self.call(
            f"python pretrain_DAMSM.py --cfg cfg/DAMSM/{kind}.yml --gpu 0", *self.clip,
            "TREE.BASE_SIZE=32", "TRAIN.CLIP_PRETRAINED=", *settings,
        )  # fmt: skip

    def train(self, *settings: str) -> None:
        kind = "coco" if self.layout == "coco" else "bird"
        self.call(
            f"python main.py --cfg cfg/clip_{kind}_DMGAN.yml --gpu 0",
            *self.clip, *self.gan, f"TRAIN.CLIP_MODEL_CHECKPOINT={self.encoder}", *settings,
        )  # fmt: skip

    def evaluate(self, *settings: str) -> None:
        kind = "coco" if self.layout == "coco" else "bird"
        self.call(
            f"python main.py --cfg cfg/eval_clip_{kind}.yml",
            f"TRAIN.CLIP_MODEL_CHECKPOINT={self.encoder}", *settings, flags=("--NET_G", str(self.net_g)),
        )  # fmt: skip

    def score(self, name: str, *flags: str) -> None:
        kind = "coco" if self.layout == "coco" else "bird"
        flags = (*flags, "--weights", "random", "--NET_G", str(self.net_g))
        self.call(f"python {name} --data {kind}", flags=flags)


@pytest.fixture(scope="module", params=["birds", "coco", "manifest"])
def project(request, tmp_path_factory, tiny_clip, script) -> Project:
    """A project after pretraining, training and sampling."""
    made = Project(tmp_path_factory.mktemp(request.param), request.param, tiny_clip, script)
    made.pretrain()
    made.train()
    made.evaluate("EVAL.NUM_IMAGES=15")
    return made


def test_the_readme_shows_the_ten_commands_verbatim():
    readme = (ROOT / "README.md").read_text()
    assert all(command in readme for command in TEN_COMMANDS)


def test_pretraining_leaves_snapshots_metrics_config_and_attention(project):
    run = project.encoder.parents[1]
    assert {"clip_best.pth", "clip1.pth"} <= {path.name for path in (run / "Model").iterdir()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "words", "sentence", "contrastive", "lr_backbone"} <= lines[0].keys()
    assert {"r1", "r1_image", "r1_text", "words", "sentence"} <= lines[-1].keys()
    assert load_config(run / "config.yml").TRAIN.MAX_STEPS == 3
    assert pixels(run / "Image" / "attention_epoch_1.png").shape[1] > 300


def test_training_leaves_generator_discriminators_metrics_and_a_grid(project):
    names = {path.name for path in (project.run / "Model").glob("*.pth")}
    assert names == {"netG_epoch_1.pth", "netG_best.pth", "netD0.pth", "netD1.pth"}
    lines = [json.loads(line) for line in (project.run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_g", "loss_d", "words", "sentence", "kl", "adversarial", "contrastive"} <= lines[0].keys()
    assert {"train_r_precision", "test_r_precision", "test_attributes", "best_split"} <= lines[-1].keys()
    assert pixels(project.run / "Image" / "grid_epoch_1.png").shape[1] > 300


def test_both_runs_tell_how_they_were_made_and_an_epoch_in_a_line(project, capsys):
    for run, script in ((project.encoder.parents[1], "pretrain_DAMSM.py"), (project.run, "main.py")):
        (session,) = json.loads((run / "run.json").read_text())["sessions"]
        assert session["command"].startswith(f"python {script} --cfg ") and "TRAIN.MAX_STEPS=3" in session["command"]
        assert (session["device"], session["precision"].split()[0], session["ended"]) == ("cpu", "fp32", "done")
        assert session["data"].keys() == {"train", "test"}
    snapshot = torch.load(project.net_g, weights_only=True)
    assert session["encoder"] == snapshot["encoder"]
    capsys.readouterr()
    project.pretrain("CONFIG_NAME=again")
    project.train("CONFIG_NAME=again_GAN")
    of_encoder, of_gan = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert re.match(r"epoch 1: loss [\d.]+, words [\d.]+, .*; measured r1 [\d.]+, .*; [\d.]+ images/s, ", of_encoder)
    assert re.match(r"epoch 1: loss_d [\d.]+, loss_g .*; measured train_r_precision [\d.]+, .* GB, 0:00 left$", of_gan)


def test_sampling_writes_one_image_a_caption_and_a_report(project):
    files = sorted((project.samples / "single").rglob("*.png"))
    assert len(files) == 15  # 12 test images × caption 0, three × caption 1
    assert sum(path.stem.endswith("_0") for path in files) == 12
    assert all(pixels(path).shape == (16, 16, 3) for path in files)
    report = json.loads((project.samples / "r_precision.json").read_text())
    judge = report["judges"][0]
    assert judge["judge_trained_the_generator"] and judge["generated"]["images"] == 15
    snapshot = torch.load(project.run / "Model" / "netG_epoch_1.pth", weights_only=True)
    assert judge["judge_fingerprint"] == snapshot["encoder"] != report["generator_fingerprint"]
    assert report["generator_fingerprint"] == checkpoint.fingerprint(
        load_generator(report["generator"], snapshot["architecture"])
    )
    assert 0 <= judge["generated"]["mean"] <= 1 and judge["chance"] == 1 / judge["generated"]["candidates"]
    assert 0 <= report["attributes"]["generated"]["mean"] <= 1
    assert report["attributes"]["real"].keys() == report["attributes"]["generated"].keys()


def test_sampling_again_with_another_batch_size_writes_the_same_images(project):
    folder = project.samples / "single"
    before = {path: pixels(path) for path in folder.rglob("*.png")}
    project.evaluate("EVAL.NUM_IMAGES=15", "EVAL.BATCH_SIZE=4")
    for path, expected in before.items():
        assert np.array_equal(pixels(path), expected)


def test_the_users_own_captions_are_drawn_at_all_sizes_with_attention(project):
    if project.layout == "manifest":
        (project.data / "mine.txt").write_text("a red bird\na blue bird with green wings\n")
        (project.data / "example_filenames.txt").write_text("mine\n")
    project.evaluate("B_VALIDATION=False")
    names = (project.data / "example_filenames.txt").read_text().split()
    for name in names:
        folder = project.net_g.with_suffix("") / name
        captions = (project.data / f"{name}.txt").read_text().splitlines()
        drawn = {path.name for path in folder.iterdir()}
        assert {f"{i}_{size}.png" for i in range(len(captions)) for size in (8, 16)} <= drawn
        assert (folder / "attention_16.png").is_file() and (folder / "grid.png").is_file()


def test_fid_and_inception_score_write_their_reports(project):
    project.score("fid_score.py", "--dims", "64", "--batch_size", "4")
    fid = json.loads((project.samples / "fid.json").read_text())
    assert fid["value"] > 0 and fid["generated"]["count"] == 15 and fid["real"]["count"] == 12
    assert fid["real"]["image_size"] == 16  # which only the snapshot says
    project.score("inception_score.py", "--splits", "3", "--batch_size", "8")
    score = json.loads((project.samples / "inception_score.json").read_text())
    assert score["mean"] >= 1 and "15 images in 3 splits are few" in score["warnings"][0]


def test_training_goes_on_from_a_snapshot(project, capsys):
    before = torch.load(project.net_g, weights_only=True)["weights"]
    project.train(f"TRAIN.NET_G={project.net_g}", "CONFIG_NAME=more", "TRAIN.GENERATOR_LR=0", "TRAIN.MAX_STEPS=1")
    more = project.folder / "output" / f"{project.name}_more" / "Model" / "netG_epoch_1.pth"
    after = torch.load(more, weights_only=True)["weights"]
    weights = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(after[name], before[name]) for name in weights)


@pytest.fixture(scope="module")
def birds(tmp_path_factory, tiny_clip, script) -> Project:
    return Project(tmp_path_factory.mktemp("errors"), "birds", tiny_clip, script)


def test_a_missing_encoder_says_what_writes_it_and_leaves_no_run_folder(birds):
    with pytest.raises(UserError, match=r"clip_best\.pth: pretrain_DAMSM\.py writes one"):
        birds.train()
    assert not (birds.folder / "output").exists()


def test_a_missing_data_folder_is_named(birds, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        birds.call(
            "python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml", *birds.clip,
            "TRAIN.CLIP_PRETRAINED=", flags=("--data_dir", str(tmp_path / "nowhere")),
        )  # fmt: skip


def test_a_wrong_width_of_the_words_is_refused_before_any_data_is_read(birds, tmp_path):
    with pytest.raises(UserError, match=r"TEXT\.EMBEDDING_DIM is 999, but the words of .* have 16"):
        birds.call(
            "python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml", *birds.clip,
            "TRAIN.CLIP_PRETRAINED=", "TEXT.EMBEDDING_DIM=999", flags=("--data_dir", str(tmp_path / "nowhere")),
        )  # fmt: skip


def test_an_unreadable_image_is_named(birds):
    broken = next((birds.data / "CUB_200_2011" / "images").rglob("*train*.jpg"))
    content = broken.read_bytes()
    broken.write_bytes(b"not a picture")
    try:
        with pytest.raises(UserError, match=broken.name):
            birds.pretrain("TRAIN.MAX_STEPS=4")  # of 6 images each: every one of the 24
    finally:
        broken.write_bytes(content)


def test_a_generator_of_another_size_is_refused(project):
    with pytest.raises(UserError, match=r"--set: GAN\.GF_DIM is 8, but .*netG_epoch_1\.pth has 4: leave the key out"):
        project.evaluate("GAN.GF_DIM=8")


def test_a_generator_that_was_trained_on_another_encoder_is_refused(project, tiny_clip, tmp_path):
    torch.manual_seed(99)
    save_encoder(tmp_path / "other.pth", build_encoder(str(tiny_clip), "", 28))
    with pytest.raises(UserError, match=r"netG_epoch_1\.pth was trained on another encoder"):
        project.evaluate(f"TRAIN.CLIP_MODEL_CHECKPOINT={tmp_path / 'other.pth'}")


def test_a_judge_is_recognised_as_the_encoder_that_trained_the_generator_wherever_it_lies(project, tiny_clip, tmp_path):
    shutil.copy(project.encoder, tmp_path / "copy.pth")
    torch.manual_seed(99)
    save_encoder(tmp_path / "other.pth", build_encoder(str(tiny_clip), "", 28))
    for name, expected in (("copy", True), ("other", False)):
        project.evaluate("EVAL.NUM_IMAGES=12", f"EVAL.JUDGE.CLIP_MODEL_CHECKPOINT={tmp_path / name}.pth")
        judges = json.loads((project.samples / "r_precision.json").read_text())["judges"]
        assert [judge["judge_trained_the_generator"] for judge in judges] == [True, expected]


def test_evaluation_without_a_generator_asks_for_one(birds):
    with pytest.raises(UserError, match=r"TRAIN\.NET_G is empty"):
        birds.call("python main.py --cfg cfg/eval_clip_bird.yml", "TRAIN.NET_G=")


def test_a_batch_larger_than_the_split_is_refused(birds):
    with pytest.raises(UserError, match=r"TRAIN\.BATCH_SIZE is 50, but the training split has 24 images"):
        birds.call(
            "python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml", *birds.clip,
            "TRAIN.CLIP_PRETRAINED=", "TRAIN.BATCH_SIZE=50", "CONFIG_NAME=too_large",
        )  # fmt: skip
    assert not (birds.folder / "output" / "birds_too_large").exists()
