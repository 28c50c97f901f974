"""GAN training: DM-GAN (Zhu et al. 2019) on CLIP's text features, guided by DAMSM and contrastive losses.

One step, on a batch of images with two captions each (DM-GAN+CL, Ye et al. 2021, algorithm 2):

1. encode both captions with the frozen encoder;
2. generate both views, with the same noise for the two captions of an image;
3. update each discriminator on both views;
4. update the generator against the discriminators, towards its captions, and towards agreement of the two views;
5. update the running average of the generator's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clipgan import distributed
from clipgan.config import Config
from clipgan.data.dataset import TextImageDataset
from clipgan.data.from_config import training_loader
from clipgan.losses.adversarial import discriminator_loss, generator_loss, kl_loss
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import sentence_loss
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator, GeneratorOutput
from clipgan.networks.snapshots import load_discriminator, load_generator, save_discriminator, save_generator
from clipgan.runtime import RunFolder, keep_freed_memory
from clipgan.training.ema import EMA
from clipgan.training.matching import words_matching
from clipgan.training.precision import Precision, compile_methods, full_precision
from clipgan.training.progress import Progress
from clipgan.training.state import Position, StopSignals, TrainingState

ADAM_BETAS = (0.5, 0.999)
SHOWN = ("loss_d", "loss_g", "words", "sentence")


@dataclass
class Gan:
    """The networks that a run trains, and the plain arguments that build them, which their snapshots keep."""

    generator: Generator
    discriminators: nn.ModuleList
    generator_arguments: dict
    discriminator_arguments: list[dict]
    encoder: str  # fingerprint of the encoder that they are trained on

    @staticmethod
    def build(config: Config, encoder: ClipEncoder) -> Gan:
        """New networks of the config's sizes for the encoder's widths."""
        of_generator = config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
        of_discriminators = config.discriminator_arguments(encoder.sentence_dim)
        discriminators = nn.ModuleList(Discriminator(**arguments) for arguments in of_discriminators)
        return Gan(Generator(**of_generator), discriminators, of_generator, of_discriminators, encoder.fingerprint())

    def load(self, config: Config) -> None:
        """Start from ``TRAIN.NET_G``, and from the discriminators beside it where ``TRAIN.B_NET_D`` says so."""
        path = Path(config.TRAIN.NET_G)
        self.generator.load_state_dict(load_generator(path, self.generator_arguments).state_dict())
        if config.TRAIN.B_NET_D:
            for i, network in enumerate(self.discriminators):
                saved = load_discriminator(path.with_name(f"netD{i}.pth"), self.discriminator_arguments[i])
                network.load_state_dict(saved.state_dict())

    def spread(self, config: Config) -> None:
        """Make the networks ready for the machine: several processes (TRAIN.SYNC_BN), tensor cores, TRAIN.COMPILE."""
        distributed.broadcast(self.generator)
        distributed.broadcast(self.discriminators)
        device = next(self.generator.parameters()).device
        if device.type == "cuda" and Precision(config.TRAIN.PRECISION, device).low:
            for network in (self.generator, self.discriminators):  # the layout that tensor cores compute in
                network.to(memory_format=torch.channels_last)
        if config.TRAIN.SYNC_BN:
            distributed.synchronise_batch_norm(self.generator)
        compile_methods(config.TRAIN.COMPILE, self.generator, "forward")
        for network in self.discriminators:
            compile_methods(config.TRAIN.COMPILE, network, "features", "conditional")

    @staticmethod
    def snapshot(folder: RunFolder, epoch: int) -> Path:
        return folder.models / f"netG_epoch_{epoch}.pth"

    def save(self, folder: RunFolder, average: nn.Module, now: Position, config: Config) -> Path:
        """Write ``netG_epoch_<epoch>.pth`` (the average) and ``netD<i>.pth``; returns the generator's path."""
        path = self.snapshot(folder, now.epoch)
        if distributed.is_main():
            extra = self._origin(now, config)
            save_generator(path, average, self.generator_arguments, **extra)
            for i, network in enumerate(self.discriminators):
                save_discriminator(folder.models / f"netD{i}.pth", network, self.discriminator_arguments[i], **extra)
        return path

    def save_best(self, folder: RunFolder, average: nn.Module, now: Position, config: Config, numbers: dict) -> None:
        """Write ``netG_best.pth`` with the numbers that chose it."""
        if distributed.is_main():
            extra = self._origin(now, config)
            path = folder.models / "netG_best.pth"
            save_generator(path, average, self.generator_arguments, metrics=numbers, **extra)

    def _origin(self, now: Position, config: Config) -> dict:
        """What a snapshot says of where it comes from."""
        return {"epoch": now.epoch, "step": now.step, "config": asdict(config), "encoder": self.encoder}


