"""What the scripts share at the command line: flags, the config that they make, and how a script ends."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

from clipgan.config import BOUNDS, Config, check, get_key, key_paths, load_config, set_key
from clipgan.errors import Stopped, UserError, one_line
from clipgan.files.gate import short
from clipgan.machine import distributed
from clipgan.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
_LONGEST_LINE = 500  # characters of an error


def run_script(main: Callable[[], None]) -> None:
    """Call ``main``; a :class:`UserError` becomes one line on standard error and exit status 2."""
    try:
        main()
    except UserError as error:
        # What all processes find in their flags or files, one of them says; later on, whoever finds it.
        if distributed.is_main() or distributed.initialised():
            of = f" (process {distributed.rank()})" if distributed.world_size() > 1 else ""
            start = f"error{of}: "
            print(start + one_line(str(error), _LONGEST_LINE - len(start)), file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        print(stopped)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    distributed.shut_down()


def run_command(name: str, *arguments: object) -> None:
    """Print and run one of the repository's scripts in this process; starting Python and PyTorch anew takes seconds."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ python {name} {' '.join(words)}", flush=True)
    spec = importlib.util.spec_from_file_location(Path(name).stem, REPOSITORY / name)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(words)


def whole_number(flag: str, low: float, high: float) -> Callable[[str], int]:
    """The ``type`` of an argparse flag: a whole number from ``low`` to ``high``.

    It raises ``UserError`` for another text: one line, as for the config's keys.
    """

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # no number, or one of thousands of digits
            number = None
        if number is None or not low <= number <= high:
            raise UserError(f"{flag} must be at least {low} and at most {high}, not {short(text)}")
        return number

    return convert


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that all four scripts share."""
    gpu, seed = whole_number("--gpu", *BOUNDS["GPU_ID"]), whole_number("--manualSeed", *BOUNDS["SEED"])
    parser.add_argument("--gpu", type=gpu, metavar="N", help="CUDA device, -1 for the CPU (default: CUDA if any)")
    parser.add_argument("--data_dir", metavar="DIR", help="overrides DATA_DIR")
    parser.add_argument("--NET_G", metavar="FILE", help="overrides TRAIN.NET_G, the generator's snapshot")
    parser.add_argument("--manualSeed", type=seed, metavar="N", help="overrides SEED")
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
            config.said[key] = f"--{flag}"
    check(config, "command line")
    return config


# Flags that set a config key.
_SHORTHANDS = {"gpu": "GPU_ID", "data_dir": "DATA_DIR", "NET_G": "TRAIN.NET_G", "manualSeed": "SEED"}

# Keys that a resumed run may change without --set: they say where it runs, not what it computes.
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
        folder = _run_to_resume(args.resume)
        config = config_from_flags(args, args.cfg or _config_of(folder))
    before = load_config(_config_of(folder))
    said = {override.partition("=")[0].strip() for override in args.set}
    said |= {key for flag, key in _SHORTHANDS.items() if getattr(args, flag) is not None} | set(_OF_THE_MACHINE)
    changed = [
        f"{key} ({short(get_key(before, key))}, now {short(get_key(config, key))})"
        for key in key_paths()
        if get_key(before, key) != get_key(config, key) and key not in said
    ]
    if changed:
        raise UserError(
            f"{folder.root} was trained with another config: {', '.join(changed)}; "
            "to change it on purpose, say it again with --set KEY=VALUE"
        )
    return config, folder


def _run_to_resume(path: str) -> RunFolder:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f"--resume {path}: is no folder: name the run's folder, such as output/birds_clip_DMGAN")
    folder = RunFolder(Path(path))
    if not os.path.isdir(folder.states) or not folder.state_files:
        raise UserError(f"--resume {path}: no training state in {folder.states}, so nothing to go on from")
    return folder


def _config_of(folder: RunFolder) -> Path:
    if not os.path.isfile(folder.config):
        raise UserError(
            f"{folder.config}: no such file, so what this run was trained with is unknown: put it back, or start a new "
            "run (without --resume)"
        )
    return folder.config
