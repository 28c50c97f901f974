"""What a script needs around its one call: flags, device, seed, run folder, the JSON that it leaves behind."""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan import distributed
from clipgan.config import Config, check, get_key, key_paths, load_config, save_config, set_key
from clipgan.curves import draw_curves, write_tensorboard
from clipgan.errors import Stopped, UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def run_script(main: Callable[[], None]) -> None:
    """Call ``main``; a :class:`UserError` becomes one line on standard error and exit status 2."""
    try:
        main()
    except UserError as error:
        # What all processes find in their flags or files, one of them says; later on, whoever finds it.
        if distributed.is_main() or distributed.initialised():
            of = f" (process {distributed.rank()})" if distributed.world_size() > 1 else ""
            print(f"error{of}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        print(stopped)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    distributed.shut_down()


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # parameters of mallopt, in glibc's malloc.h


@functools.cache
def keep_freed_memory(device: torch.device) -> bool:
    """Have a process that computes on the CPU keep the memory that it frees from now on, and take it again.

    By default glibc gives large blocks back to the system, which clears every page before it hands them out again: a
    good third of a GAN step at 256 pixels on a CPU, a fifth of a pretraining step of ViT-B/16 (bench/RESULTS.md). The
    price is that the process stays as large as it ever was. Best called when the tensors that last have been allocated.

    Returns:
        Whether it does: not on another device, nor with another C library than glibc, nor where the environment says,
        by a ``MALLOC_…`` variable, how memory is to be handled.
    """
    if device.type != "cpu":
        return False
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))


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


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the two scripts that train: ``--cfg``, ``--resume`` and the common ones."""
    parser.add_argument("--cfg", metavar="FILE", help="YAML config, such as cfg/clip_bird_DMGAN.yml")
    parser.add_argument(
        "--resume",
        metavar="RUN_FOLDER|auto",
        help="go on with this run (or with the newest of this config) from its last training state; "
        "a config key that changed has to be said again with --set",
    )
    add_common_flags(parser)


def config_from_flags(args: argparse.Namespace, path: str | Path | None = None) -> Config:
    """Load ``path`` (or ``args.cfg``) with ``--set`` and the shorthand flags applied, the flags last."""
    config = load_config(path or args.cfg, args.set)
    for flag, key in _SHORTHANDS.items():
        value = getattr(args, flag)
        if value is not None:
            set_key(config, key, value)
    check(config, "command line")
    return config


# Flags that set a config key.
_SHORTHANDS = {"gpu": "GPU_ID", "data_dir": "DATA_DIR", "NET_G": "TRAIN.NET_G", "manualSeed": "SEED"}

# What may differ between the parts of a resumed run without being said: where it runs, not what it computes.
_OF_THE_MACHINE = ("GPU_ID", "CUDA", "WORKERS")


def training_config(args: argparse.Namespace) -> tuple[Config, RunFolder | None]:
    """The config of the flags of :func:`add_training_flags`, and the run to resume, if any.

    ``--resume RUN_FOLDER`` without ``--cfg`` takes the config from the run folder.

    Raises:
        UserError: neither a config nor a run; nothing to resume in the folder; or a config that differs from the
            run's in keys that ``--set`` does not name.
    """
    if args.resume is None or args.resume == "auto":
        if args.cfg is None:
            raise UserError("no config: give --cfg FILE, such as --cfg cfg/clip_bird_DMGAN.yml")
        config = config_from_flags(args)
        if args.resume is None:
            return config, None
        folder = RunFolder.newest(config)
        if folder is None:
            print(f"--resume auto: no run of {config.run_name} with a training state yet: starting one")
            return config, None
    else:
        folder = RunFolder(Path(args.resume))
        if not folder.state_files:
            raise UserError(f"--resume {args.resume}: no training state in {folder.states}, so nothing to go on from")
        config = config_from_flags(args, args.cfg or folder.config)
    before = load_config(folder.config)
    said = {override.partition("=")[0].strip() for override in args.set}
    said |= {key for flag, key in _SHORTHANDS.items() if getattr(args, flag) is not None} | set(_OF_THE_MACHINE)
    changed = [
        f"{key} ({get_key(before, key)!r}, now {get_key(config, key)!r})"
        for key in key_paths()
        if get_key(before, key) != get_key(config, key) and key not in said
    ]
    if changed:
        raise UserError(
            f"{folder.root} was trained with another config: {', '.join(changed)}; "
            "to change it on purpose, say it again with --set KEY=VALUE"
        )
    return config, folder


def choose_device(gpu: int | None, use_cuda: bool = True) -> torch.device:
    """The device to compute on.

    Args:
        gpu: CUDA index, −1 for the CPU, None for CUDA if there is one and else the CPU with a line that says so.
            Under torchrun it is that of the machine's first process; the others take the ones after it.
        use_cuda: False forces the CPU (the config's ``CUDA``).

    Raises:
        UserError: a CUDA device was asked for by number and is not there.
    """
    if not use_cuda or (gpu is not None and gpu < 0):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        if count == 0:
            if distributed.is_main():
                print("no CUDA device found: computing on the CPU (--gpu -1 says so without this line)")
            return torch.device("cpu")
        gpu = 0
    gpu += distributed.local_rank()
    if gpu >= count:
        have = {0: "this machine has no CUDA device", 1: "this machine has one CUDA device, number 0"}.get(
            count, f"this machine has CUDA devices 0 to {count - 1}"
        )
        processes = ", one for each process of torchrun" if distributed.world_size() > 1 else ""
        raise UserError(f"--gpu {gpu}{processes}: {have}; --gpu -1 computes on the CPU")
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def require_embedding_dim(config: Config, word_dim: int) -> None:
    """Refuse a config whose ``TEXT.EMBEDDING_DIM`` is not the width of the encoder's words."""
    if word_dim != config.TEXT.EMBEDDING_DIM:
        raise UserError(
            f"TEXT.EMBEDDING_DIM is {config.TEXT.EMBEDDING_DIM}, but the words of {config.TRAIN.CLIP_MODEL_BASE} "
            f"have {word_dim} dimensions"
        )


def require_even_shares(config: Config) -> None:
    """Refuse a global batch that the processes, or the parts of TRAIN.ACCUMULATE, cannot share evenly.

    Raises:
        UserError: names the batch and the processes.
    """
    share = distributed.even_share(config.TRAIN.BATCH_SIZE, distributed.world_size())
    if share < config.TRAIN.ACCUMULATE or share % config.TRAIN.ACCUMULATE:
        raise UserError(
            f"TRAIN.ACCUMULATE = {config.TRAIN.ACCUMULATE} does not divide the {share} images of each process evenly"
        )


def batch_line(config: Config) -> str:
    """What the batch size means, said at the start of a run."""
    batch, processes = config.TRAIN.BATCH_SIZE, distributed.world_size()
    line = f"batch {batch}"
    if processes > 1:
        line += f" in all, {batch // processes} for each of {processes} processes"
    if config.TRAIN.ACCUMULATE > 1:
        line += f", encoded in {config.TRAIN.ACCUMULATE} parts"
    return line


def open_run(config: Config, earlier: RunFolder | None) -> RunFolder:
    """The folder of a new run, or that of the run to go on with."""
    if earlier is None:
        return RunFolder.create(config)
    if distributed.is_main():
        earlier.prepare(config)
        print(f"going on with {earlier.root}")
    distributed.barrier()
    return earlier


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

    @property
    def states(self) -> Path:
        return self.root / "State"

    @property
    def state_files(self) -> list[Path]:
        """The training states, oldest first."""
        return sorted(self.states.glob("step_*.pt"))

    def draw_curves(self) -> bool:
        """Draw the curves of ``metrics.jsonl``; returns whether there was anything to draw."""
        return distributed.is_main() and self.metrics.is_file() and draw_curves(self.metrics, self.curves)

    def finish(self) -> None:
        """Draw the curves, and write them for TensorBoard where that is installed."""
        if self.draw_curves():
            shutil.rmtree(self.root / "tensorboard", ignore_errors=True)  # of this run before it was resumed
            write_tensorboard(self.metrics, self.root / "tensorboard", sorted(self.images.glob("*.png")))
            print(f"the curves are in {self.curves}")

    @staticmethod
    def of(config: Config) -> RunFolder:
        return RunFolder(Path(config.OUTPUT_DIR) / config.run_name)

    @staticmethod
    def newest(config: Config) -> RunFolder | None:
        """The run of this config's name, moved aside or not, that wrote a training state last; None if none did."""
        root = RunFolder.of(config).root
        runs = [run for run in map(RunFolder, (root, *root.parent.glob(f"{root.name}_until_*"))) if run.state_files]
        return max(runs, key=lambda run: run.state_files[-1].stat().st_mtime, default=None)

    @staticmethod
    def create(config: Config) -> RunFolder:
        """Make the folder and write the resolved config into it; an earlier run there is moved aside, not lost."""
        folder = RunFolder.of(config)
        if distributed.is_main():
            folder._move_aside()
            folder.prepare(config)
        distributed.barrier()
        return folder

    def prepare(self, config: Config) -> None:
        """Make what is missing of the folder, write the config, and clear what a killed process left half-written."""
        try:
            for path in (self.models, self.images, self.states):
                path.mkdir(parents=True, exist_ok=True)
                for half in path.glob(".*.tmp"):
                    half.unlink()
            save_config(config, self.config)
        except OSError as error:
            raise UserError(f"cannot write to the run folder {self.root}: {error.strerror}") from None

    def _move_aside(self) -> None:
        if not self.root.exists() or not any(self.root.iterdir()):
            return
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(self.root.stat().st_mtime))
        aside = self.root.with_name(f"{self.root.name}_until_{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.root.with_name(f"{self.root.name}_until_{stamp}_{number}")
        self.root.rename(aside)
        print(f"an earlier run was in {self.root}: it is now in {aside}")


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
