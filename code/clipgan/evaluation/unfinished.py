"""Whether all samples of a generator are in their folder.

While images are sampled, the folder holds a marker. It stays behind when the sampling is cut, by a full disk or a kill,
so that half a sampling is never scored. A folder without the marker is complete, or was made by another program.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from clipgan.errors import UserError
from clipgan.files.writing import writing
from clipgan.machine import distributed
from clipgan.runs.lock import locked

SAMPLES = "single"
MARKER = ".unfinished"
SCORES, NEAREST = "scores.json", "nearest.png"
# Of the samples, in the folder above theirs.
REPORTS = ("r_precision.json", "fid.json", "inception_score.json", SCORES, NEAREST)


def is_unfinished(folder: Path) -> bool:
    """Whether a sampling into this folder was cut, or goes on."""
    return (folder / MARKER).exists()


def refuse_unfinished(folder: Path, how_to: str = "") -> None:
    """Refuse to score a part of a sampling.

    Args:
        folder: of the images.
        how_to: the command that samples them again.

    Raises:
        UserError: the folder holds the marker.
    """
    if is_unfinished(folder):
        snapshot = folder.parent.parent.with_name(f"{folder.parent.parent.name}.pth")
        how_to = how_to or f"python main.py --cfg FILE --NET_G {snapshot} --set TRAIN.FLAG=False B_VALIDATION=True"
        raise UserError(f"the sampling of {folder} was cut, or still goes on; make all of its images with `{how_to}`")


@contextlib.contextmanager
def sampling_into(folder: Path) -> Iterator[None]:
    """Around the writing of samples into a folder, in all processes. It begins with an empty folder.

    Images and reports of an earlier sampling are removed, since they would be taken for results of the new one. The
    folder is marked as unfinished until the block has ended without an error in all processes.

    Raises:
        UserError: another sampling into the folder goes on, or it cannot be written.
    """
    lock = locked(folder.with_name(f".{folder.name}.lock"), f"the folder of samples {folder}")
    with lock if distributed.is_main() else contextlib.nullcontext():
        if distributed.is_main():
            _begin(folder)
        distributed.barrier()
        yield
        distributed.barrier()
        if distributed.is_main():
            with writing(folder):
                (folder / MARKER).unlink(missing_ok=True)


def _begin(folder: Path) -> None:
    marker = folder / MARKER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text("The sampling into this folder goes on, or was cut.\n", encoding="utf-8")
        for report in REPORTS:
            (folder.parent / report).unlink(missing_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != marker:
                entry.unlink()
