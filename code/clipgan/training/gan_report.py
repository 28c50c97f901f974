"""What is due between two epochs of GAN training: snapshots, pictures, measurements, the best generator."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from clipgan.config import Config
from clipgan.runs.folder import RunFolder
from clipgan.runs.progress import Progress
from clipgan.runs.state import Position
from clipgan.training.ema import EMA
from clipgan.training.gan_networks import GanNetworks

SHOWN = ("loss_d", "loss_g", "words", "sentence")  # of the numbers of a step: beside the bar, and in an epoch's line
Measure = Callable[[nn.Module, int], dict[str, float | str]]
Draw = Callable[[nn.Module, int], None]


class EpochReport:
    """Saves, draws and measures the averaged generator when the config says so, and after the last step.

    Args:
        config: the run's configuration.
        networks: what is trained.
        average: of the generator.
        folder: gets snapshots and curves.
        progress: gets the numbers.
        measure: see ``gan_loop.train_gan``, as ``draw``.
    """

    def __init__(
        self,
        config: Config,
        networks: GanNetworks,
        average: EMA,
        folder: RunFolder,
        progress: Progress,
        measure: Measure | None,
        draw: Draw | None,
    ):
        self._config, self._networks, self._average = config, networks, average
        self._folder, self._progress = folder, progress
        self._measure, self._draw = measure, draw

    def __call__(self, position: Position, last: bool) -> None:
        """Report on the epoch that has ended, in a line, too."""
        snapshot_interval = self._config.TRAIN.SNAPSHOT_INTERVAL
        if position.epoch % snapshot_interval == 0 or last:
            self._networks.save(self._folder, self._average.network, position, self._config)
            if self._draw is not None:
                self._draw(self._average.network, position.epoch)
        numbers: dict[str, float | str] = {}
        measure_interval = self._config.EVAL.INTERVAL or snapshot_interval
        if self._measure is not None and (position.epoch % measure_interval == 0 or last):
            numbers = self._measure(self._average.network, position.epoch)
            self._keep_the_best(position, numbers)
            self._folder.draw_curves()
        told = {key: value for key, value in numbers.items() if not key.startswith("best_")}
        self._progress.end_epoch(position.epoch, SHOWN, told)

    def _keep_the_best(self, position: Position, numbers: dict[str, float | str]) -> None:
        self._progress.write("eval", position.step, position.epoch, numbers)
        if numbers["best_by"] > position.best:
            position.best = numbers["best_by"]
            self._networks.save_best(self._folder, self._average.network, position, self._config, numbers)
