"""The folder that a training run writes."""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipgan.config import Config, save_config
from clipgan.errors import UserError
from clipgan.machine import distributed
from clipgan.runs.curves import draw_curves
from clipgan.runs.lock import locked
from clipgan.runs.tensorboard import Board


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
    def record(self) -> Path:
        """How the run was made, see ``record.py``."""
        return self.root / "run.json"

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

    def board(self) -> Board:
        """What TensorBoard shows of the run, in ``tensorboard/``."""
        return Board(self.root / "tensorboard", self.metrics, self.images)

    def finish(self) -> None:
        """Draw the curves, and say where they are."""
        if self.draw_curves():
            print(f"the curves are in {self.curves}")

    @staticmethod
    def of(config: Config) -> RunFolder:
        return RunFolder(Path(config.OUTPUT_DIR) / config.run_name)

    @staticmethod
    def newest(config: Config) -> RunFolder | None:
        """The run of this config's name with the newest training state, also if moved aside; None without one."""
        root = RunFolder.of(config).root
        aside = root.parent.glob(f"{glob.escape(root.name)}_until_*")
        runs = [run for run in map(RunFolder, (root, *aside)) if run.state_files]
        return max(runs, key=lambda run: run.state_files[-1].stat().st_mtime, default=None)

    @staticmethod
    def create(config: Config) -> RunFolder:
        """Make the folder and write the resolved config into it; an earlier run there is moved aside, not lost."""
        folder = RunFolder.of(config)
        if distributed.is_main():
            try:
                folder._move_aside()
            except OSError as error:
                raise UserError(f"{folder.root}: cannot be moved aside ({error.strerror})") from None
            folder.prepare(config)
        distributed.barrier()
        return folder

    def prepare(self, config: Config) -> None:
        """Create missing folders, write the config, and delete unfinished files of a killed process."""
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


@contextlib.contextmanager
def open_run(config: Config, earlier: RunFolder | None) -> Iterator[RunFolder]:
    """The folder of a new run, or ``earlier``, the run to continue; no other process writes to it meanwhile.

    Raises:
        UserError: another run writes to it, or it cannot be written to.
    """
    root = (earlier or RunFolder.of(config)).root.absolute()
    lock = locked(root.with_name(f".{root.name}.lock"), f"the run folder {root}")
    with lock if distributed.is_main() else contextlib.nullcontext():
        if earlier is None:
            yield RunFolder.create(config)
            return
        if distributed.is_main():
            earlier.prepare(config)
            print(f"going on with {earlier.root}")
        distributed.barrier()
        yield earlier
