"""Random Inception weights, pictures and a small data set, for tests that run on two cores."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.evaluation import inception

draw = inception.random_state_dict


@functools.cache
def random_weights(classes: int, fid: bool) -> tuple[dict[str, torch.Tensor], str]:
    return draw(inception.fid_inception() if fid else inception.score_inception(classes))


@pytest.fixture(autouse=True)
def random_weights_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the random weights: drawing them takes seconds, and the seed never changes."""

    def drawn(network: torch.nn.Module) -> tuple[dict[str, torch.Tensor], str]:
        return random_weights(network.fc.out_features, hasattr(network.Mixed_7c, "take_maximum"))

    monkeypatch.setattr(inception, "random_state_dict", drawn)


@pytest.fixture
def draw_random_weights() -> Callable[..., tuple[dict[str, torch.Tensor], str]]:
    """The real ``random_state_dict``; in other tests a function that returns kept weights replaces it."""
    return draw


@pytest.fixture(scope="session")
def fid_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "fid.pth"
    torch.save(random_weights(1008, fid=True)[0], path)
    return path


@pytest.fixture(scope="session")
def score_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, for 7 classes and with random weights."""
    path = tmp_path_factory.mktemp("weights") / "score.pth"
    torch.save(random_weights(7, fid=False)[0], path)
    return path


def save_picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """A picture of a few coloured blocks, ``size`` being width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    options = {"quality": 95} if path.suffix in (".jpg", ".webp") else {}
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


@pytest.fixture
def pictures() -> Callable[..., Path]:
    return save_picture


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Path]:
    """A config, a test split of 6 photographs of 3 species in the birds layout, and a generated image for each.

    The generated images are where ``main.py`` writes those of the config's generator.
    """
    data, net_g = tmp_path / "data", tmp_path / "output" / "netG_epoch_1.pth"
    folder = net_g.with_suffix("") / "valid" / "single"
    names = [f"{number // 2:03}.Species/photo_{number}" for number in range(6)]
    for number, name in enumerate(names):
        save_picture(data / "CUB_200_2011" / "images" / f"{name}.jpg", number, (50 + number, 44))
        save_picture(folder / f"{name}_0.png", 100 + number, (32, 32))
        text = data / "text" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("this bird is red\na red bird\n")
    numbered = list(enumerate(names, start=1))
    cub = data / "CUB_200_2011"
    (cub / "images.txt").write_text("".join(f"{number} {name}.jpg\n" for number, name in numbered))
    boxes = "".join(f"{number} 5.0 6.0 30.0 {20 + number}.0\n" for number, _ in numbered)
    (cub / "bounding_boxes.txt").write_text(boxes)
    (data / "test").mkdir()
    (data / "test" / "filenames.pickle").write_bytes(pickle.dumps(names))
    (data / "test" / "class_info.pickle").write_bytes(pickle.dumps([1, 1, 2, 2, 3, 3]))
    config = tmp_path / "eval.yml"
    config.write_text(
        f"DATASET_NAME: birds\nDATA_DIR: {data}\nOUTPUT_DIR: {tmp_path / 'output'}\nWORKERS: 0\nB_VALIDATION: True\n"
        "TREE: {BASE_SIZE: 16, BRANCH_NUM: 2}\n"
        f"TRAIN: {{FLAG: False, NET_G: {net_g}}}\nEVAL: {{NUM_IMAGES: 6}}\n"
    )
    photograph = cub / "images" / f"{names[3]}.jpg"
    return {"config": config, "data": data, "net_g": net_g, "generated": folder, "photograph": photograph}