def matching_loss(
    encoder: ClipEncoder,
    images: Tensor,
    text: tuple[Tensor, Tensor, Tensor],
    class_ids: Tensor,
    config: Config,
) -> dict[str, Tensor]:
    """How well the largest images of both views match their captions, and each other.

    Args:
        encoder: frozen.
        images: [2b, 3, S, S], the second view after the first; b is this process's share of the batch.
        text: words [2b, D, W], word_mask [2b, W], sentence [2b, E].
        class_ids: [b].

    Returns:
        ``words`` and ``sentence``, both directions, summed over the views, and ``contrastive``.
    """
    smooth, contrastive = config.TRAIN.SMOOTH, config.TRAIN.CONTRASTIVE
    regions, features = encoder.encode_image(images)                                 # [2b, D, R], [2b, E]
    class_ids = distributed.gather(class_ids)                                        # [B], of all processes
    word_total = sentence_total = features.new_zeros(())
    image_views, sentence_views = _gather_views(features), _gather_views(text[2])    # [B, E] each
    parts = zip(*(part.chunk(2) for part in (*text[:2], regions)), image_views, sentence_views, strict=True)
    for words, word_mask, view_regions, view_image, view_sentence in parts:
        if config.TRAIN.WORD_LOSS:
            view_regions = distributed.gather(view_regions)                          # [B, D, R]
            word_total = word_total + words_matching(words, word_mask, view_regions, class_ids, smooth)
        sentence_total = sentence_total + sum(sentence_loss(view_image, view_sentence, class_ids, smooth.GAMMA3))
    between_views = nt_xent(*image_views, contrastive.TEMPERATURE)
    return {"words": word_total, "sentence": sentence_total, "contrastive": between_views}


def _gather_views(views: Tensor) -> list[Tensor]:
    """[2b, …] of this process, the second view after the first → each view of all processes, [B, …]."""
    return [distributed.gather(view) for view in views.chunk(2)]


def generator_losses(
    out: GeneratorOutput,
    discriminators: nn.ModuleList,
    encoder: ClipEncoder,
    text: tuple[Tensor, Tensor, Tensor],
    class_ids: Tensor,
    config: Config,
) -> dict[str, Tensor]:
    """Everything that the generator is trained on, for both views (design of DM-GAN, eq. 10-12).

    Returns:
        ``adversarial`` (unconditional + conditional, over all sizes), ``words``, ``sentence``, ``contrastive``, ``kl``,
        and their weighted sum ``loss_g``.
    """
    sentence = text[2]
    # A mean over the 2B images times two is the sum over the two views.
    adversarial = 2 * sum(
        generator_loss(discriminator, images, sentence)
        for discriminator, images in zip(discriminators, out.images, strict=True)
    )
    kl = 2 * kl_loss(out.mu, out.logvar)
    losses = {"adversarial": adversarial, "kl": kl}
    loss = adversarial + kl
    weight = 0.2 if config.TRAIN.CONTRASTIVE.WEIGHT is None else config.TRAIN.CONTRASTIVE.WEIGHT
    if config.TRAIN.SMOOTH.LAMBDA or weight:
        matching = matching_loss(encoder, out.images[-1], text, class_ids, config)
        loss = loss + config.TRAIN.SMOOTH.LAMBDA * (matching["words"] + matching["sentence"])
        loss = loss + weight * matching["contrastive"]
        losses.update(matching)
    return {"loss_g": loss, **losses}


def wrong_pairs_of(sentence: Tensor) -> tuple[list[Tensor], float]:
    """The wrong sentence for each image, by the order of the whole batch: the next one's, none for the last image.

    Args:
        sentence: [2b, E] of both views.

    Returns:
        For each view the sentences [b, E] for this process's images (b − 1 in the last process), and how many wrong
        pairs there are in the whole batch for each process.
    """
    views = _gather_views(sentence)
    count = len(sentence) // 2
    first = distributed.rank() * count + 1
    return [view[first : first + count] for view in views], (len(views[0]) - 1) / distributed.world_size()


def noise_of_step(config: Config, step: int) -> tuple[Tensor, Tensor]:
    """Standard normal z [B, Z] and ε [B, C] for the whole batch of a step.

    They depend on the seed and the step only, so that any number of processes, and a resumed run, draw the same.
    """
    rng = np.random.default_rng((config.SEED, step, *b"noise"))
    widths = [config.GAN.Z_DIM, config.GAN.CONDITION_DIM]
    both = rng.standard_normal((config.TRAIN.BATCH_SIZE, sum(widths)), dtype=np.float32)
    return torch.from_numpy(both).split(widths, dim=1)


