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

import torch
from torch import Tensor, nn

from clipgan.config import Config
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, make_loader
from clipgan.losses.adversarial import discriminator_loss, generator_loss, kl_loss
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import sentence_loss, words_loss
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator, GeneratorOutput
from clipgan.networks.snapshots import load_discriminator, load_generator, save_discriminator, save_generator
from clipgan.runtime import RunFolder
from clipgan.training.ema import EMA
from clipgan.training.precision import Precision
from clipgan.training.progress import Progress

ADAM_BETAS = (0.5, 0.999)
SHOWN = ("loss_d", "loss_g", "words", "sentence")


@dataclass
class Gan:
    """The networks that a run trains, and the plain arguments that build them, which their snapshots keep."""

    generator: Generator
    discriminators: nn.ModuleList
    generator_arguments: dict
    discriminator_arguments: list[dict]

    @staticmethod
    def build(config: Config, encoder: ClipEncoder) -> Gan:
        """New networks of the config's sizes for the encoder's widths."""
        of_generator = config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
        of_discriminators = config.discriminator_arguments(encoder.sentence_dim)
        discriminators = nn.ModuleList(Discriminator(**arguments) for arguments in of_discriminators)
        return Gan(Generator(**of_generator), discriminators, of_generator, of_discriminators)

    def load(self, config: Config) -> None:
        """Start from ``TRAIN.NET_G``, and from the discriminators beside it where ``TRAIN.B_NET_D`` says so."""
        path = Path(config.TRAIN.NET_G)
        self.generator.load_state_dict(load_generator(path, self.generator_arguments).state_dict())
        if config.TRAIN.B_NET_D:
            for i, network in enumerate(self.discriminators):
                saved = load_discriminator(path.with_name(f"netD{i}.pth"), self.discriminator_arguments[i])
                network.load_state_dict(saved.state_dict())

    def save(self, folder: RunFolder, average: nn.Module, epoch: int, step: int, config: Config) -> Path:
        """Write ``netG_epoch_<epoch>.pth`` (the average) and ``netD<i>.pth``; returns the generator's path."""
        extra = {"epoch": epoch, "step": step, "config": asdict(config)}
        path = folder.models / f"netG_epoch_{epoch}.pth"
        save_generator(path, average, self.generator_arguments, **extra)
        for i, network in enumerate(self.discriminators):
            save_discriminator(folder.models / f"netD{i}.pth", network, self.discriminator_arguments[i], **extra)
        return path


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
        images: [2B, 3, S, S], the second view after the first.
        text: words [2B, D, W], word_mask [2B, W], sentence [2B, E].
        class_ids: [B].

    Returns:
        ``words`` and ``sentence``, both directions, summed over the views, and ``contrastive``.
    """
    smooth, contrastive = config.TRAIN.SMOOTH, config.TRAIN.CONTRASTIVE
    regions, features = encoder.encode_image(images)                                 # [2B, D, R], [2B, E]
    word_total = sentence_total = features.new_zeros(())
    parts = (part.chunk(2) for part in (*text, regions, features))
    for words, word_mask, sentence, view_regions, view_features in zip(*parts, strict=True):
        if config.TRAIN.WORD_LOSS:
            gammas = (smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)
            word_total = word_total + sum(words_loss(words, word_mask, view_regions, class_ids, *gammas))
        sentence_total = sentence_total + sum(sentence_loss(view_features, sentence, class_ids, smooth.GAMMA3))
    between_views = nt_xent(*features.chunk(2), contrastive.TEMPERATURE)
    return {"words": word_total, "sentence": sentence_total, "contrastive": between_views}


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


def train_gan(
    config: Config,
    gan: Gan,
    encoder: ClipEncoder,
    dataset: TextImageDataset,
    device: torch.device,
    folder: RunFolder,
    measure: Callable[[nn.Module, int], dict[str, float | str]] | None = None,
    draw: Callable[[nn.Module, int], None] | None = None,
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

    Returns:
        The path of the last snapshot.
    """
    train = config.TRAIN
    sampler = EpochBatchSampler(len(dataset), train.BATCH_SIZE, config.SEED)
    loader = make_loader(dataset, sampler, config.WORKERS, device)
    total = train.MAX_EPOCH * len(sampler)
    total = min(total, train.MAX_STEPS) if train.MAX_STEPS else total

    generator, discriminators = gan.generator, gan.discriminators
    optimizer_g = torch.optim.Adam(generator.parameters(), train.GENERATOR_LR, ADAM_BETAS, foreach=True)
    optimizers_d = [torch.optim.Adam(d.parameters(), train.DISCRIMINATOR_LR, ADAM_BETAS, foreach=True)
                    for d in discriminators]
    average = EMA(generator, train.EMA)
    precision = Precision(train.PRECISION, device)
    scaler_g, scalers_d = precision.scaler(), [precision.scaler() for _ in discriminators]
    progress = Progress(folder.metrics, total, "training")

    measure_every = config.EVAL.INTERVAL or train.SNAPSHOT_INTERVAL
    best, step, epoch = -float("inf"), 0, 0
    last = gan.save(folder, average.network, epoch, step, config) if total == 0 else folder.models
    while step < total:
        generator.train()
        sampler.set_epoch(epoch)
        for batch in loader:
            batch = batch.to(device)
            count = len(batch.class_ids)

            # Encode both captions
            with torch.no_grad(), precision.autocast():
                text = encoder.encode_text(torch.cat(batch.tokens))                  # [2B, D, W], [2B, W], [2B, E]
            words, word_mask, sentence = text

            # Generate both views with the same noise
            noise = torch.randn(count, config.GAN.Z_DIM, device=device).repeat(2, 1)
            condition_noise = torch.randn(count, config.GAN.CONDITION_DIM, device=device).repeat(2, 1)
            with precision.autocast():
                out = generator(noise, condition_noise, sentence, words, word_mask)

            # Update each discriminator on both views
            discriminators.requires_grad_(True).train()
            losses_d = []
            for i, discriminator in enumerate(discriminators):
                with precision.autocast():
                    fakes = out.images[i].detach().chunk(2)
                    loss = discriminator_loss(discriminator, batch.images[i], fakes, sentence.chunk(2))
                _update(optimizers_d[i], loss, scalers_d[i])
                losses_d.append(loss.detach())

            # Update the generator
            discriminators.requires_grad_(False).eval()  # no gradients, no further power iterations
            with precision.autocast():
                losses = generator_losses(out, discriminators, encoder, text, batch.class_ids, config)
            _update(optimizer_g, losses["loss_g"], scaler_g)

            # Update the average
            average.update(generator)

            step += 1
            losses["loss_d"] = sum(losses_d)
            losses.update({f"loss_d{i}": value for i, value in enumerate(losses_d)})
            progress.step(step, epoch + 1, losses, shown=SHOWN)
            if step == total:
                break
        epoch += 1

        # Save, draw, measure, and keep the best
        if epoch % train.SNAPSHOT_INTERVAL == 0 or step == total:
            last = gan.save(folder, average.network, epoch, step, config)
            if draw is not None:
                draw(average.network, epoch)
        if measure is not None and (epoch % measure_every == 0 or step == total):
            numbers = measure(average.network, epoch)
            progress.write("eval", step, epoch, numbers)
            shown = [f"{key} {value:.3f}" for key, value in numbers.items() if not key.startswith("best_")]
            progress.say(f"epoch {epoch}: {', '.join(shown)}")
            if numbers["best_by"] > best:
                best = numbers["best_by"]
                extra = {"epoch": epoch, "step": step, "metrics": numbers, "config": asdict(config)}
                save_generator(folder.models / "netG_best.pth", average.network, gan.generator_arguments, **extra)
    progress.close()
    return last


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
