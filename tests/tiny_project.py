"""A toy data set, an untrained encoder and generator, and the scripts that evaluate them."""

import json
from pathlib import Path

import torch

from clipgan.config import Config, save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.generator import Generator
from clipgan.runs.snapshots import save_encoder, save_generator


class Project:
    """A config that evaluates a generator, and the scripts."""

    def __init__(self, root: Path, script):
        self.config, self.net_g, self._script = root / "config.yml", root / "netG_epoch_1.pth", script
        self.valid = self.net_g.with_suffix("") / "valid"
        self.images = self.valid / "single"

    def flags(self, *more: str) -> list[str]:
        return ["--cfg", str(self.config), "--gpu", "-1", *more]

    def sample(self, *more: str) -> dict:
        self._script("main.py").main(self.flags(*more))
        return self.report("r_precision")

    def fid(self, weights: Path, *more: str) -> dict:
        self._script("fid_score.py").main(self.flags("--weights", str(weights), "--dims", "64", *more))
        return self.report("fid")

    def inception_score(self, weights: Path, *more: str) -> dict:
        self._script("inception_score.py").main(self.flags("--weights", str(weights), "--splits", "3", *more))
        return self.report("inception_score")

    def score(self, *more: str) -> dict:
        self._script("tools/score.py").main(self.flags("--dims", "64", *more))
        return self.report("scores")

    def report(self, name: str) -> dict:
        return json.loads((self.valid / f"{name}.json").read_text())

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.images)): path.read_bytes() for path in self.images.rglob("*.png")}


def make_project(root: Path, tiny_clip: Path, train: int, test: int, images: int) -> Path:
    """Draw the data and save the networks and ``config.yml`` into ``root``, which is returned."""
    draw_toy_dataset(root / "data", "birds", train=train, test=test, size=32, seed=3)
    config = Config(DATA_DIR=str(root / "data"), OUTPUT_DIR=str(root / "output"), WORKERS=0, B_VALIDATION=True)
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
    config.TRAIN.FLAG, config.TRAIN.NET_G = False, str(root / "netG_epoch_1.pth")
    config.TRAIN.CLIP_MODEL_BASE, config.TEXT.EMBEDDING_DIM = str(tiny_clip), 16
    config.TRAIN.CLIP_MODEL_CHECKPOINT = str(root / "encoder.pth")
    config.GAN.GF_DIM, config.GAN.CONDITION_DIM = 4, 6
    config.EVAL.BATCH_SIZE, config.EVAL.NUM_IMAGES = 8, images
    save_config(config, root / "config.yml")
    torch.manual_seed(0)
    save_encoder(root / "encoder.pth", build_encoder(str(tiny_clip), "", 28))
    arguments = config.generator_arguments(16, 24)
    save_generator(root / "netG_epoch_1.pth", Generator(**arguments), arguments)
    return root