def train_gan(
    config: Config,
    gan: Gan,
    encoder: ClipEncoder,
    dataset: TextImageDataset,
    device: torch.device,
    folder: RunFolder,
    measure: Callable[[nn.Module, int], dict[str, float | str]] | None = None,
    draw: Callable[[nn.Module, int], None] | None = None,
    resume: bool = False,
) -> Path:
    """Train ``gan`` in place.

    Args:
        config: the run's configuration.
        gan: its networks, on ``device``.
        encoder: frozen, on ``device``.
        dataset: the training split.
        device: where to compute.
        folder: gets ``Model/netG_epoch_<N>.pth``, ``Model/netG_best.pth``, ``Model/netD<i>.pth``, ``metrics.jsonl``.
        measure: called with the averaged generator and the epoch every ``EVAL.INTERVAL`` epochs; its numbers are
            logged, and the weights with the highest ``best_by`` among them become ``netG_best.pth``.
        draw: called with the averaged generator and the epoch at every snapshot.
        resume: go on from the newest training state in ``folder``.

    Returns:
        The path of the last snapshot.

    Raises:
        Stopped: the process was asked to end; the training state is written.
        UserError: ``resume`` without a state.
    """
    train = config.TRAIN
    sampler, loader = training_loader(config, dataset, device)
    total = config.total_steps(len(sampler))

    generator, discriminators = gan.generator, gan.discriminators
    optimizer_g = torch.optim.Adam(generator.parameters(), train.GENERATOR_LR, ADAM_BETAS, foreach=True)
    optimizers_d = [torch.optim.Adam(d.parameters(), train.DISCRIMINATOR_LR, ADAM_BETAS, foreach=True)
                    for d in discriminators]
    average = EMA(generator, train.EMA)
    precision = Precision(train.PRECISION, device)
    scaler_g, scalers_d = precision.scaler(), [precision.scaler() for _ in discriminators]
    progress = Progress(folder.metrics, total, "training")

    optimizers, scalers = [optimizer_g, *optimizers_d], [scaler_g, *scalers_d]
    parts = {"generator": generator, "discriminators": discriminators, "average": average, "progress": progress}
    parts |= {f"optimizer {i}": part for i, part in enumerate(optimizers)}
    parts |= {f"scaler {i}": part for i, part in enumerate(scalers)}
    state = TrainingState(folder, parts, config)
    now = state.resume() if resume else Position()
    progress.start(now.step)
    gan.spread(config)

    measure_every = config.EVAL.INTERVAL or train.SNAPSHOT_INTERVAL
    last = gan.save(folder, average.network, now, config) if total == 0 else gan.snapshot(folder, now.epoch)
    with StopSignals() as stop:
        while now.step < total or now.batch:
            generator.train()
            sampler.set_epoch(now.epoch, now.batch)
            for batch in loader:
                if now.step == total:
                    break
                batch = batch.to(device)

                # Encode both captions
                with torch.no_grad(), precision.autocast():
                    text = encoder.encode_text(torch.cat(batch.tokens))              # [2b, D, W], [2b, W], [2b, E]
                words, word_mask, sentence = text

                # Generate both views with the same noise
                noises = (distributed.own_slice(noise).to(device) for noise in noise_of_step(config, now.step))
                noise, condition_noise = (noise.repeat(2, 1) for noise in noises)    # [2b, Z], [2b, C]
                with precision.autocast():
                    out = generator(noise, condition_noise, sentence, words, word_mask)

                # Update each discriminator on both views
                discriminators.requires_grad_(True).train()
                wrong_sentences, wrong_pairs = wrong_pairs_of(sentence)
                losses_d = []
                for i, discriminator in enumerate(discriminators):
                    with precision.autocast():
                        fakes = out.images[i].detach().chunk(2)
                        views = fakes, sentence.chunk(2), wrong_sentences
                        loss = discriminator_loss(discriminator, batch.images[i], *views, wrong_pairs)
                    _update(optimizers_d[i], discriminator, loss, scalers_d[i])
                    losses_d.append(loss.detach())

                # Update the generator
                discriminators.requires_grad_(False).eval()  # no gradients, no further power iterations
                with precision.autocast():
                    losses = generator_losses(out, discriminators, encoder, text, batch.class_ids, config)
                _update(optimizer_g, generator, losses["loss_g"], scaler_g)

                # Update the average
                average.update(generator)

                now.count_step()
                losses["loss_d"] = sum(losses_d)
                losses.update({f"loss_d{i}": value for i, value in enumerate(losses_d)})
                progress.step(now.step, now.epoch + 1, losses, shown=SHOWN)
                state.after_step(now, stop)
                keep_freed_memory(device)  # not before the first step, which gives the optimizers' states their places

            # Save, draw, measure, and keep the best
            with state.during_evaluation(now, stop), full_precision(device):
                now.end_epoch()
                if now.epoch % train.SNAPSHOT_INTERVAL == 0 or now.step == total:
                    last = gan.save(folder, average.network, now, config)
                    if draw is not None:
                        draw(average.network, now.epoch)
                if measure is not None and (now.epoch % measure_every == 0 or now.step == total):
                    numbers = measure(average.network, now.epoch)
                    progress.write("eval", now.step, now.epoch, numbers)
                    shown = [f"{key} {value:.3f}" for key, value in numbers.items() if not key.startswith("best_")]
                    progress.say(f"epoch {now.epoch}: {', '.join(shown)}")
                    if numbers["best_by"] > now.best:
                        now.best = numbers["best_by"]
                        gan.save_best(folder, average.network, now, config, numbers)
                    folder.draw_curves()
    progress.close()
    return last


def _update(
    optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor, scaler: torch.amp.GradScaler
) -> None:
    scaler.scale(loss).backward()
    distributed.average_gradients(network.parameters())
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)  # at once: the next update needs the memory
