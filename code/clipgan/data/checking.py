"""Reads every image of a data set as training would, in worker processes, and tells which cannot be used."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.cache import Preparation
from clipgan.data.examples import Example, read_examples
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE

_CHUNK = 16  # images that a process checks at a time


@dataclass(frozen=True)
class Checked:
    """What was found out about an image file."""

    fault: str  # one line that names the file; empty if the image can be used
    content: str = ""  # a hash of the file's bytes if the image can be used


@dataclass
class Fault:
    """An image that cannot be used."""

    split: str
    key: str | None  # None if the image's entry in the data set's lists cannot be used
    fault: str


@dataclass
class SplitReport:
    """What was found out about a split."""

    listed: int = 0
    usable: int = 0
    fewer_captions: int = 0  # of the usable ones, those with fewer captions than TEXT.CAPTIONS_PER_IMAGE
    keys: set[str] = field(default_factory=set)
    contents: dict[str, str] = field(default_factory=dict)  # a usable image's key → hash of its file


def check_split(config: Config, split: str, workers: int) -> tuple[SplitReport, list[Fault]]:
    """Read a split and all of its images; raises ``UserError`` if the split cannot be read at all."""
    faults: list[Fault] = []
    examples: list[Example] = read_examples(
        config.DATA_DIR,
        split,
        config.DATASET_NAME,
        raw_captions=config.TEXT.RAW_CAPTIONS,
        captions_per_image=config.TEXT.CAPTIONS_PER_IMAGE,
        on_fault=lambda message: faults.append(Fault(split, None, message)),
    )
    report = SplitReport(listed=len(examples) + len(faults), keys={example.key for example in examples})
    preparation = Preparation(config.image_size, config.DATA.CROP_SCALE, config.DATA.BOX_CROP)
    for example, checked in zip(examples, check_images(examples, preparation, workers, split), strict=True):
        if checked.fault:
            faults.append(Fault(split, example.key, checked.fault))
            continue
        report.usable += 1
        report.fewer_captions += len(example.captions) < config.TEXT.CAPTIONS_PER_IMAGE
        report.contents[example.key] = checked.content
    return report, faults


def in_both(reports: dict[str, SplitReport]) -> tuple[list[str], list[tuple[str, str]]]:
    """What train and test share: keys, and pairs of keys whose files are the same byte for byte."""
    if len(reports) < 2:
        return [], []
    train, test = reports["train"], reports["test"]
    by_content: dict[str, str] = {}
    for key, content in train.contents.items():
        by_content.setdefault(content, key)
    same = [(by_content[content], key) for key, content in test.contents.items() if content in by_content]
    return sorted(train.keys & test.keys), same


def check_images(
    examples: Sequence[Example], preparation: Preparation, workers: int, label: str = "images"
) -> list[Checked]:
    """Load and prepare each image, without its captions.

    An image that ends the process which reads it is a fault too; the others are checked all the same.

    Args:
        examples: a split.
        preparation: how training prepares its images.
        workers: processes; at least one, and at most four for each core.
        label: heads the progress bar; an empty one shows none.

    Returns:
        What was found out about each example's image, in their order.
    """
    checked: dict[int, Checked] = {}
    workers = max(1, min(workers, 4 * (os.cpu_count() or 1)))
    size = max(1, min(_CHUNK, math.ceil(len(examples) / workers / 4)))
    parts = [list(range(i, min(i + size, len(examples)))) for i in range(0, len(examples), size)]
    with tqdm(total=len(examples), desc=label, unit="img", leave=False, disable=not label) as bar:
        _run(workers, parts, examples, preparation, checked, bar)
        # A process died, and its images are not known. One process alone takes them in their order: it dies at the
        # first that is left.
        while left := [i for i in range(len(examples)) if i not in checked]:
            _run(1, [[i] for i in left], examples, preparation, checked, bar)
            culprit = next((i for i in left if i not in checked), None)
            if culprit is not None:
                path = examples[culprit].image
                checked[culprit] = Checked(f"{path}: the process that reads it is killed (out of memory, or a crash)")
                bar.update()
    return [checked[i] for i in range(len(examples))]


def _run(
    workers: int,
    parts: Sequence[list[int]],
    examples: Sequence[Example],
    preparation: Preparation,
    checked: dict[int, Checked],
    bar: tqdm,
) -> None:
    """Check the parts until all are done or a process dies; what was found out is added to ``checked``."""
    # Started by fork where there is one, so that no process imports PyTorch anew.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    pool = ProcessPoolExecutor(max(1, min(workers, len(parts))), context, initializer=_leave_interrupts_to_main)
    try:
        tasks = {}
        for part in parts:
            tasks[pool.submit(_check, [examples[i] for i in part], preparation)] = part
        for task in as_completed(tasks):
            part = tasks[task]
            checked.update(zip(part, task.result(), strict=True))
            bar.update(len(part))
    except BrokenProcessPool:
        for task, part in tasks.items():  # some may be done that were not collected yet
            if part[0] not in checked and task.done() and not task.cancelled() and task.exception() is None:
                checked.update(zip(part, task.result(), strict=True))
                bar.update(len(part))
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check(examples: Sequence[Example], preparation: Preparation) -> list[Checked]:
    return [_check_image(example, preparation) for example in examples]


def _check_image(example: Example, preparation: Preparation) -> Checked:
    try:
        preparation.load(example)
        return Checked("", _hash(example))
    except UserError as error:
        return Checked(str(error))
    except OSError as error:  # it was read a moment ago
        return Checked(f"{example.image}: cannot be read ({error.strerror or error})")
    except MemoryError:
        return Checked(f"{example.image}: does not fit into this machine's memory")


def _hash(example: Example) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(example.image, "rb") as file:
        while block := file.read(MEGABYTE):
            digest.update(block)
    return digest.hexdigest()
