"""What TensorBoard is given while a run goes on: a writer that takes notes tells it, and the real one if installed."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.runs.folder import RunFolder
from clipgan.runs.progress import Progress


class Writer:
    """Takes the calls of a ``SummaryWriter``."""

    made: list = []  # noqa: RUF012

    def __init__(self, folder, **options):
        self.options, self.scalars, self.images, self.closed = options, [], [], False
        self.times = []
        Writer.made.append(self)

    def add_scalar(self, tag, value, step, walltime):
        self.scalars.append((tag, value, step))
        self.times.append(walltime)

    def add_image(self, tag, pixels, step, walltime, dataformats):
        assert dataformats == "HWC" and pixels.dtype == np.uint8 and pixels.shape[2] == 3
        self.images.append((tag, step))

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    """The writers that were made, newest last."""
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.images.mkdir(parents=True)
    return run


def picture(folder, name):
    Image.new("RGB", (6, 4)).save(folder.images / name)


def progress_of(folder):
    return Progress(folder.metrics, 100, "x", every=2, board=folder.board())


def steps(progress, numbers):
    for step in numbers:
        progress.step(step, 1, {"loss": torch.tensor(float(step)), "skipped": 0.0}, shown=())


def test_lines_and_pictures_are_written_when_they_appear(folder, writers):
    progress = progress_of(folder)
    progress.start(0)
    (writer,) = writers
    steps(progress, range(1, 4))
    assert writer.scalars == [("train/loss", 1.5, 2), ("train/skipped", 0, 2)]
    progress.write("eval", 3, 1, {"r1": 0.5, "best_split": "train"})
    assert writer.scalars[2:] == [("eval/r1", 0.5, 3)]
    picture(folder, "grid_epoch_1.png")
    picture(folder, "attention_epoch_1.png")
    picture(folder, "other.png")
    progress.end_epoch(1, ())
    progress.end_epoch(2, ())
    assert sorted(writer.images) == [("attention", 1), ("grid", 1)]
    assert not writer.closed
    progress.close()
    assert writer.closed and writer.options["flush_secs"] <= 30


def test_a_resumed_run_writes_once_what_it_has_and_not_what_it_lost(folder, writers):
    progress = progress_of(folder)
    progress.start(0)
    steps(progress, range(1, 5))
    picture(folder, "grid_epoch_2.png")
    picture(folder, "grid_epoch_10.png")
    state = progress.state_dict()
    steps(progress, range(5, 7))
    picture(folder, "grid_epoch_11.png")  # drawn, and then the process was killed
    progress.close()
    (folder.root / "tensorboard").mkdir()
    old = folder.root / "tensorboard" / "events.out.tfevents.1.host.2.0"
    for path in (old, old.with_name("notes.txt")):
        path.write_text("x")

    progress = progress_of(folder)
    progress.load_state_dict(state)
    progress.start(4, 10)
    _, writer = writers
    assert not old.exists() and old.with_name("notes.txt").exists()
    assert writer.options["purge_step"] == 0
    assert [step for tag, _, step in writer.scalars if tag == "train/loss"] == [2, 4]
    assert writer.images == [("grid", 2), ("grid", 10)]
    steps(progress, range(5, 7))
    progress.end_epoch(11, ())
    assert [step for tag, _, step in writer.scalars if tag == "train/loss"] == [2, 4, 6]
    assert writer.images[2:] == [("grid", 11)]
    assert writer.times == sorted(writer.times)
    progress.close()


def test_what_is_written_later_is_what_was_written_at_once(folder, writers):
    for start in (0, 6):
        progress = progress_of(folder)
        progress.start(start)
        if start == 0:
            steps(progress, (1, 2, 3, 4, 5, 6))
        progress.close()
    assert writers[0].scalars == writers[1].scalars and len(writers[0].scalars) == 6


def test_broken_lines_and_pictures_do_not_end_the_run(folder, writers, capsys):
    folder.metrics.write_text('{"kind": "train", "step": 2, "loss": 1.0, "seconds": "x"}\nnonsense\n')
    progress = progress_of(folder)
    progress.start(2)
    assert [scalar[0] for scalar in writers[0].scalars] == ["train/loss"]
    (folder.images / "grid_epoch_1.png").write_bytes(b"no picture")
    progress.end_epoch(1, ())
    assert capsys.readouterr().out.count("TensorBoard: nothing more is written to") == 1
    steps(progress, (3, 4))
    progress.end_epoch(2, ())
    progress.close()
    assert len(writers[0].scalars) == 1
    assert json.loads(folder.metrics.read_text().splitlines()[-1])["step"] == 4


def test_a_writer_that_fails_ends_the_board_with_one_line(folder, writers, monkeypatch, capsys):
    progress = progress_of(folder)
    progress.start(0)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writer, "add_scalar", full)
    steps(progress, range(1, 9))
    progress.close()
    said = capsys.readouterr().out
    assert said.count("TensorBoard") == 1 and "No space left on device" in said
    assert len(folder.metrics.read_text().splitlines()) == 4


@pytest.mark.parametrize("installed", [False, True])
def test_without_the_package_nothing_is_said_and_a_broken_one_is_named(folder, monkeypatch, capsys, installed):
    if installed:
        module = types.ModuleType("torch.utils.tensorboard")
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)

        def broken(name):
            raise TypeError("descriptors cannot be created directly")

        module.__getattr__ = broken
    else:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # an import raises ImportError
    progress = progress_of(folder)
    progress.start(0)
    steps(progress, range(1, 3))
    progress.end_epoch(1, ())
    progress.close()
    assert not (folder.root / "tensorboard").exists()
    said = capsys.readouterr().out
    assert ("descriptors cannot be created" in said) == installed and said.count("TensorBoard") == installed


def test_other_processes_than_the_first_write_nothing(folder, writers, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    progress = progress_of(folder)
    progress.start(0)
    steps(progress, range(1, 5))
    progress.close()
    assert not writers


def test_the_real_tensorboard_reads_it(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    progress = progress_of(folder)
    progress.start(0)
    steps(progress, range(1, 5))
    state = progress.state_dict()
    steps(progress, range(5, 9))
    picture(folder, "grid_epoch_1.png")
    progress.end_epoch(1, ())
    progress.close()
    progress = progress_of(folder)
    progress.load_state_dict(state)
    progress.start(4, 1)
    steps(progress, range(5, 7))
    progress.close()
    found = EventAccumulator(str(folder.root / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(2, 1.5), (4, 3.5), (6, 5.5)]
    (image,) = found.Images("grid")
    assert (image.step, image.width, image.height) == (1, 6, 4)
