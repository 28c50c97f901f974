"""The flags that ``fid_score.py`` and ``inception_score.py`` share, and what they stand for."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipgan.config import BOUNDS, Config
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import take_if_there
from clipgan.evaluation.scores import Settings
from clipgan.flags import REPOSITORY, add_common_flags, config_from_flags, whole_number
from clipgan.machine import distributed
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import choose_device
from clipgan.machine.door import speed_up
from clipgan.runs.report import write_json

CONFIGS = {"bird": "cfg/eval_clip_bird.yml", "coco": "cfg/eval_clip_coco.yml", "toy": "cfg/toy/eval.yml"}


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    shorthand = ", ".join(f"{name}: {path}" for name, path in CONFIGS.items())
    which.add_argument("--data", choices=CONFIGS, help=f"short for --cfg ({shorthand})")
    which.add_argument("--cfg", metavar="FILE", help="YAML config of an evaluation")
    add_common_flags(parser)
    parser.add_argument(
        "--weights",
        default="published",
        metavar="published|random|FILE",
        help="of the Inception network (default published: downloaded once); random ones compare only with themselves",
    )
    size = whole_number("--batch_size", *BOUNDS["EVAL.BATCH_SIZE"])
    workers = whole_number("--workers", *BOUNDS["WORKERS"])
    parser.add_argument("--batch_size", type=size, default=32, metavar="N", help="images at once (default 32)")
    parser.add_argument("--workers", type=workers, metavar="N", help="processes that read images (default: WORKERS)")
    parser.add_argument("--output", metavar="FILE", help="write the result there as JSON, too")


def read_config(args: argparse.Namespace) -> Config:
    """The config that ``--data`` or ``--cfg`` names, with the other flags applied.

    What it leaves out comes from the snapshot TRAIN.NET_G, if that is there.

    Raises:
        UserError: neither was given, or the config contradicts the snapshot.
    """
    if not args.data and not args.cfg:
        raise UserError("nothing to score: give --data bird|coco|toy, --cfg FILE, or folders (see --help)")
    config = config_from_flags(args, args.cfg or REPOSITORY / CONFIGS[args.data])
    take_if_there(config)
    return config


def refuse_config_flags(args: argparse.Namespace, path_flag: str, allowed: Sequence[str] = ()) -> None:
    """Refuse flags that would be ignored, because ``path_flag`` needs no config, but for those that are ``allowed``.

    Raises:
        UserError: there are any; the message names them.
    """
    names = [name for name in ("data", "cfg", "data_dir", "NET_G", "set") if name not in allowed]
    given = [f"--{name}" for name in names if getattr(args, name)]
    if given:
        raise UserError(f"{path_flag} needs no config: leave out {', '.join(given)}")


def settings_of(args: argparse.Namespace, config: Config | None = None) -> Settings:
    """How to compute features; without a config, a folder's images go to the device of ``--gpu``."""
    device = choose_device(config.GPU_ID, config.CUDA) if config else choose_device(args.gpu)
    distributed.initialise(device)
    speed_up(device)
    keep_freed_memory(device)
    workers = args.workers if args.workers is not None else (config or Config()).WORKERS
    return Settings(device, args.weights, args.batch_size, workers)


def generate_command(args: argparse.Namespace, config: Config) -> str:
    """The command that generates the images which these flags score."""
    words = ["python", "main.py", "--cfg", args.cfg or CONFIGS[args.data]]
    for flag in ("gpu", "data_dir", "NET_G", "manualSeed"):
        value = getattr(args, flag)
        words += [f"--{flag}", str(value)] if value is not None else []
    settings = list(args.set)
    settings += ["TRAIN.FLAG=False"] if config.TRAIN.FLAG else []  # the config may be one of training
    settings += [] if config.B_VALIDATION else ["B_VALIDATION=True"]
    words += ["--set", *settings] if settings else []
    return shlex.join(words)


def save_report(report: dict[str, Any], beside: Path | None, output: str | None) -> None:
    """Print the report's warnings, write it as JSON beside the images and to ``--output``, and say where."""
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for path in filter(None, (beside, output)) if distributed.is_main() else ():
        write_json(path, report)
        print(f"written to {path}")
