"""The networks of a GAN run, from building to snapshots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from clipgan.config import Config
from clipgan.machine import device as machine
from clipgan.machine import distributed
from clipgan.machine.compiling import compile_forward
from clipgan.machine.memory import require_memory
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.folder import RunFolder
from clipgan.runs.snapshots import save_discriminator, save_generator, start_discriminators, start_generator
from clipgan.runs.state import Position
from clipgan.training.ema import EMA
from clipgan.training.guard import Guard
from clipgan.training.trained_network import TrainedNetwork


@dataclass
class GanNetworks:
    """The networks that a run trains, and the plain arguments that build them, which their snapshots keep."""

    generator: Generator
    discriminators: nn.ModuleList
    generator_arguments: dict
    discriminator_arguments: list[dict]
    encoder_fingerprint: str  # of the encoder that they are trained on
    data_fingerprint: str = ""  # of the training split; empty before the training begins

    @staticmethod
    def build(config: Config, encoder: ClipEncoder) -> GanNetworks:
        """New networks of the config's sizes for the encoder's widths.

        Raises:
            UserError: they do not fit into this machine's memory.
        """
        generator_arguments = config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
        discriminator_arguments = config.discriminator_arguments(encoder.sentence_dim)

        def build() -> tuple[Generator, nn.ModuleList]:
            generator = Generator(**generator_arguments)
            return generator, nn.ModuleList(Discriminator(**arguments) for arguments in discriminator_arguments)

        with torch.device("meta"):
            weights = [weight for network in build() for weight in network.parameters()]
        # With gradients and Adam's two moments; the average of the generator's weights comes on top.
        require_memory(weights, 4, "training these networks", "lower GAN.GF_DIM, GAN.DF_DIM or GAN.CONDITION_DIM")
        generator, discriminators = build()
        return GanNetworks(
            generator,
            discriminators,
            generator_arguments,
            discriminator_arguments,
            fingerprint(encoder),
        )

    def load(self, config: Config) -> None:
        """Start from ``TRAIN.NET_G``, and from the discriminators beside it where ``TRAIN.B_NET_D`` says so.

        Raises:
            UserError: see :func:`start_generator`.
        """
        path = config.TRAIN.NET_G
        published = start_generator(self.generator, path, self.generator_arguments)
        if config.TRAIN.B_NET_D:
            start_discriminators(self.discriminators, path, self.discriminator_arguments, published)

    def prepare(
        self, config: Config, device: torch.device, precision: Precision, guard: Guard
    ) -> tuple[TrainedNetwork, list[TrainedNetwork], EMA]:
        """Make the networks ready to be trained on ``device``, by all processes, compiled where TRAIN.COMPILE says so.

        Returns:
            The generator, the discriminators, and the average of the generator's weights.
        """
        train = config.TRAIN
        machine.place(self.generator, device, precision.low)
        for discriminator in self.discriminators:
            machine.place(discriminator, device, precision.low)
        if train.SYNC_BN:
            distributed.synchronise_batch_norm(self.generator)
        generator = TrainedNetwork(self.generator, train.GENERATOR_LR, precision, guard, "loss_g")
        discriminators = [
            TrainedNetwork(network, train.DISCRIMINATOR_LR, precision, guard, f"loss_d{i}")
            for i, network in enumerate(self.discriminators)
        ]
        average = EMA(self.generator, train.EMA)
        if train.COMPILE:
            compile_forward(self.generator, varying=[(3, 2), (4, 1)])  # the words of `words` and `word_mask`
            for network in self.discriminators:
                compile_forward(network)
        return generator, discriminators, average

    @staticmethod
    def snapshot(folder: RunFolder, epoch: int) -> Path:
        return folder.models / f"netG_epoch_{epoch}.pth"

    def save(self, folder: RunFolder, average: nn.Module, position: Position, config: Config) -> Path:
        """Write ``netG_epoch_<epoch>.pth`` (the average) and ``netD<i>.pth``; returns the generator's path."""
        path = self.snapshot(folder, position.epoch)
        if distributed.is_main():
            extra = self._origin(position, config)
            save_generator(path, average, self.generator_arguments, **extra)
            for i, network in enumerate(self.discriminators):
                save_discriminator(folder.models / f"netD{i}.pth", network, self.discriminator_arguments[i], **extra)
        return path

    def save_best(
        self, folder: RunFolder, average: nn.Module, position: Position, config: Config, numbers: dict
    ) -> None:
        """Write ``netG_best.pth`` with the numbers that chose it."""
        if distributed.is_main():
            extra = self._origin(position, config)
            path = folder.models / "netG_best.pth"
            save_generator(path, average, self.generator_arguments, metrics=numbers, **extra)

    def _origin(self, position: Position, config: Config) -> dict:
        """What a snapshot says of where it comes from."""
        return {
            "epoch": position.epoch,
            "step": position.step,
            "config": asdict(config),
            "encoder": self.encoder_fingerprint,
            "data": self.data_fingerprint,
        }
