"""``run.json``: how a run was made. Each call of a training script that starts or goes on with it adds a session."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from clipgan.config import Config
from clipgan.errors import Stopped, UserError
from clipgan.files import shapes
from clipgan.files.gate import MEGABYTE, read_json, reading
from clipgan.machine import distributed
from clipgan.machine.precision import Precision
from clipgan.runs.folder import RunFolder
from clipgan.runs.hardware import describe
from clipgan.runs.report import versions, write_json

ROOT = Path(__file__).resolve().parents[3]  # of the clone, where it is one
_PATIENCE = 10  # seconds that git may take
_MOST = 10_000  # sessions
_RECORD = shapes.record({"sessions": shapes.list_of(shapes.mapping_of(shapes.anything, at_most=100), at_most=_MOST)})


@contextlib.contextmanager
def recorded(
    folder: RunFolder,
    config: Config,
    device: torch.device,
    precision: Precision,
    *,
    command: str,
    data: dict[str, str],
    encoder: str,
) -> Iterator[None]:
    """Add a session to the run's ``run.json``; at the end of the block it gets the time and how it ended.

    All processes enter it together; the first one writes. A session without ``finished`` goes on, or was killed.

    Args:
        folder: of the run.
        config: its configuration.
        device: that it computes on.
        precision: that it computes in.
        command: the line that started it, see :func:`command_line`.
        data: the fingerprint of each split.
        encoder: the fingerprint of the encoder: of the frozen one, or of the one that pretraining started with.

    Raises:
        UserError: the file cannot be written when the session starts. Later this is a warning: the run is more.
    """
    hardware = describe(device)
    session = {
        "command": command,
        "started": _now(),
        "finished": None,
        "ended": None,
        "seed": config.SEED,
        "device": str(device),
        "precision": str(precision),
        "data": data,
        "encoder": encoder,
        "hardware": hardware,
        "git": git_state() if distributed.is_main() else None,
        "versions": versions(),
    }
    sessions = [*sessions_so_far(folder.record), session] if distributed.is_main() else [session]
    _write(folder.record, sessions)
    try:
        yield
    except BaseException as error:
        session |= {"finished": _now(), "ended": _reason(error)}
        with contextlib.suppress(Exception):  # what ended the run is what its user is to read
            _write(folder.record, sessions)
        raise
    session |= {"finished": _now(), "ended": "done"}
    try:
        _write(folder.record, sessions)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)


def command_line(script: str, argv: Sequence[str] | None) -> str:
    """The command of a script that was called with ``argv``, or by the shell where that is None."""
    return shlex.join(["python", script, *(sys.argv[1:] if argv is None else argv)])


def _write(path: Path, sessions: list[dict[str, Any]]) -> None:
    if distributed.is_main():
        write_json(path, {"sessions": sessions})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _reason(error: BaseException) -> str:
    if isinstance(error, Stopped):
        return "stopped"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"failed: {error}" if isinstance(error, UserError) else f"failed: {type(error).__name__}"


def sessions_so_far(path: Path) -> list[dict[str, Any]]:
    """Those of the file; one that is none of ours is renamed, with a line."""
    if not os.path.lexists(path):
        return []
    try:
        return _read(path)
    except UserError as error:
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(OSError):
            path.rename(aside)
        print(f"{error}: it is now {aside.name}, and a new one begins")
        return []


def _read(path: Path) -> list[dict[str, Any]]:
    with reading(path, "how a run was made, which training writes"):
        content = read_json(path, at_most=16 * MEGABYTE)
        _RECORD(content, "it")
    return content["sessions"]


def training_data_of(path: Path, encoder: str) -> str:
    """The fingerprint of the training split of a run that was trained on an encoder.

    Args:
        path: of the run's ``run.json``.
        encoder: its fingerprint.

    Returns:
        That of the first session on this encoder, as later ones go on with the same data or fail; empty where there is
        no such session, no such file, or a damaged one.
    """
    with contextlib.suppress(UserError):
        for session in _read(path):
            data = session.get("data")
            train = data.get("train") if isinstance(data, dict) else None
            if session.get("encoder") == encoder and isinstance(train, str):
                return train[:100]
    return ""


def git_state() -> dict[str, Any] | None:
    """The commit of this code, and whether files that git tracks differ from it; None where git does not say."""
    found = _git("rev-parse", "--show-toplevel", "HEAD")
    if found is None or len(found) != 2 or not os.path.exists(found[0]) or not os.path.samefile(found[0], ROOT):
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": found[1], "dirty": None if changed is None else bool(changed)}


def _git(*arguments: str) -> list[str] | None:
    """The lines that git prints; None where it is not there, or fails, or takes too long."""
    command = ["git", "-C", str(ROOT), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},  # of a hook
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").split("\n")[:-1]
