"""What a script needs around its one call: flags, device, seed, run folder, the JSON that it leaves behind."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan.config import Config, check, load_config, save_config
from clipgan.curves import draw_curves, write_tensorboard
from clipgan.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def run_script(main: Callable[[], None]) -> None:
    """Call ``main``; a :class:`UserError` becomes one line on standard error and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that all four scripts share."""
    parser.add_argument("--gpu", type=int, metavar="N", help="CUDA device, -1 for the CPU (default: CUDA if any)")
    parser.add_argument("--data_dir", metavar="DIR", help="overrides DATA_DIR")
    parser.add_argument("--NET_G", metavar="FILE", help="overrides TRAIN.NET_G, the generator's snapshot")
    parser.add_argument("--manualSeed", type=int, metavar="N", help="overrides SEED")
    parser.add_argument(
        "--set",
        metavar="KEY.PATH=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="overrides any config keys, e.g. --set TRAIN.BATCH_SIZE=4 TRAIN.MAX_STEPS=100",
    )


def config_from_flags(args: argparse.Namespace, path: str | Path | None = None) -> Config:
    """Load ``path`` (or ``args.cfg``) with ``--set`` and the shorthand flags applied, the flags last."""
    config = load_config(path or args.cfg, args.set)
    if args.gpu is not None:
        config.GPU_ID = args.gpu
    if args.data_dir is not None:
        config.DATA_DIR = args.data_dir
    if args.NET_G is not None:
        config.TRAIN.NET_G = args.NET_G
    if args.manualSeed is not None:
        config.SEED = args.manualSeed
    check(config, "command line")
    return config


def choose_device(gpu: int | None, use_cuda: bool = True) -> torch.device:
    """The device to compute on.

    Args:
        gpu: CUDA index, −1 for the CPU, None for CUDA if there is one and else the CPU with a line that says so.
        use_cuda: False forces the CPU (the config's ``CUDA``).

    Raises:
        UserError: a CUDA device was asked for by number and is not there.
    """
    if not use_cuda or (gpu is not None and gpu < 0):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        if count == 0:
            print("no CUDA device found: computing on the CPU (--gpu -1 says so without this line)")
            return torch.device("cpu")
        gpu = 0
    if gpu >= count:
        have = {0: "this machine has no CUDA device", 1: "this machine has one CUDA device, number 0"}.get(
            count, f"this machine has CUDA devices 0 to {count - 1}"
        )
        raise UserError(f"--gpu {gpu}: {have}; --gpu -1 computes on the CPU")
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def require_embedding_dim(config: Config, word_dim: int) -> None:
    """Refuse a config whose ``TEXT.EMBEDDING_DIM`` is not the width of the encoder's words."""
    if word_dim != config.TEXT.EMBEDDING_DIM:
        raise UserError(
            f"TEXT.EMBEDDING_DIM is {config.TEXT.EMBEDDING_DIM}, but the words of {config.TRAIN.CLIP_MODEL_BASE} "
            f"have {word_dim} dimensions"
        )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Items of a loader do not depend on these: see ``data/dataset.py``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class RunFolder:
    """Where a training run writes: ``<OUTPUT_DIR>/<DATASET_NAME>_<CONFIG_NAME>/``."""

    root: Path

    @property
    def models(self) -> Path:
        return self.root / "Model"

    @property
    def images(self) -> Path:
        return self.root / "Image"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def config(self) -> Path:
        return self.root / "config.yml"

    @property
    def curves(self) -> Path:
        return self.root / "curves.png"

    def finish(self) -> None:
        """Draw the curves of ``metrics.jsonl``, and write them for TensorBoard where that is installed."""
        if self.metrics.is_file() and draw_curves(self.metrics, self.curves):
            write_tensorboard(self.metrics, self.root / "tensorboard", sorted(self.images.glob("*.png")))
            print(f"the curves are in {self.curves}")

    @staticmethod
    def of(config: Config) -> RunFolder:
        return RunFolder(Path(config.OUTPUT_DIR) / config.run_name)

    @staticmethod
    def create(config: Config) -> RunFolder:
        """Make the folder and write the resolved config into it; an earlier run there is moved aside, not lost."""
        folder = RunFolder.of(config)
        if folder.root.exists() and any(folder.root.iterdir()):
            stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(folder.root.stat().st_mtime))
            aside = folder.root.with_name(f"{folder.root.name}_until_{stamp}")
            number = 1
            while aside.exists():
                number += 1
                aside = folder.root.with_name(f"{folder.root.name}_until_{stamp}_{number}")
            folder.root.rename(aside)
            print(f"an earlier run was in {folder.root}: it is now in {aside}")
        try:
            for path in (folder.models, folder.images):
                path.mkdir(parents=True, exist_ok=True)
            save_config(config, folder.config)
        except OSError as error:
            raise UserError(f"cannot write to the run folder {folder.root}: {error.strerror}") from None
        return folder


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """The versions that a score depends on."""
    import open_clip
    import PIL
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "open_clip": open_clip.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }
