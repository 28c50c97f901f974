"""GAN training: DM-GAN (Zhu et al. 2019) on CLIP's text features, guided by DAMSM and contrastive losses.

One step, on a batch of images with two captions each (DM-GAN+CL, Ye et al. 2021, algorithm 2):

1. encode both captions with the frozen encoder;
2. generate both views, with the same noise for the two captions of an image;
3. update each discriminator on both views; ``TRAIN.DIFFAUG`` and ``TRAIN.GRADIENT_PENALTY`` keep it from learning
   few images by heart;
4. update the generator against the discriminators, towards its captions, and towards agreement of the two views;
5. update the running average of the generator's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clipgan.config import Config
from clipgan.data.dataset import TextImageDataset
from clipgan.data.from_config import data_fingerprint, training_loader
from clipgan.losses.adversarial import discriminator_loss, generator_loss, kl_loss
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.gradient_penalty import PENALTIES
from clipgan.machine import distributed
from clipgan.machine.compiling import CompiledFunction
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import prepare_training, send
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder, ImageFeatures, TextFeatures
from clipgan.networks.generator import GeneratorOutput
from clipgan.runs.folder import RunFolder
from clipgan.runs.progress import Progress
from clipgan.runs.state import Position, StopSignals, TrainingState
from clipgan.training.diff_augment import DiffAugment
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.gan_report import SHOWN, EpochReport
from clipgan.training.guard import Guard
from clipgan.training.matching import View, matching_losses

REMEDY = "lower TRAIN.GENERATOR_LR and TRAIN.DISCRIMINATOR_LR, or set TRAIN.PRECISION to fp32"
Discriminate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class FrozenEncoder:
    """The frozen encoder as training calls it: in the run's precision, and compiled where TRAIN.COMPILE says so."""

    def __init__(self, encoder: ClipEncoder, config: Config, precision: Precision):
        if precision.low:
            encoder = copy.deepcopy(encoder).store_matrices_in(precision.low)
        self.encode_text: Callable[[Tensor], TextFeatures] = encoder.encode_text
        self.encode_image: Callable[[Tensor], ImageFeatures] = encoder.encode_image
        if config.TRAIN.COMPILE:
            self.encode_text = CompiledFunction(encoder.encode_text, "ClipEncoder.encode_text", varying=[(0, 1)])
            self.encode_image = CompiledFunction(encoder.encode_image, "ClipEncoder.encode_image")


def noise_of_step(config: Config, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Standard normal z [2b, Z] and ε [2b, C] for both views of this process's images: the same in both views.

    The noise of the whole batch depends on the seed and the step only. So any number of processes, and a resumed run,
    draw the same.
    """
    rng = np.random.default_rng((config.SEED, step, *b"noise"))
    widths = [config.GAN.Z_DIM, config.GAN.CONDITION_DIM]
    whole_batch = rng.standard_normal((config.TRAIN.BATCH_SIZE, sum(widths)), dtype=np.float32)
    own = send(distributed.own_slice(torch.from_numpy(whole_batch)), device)         # [b, Z + C]
    noise, condition_noise = own.repeat(2, 1).split(widths, dim=1)
    return noise, condition_noise


def wrong_pairs_of(
    sentence: Tensor, caption_ids: Tensor | None = None
) -> tuple[list[Tensor], float, list[Tensor] | None]:
    """The wrong sentence for each image, by the order of the whole batch: the next one's, none for the last image.

    Args:
        sentence: [2b, E] of both views.
        caption_ids: int64 [b, 2], equal for equal captions; None: captions are not compared.

    Returns:
        For each view the sentences [b, E] for this process's images (b − 1 in the last process); how many wrong
        pairs there are in the whole batch for each process; and for each view which of these pairs are not wrong
        after all, because the image has an equal caption, bool [b] (or [b − 1]).
    """
    views, count = _gather_views(sentence), len(sentence) // 2                       # [B, E] each
    first = distributed.rank() * count + 1
    sentences, not_wrong = [view[first : first + count] for view in views], None
    if caption_ids is not None:
        wrong = distributed.gather(caption_ids)[first : first + count]               # [b, 2]
        equal = wrong.unsqueeze(2) == caption_ids[: len(wrong)].unsqueeze(1)         # [b, view, own caption]
        not_wrong = list(equal.any(dim=2).unbind(dim=1))
    return sentences, (len(views[0]) - 1) / distributed.world_size(), not_wrong


def guidance_losses(
    encoder: ClipEncoder | FrozenEncoder,
    images: Tensor,
    text: TextFeatures,
    class_ids: Tensor,
    config: Config,
    caption_ids: Tensor | None = None,
) -> dict[str, Tensor]:
    """How well the largest images of both views match their captions, and each other.

    An image is no mismatch of a caption equal to one of its own. For NT-Xent, images made from equal captions stay
    negatives: unlike the captions' features in pretraining, they differ by their noise, and a view is told from them
    by it. That asks for images as various as the noise, and contradicts nothing.

    Args:
        encoder: frozen.
        images: [2b, 3, S, S], the second view after the first; b is this process's share of the batch.
        text: features of the 2b captions.
        class_ids: [b].
        config: the run's configuration.
        caption_ids: int64 [b, 2], equal for equal captions; None: captions are not compared.

    Returns:
        ``words`` and ``sentence``, both directions, summed over the views, and ``contrastive``.
    """
    regions, image = encoder.encode_image(images)                                    # [2b, D, R], [2b, E]
    both = (_gather_views(regions), _gather_views(image), text.words.chunk(2), text.word_mask.chunk(2),
            _gather_views(text.sentence))
    views = [View(*features) for features in zip(*both, strict=True)]
    caption_ids = caption_ids if caption_ids is None else distributed.gather(caption_ids)   # [B, 2]
    which = distributed.gather(class_ids), config.TRAIN.SMOOTH, config.TRAIN.WORD_LOSS, caption_ids
    matching = matching_losses(views, *which)
    contrastive = nt_xent(views[0].image, views[1].image, config.TRAIN.CONTRASTIVE.TEMPERATURE)
    return {**matching, "contrastive": contrastive}


def _gather_views(features: Tensor) -> list[Tensor]:
    """[2b, …] of this process, the second view after the first → each view of all processes, [B, …]."""
    return [distributed.gather(view) for view in features.chunk(2)]


def generator_losses(
    out: GeneratorOutput,
    discriminators: Sequence[Discriminate],
    encoder: ClipEncoder | FrozenEncoder,
    text: TextFeatures,
    class_ids: Tensor,
    config: Config,
    caption_ids: Tensor | None = None,
    augment: Callable[[Tensor], Tensor] = lambda images: images,
) -> dict[str, Tensor]:
    """Everything that the generator is trained on, for both views (DM-GAN, eq. 10-12, and NT-Xent as in DM-GAN+CL).

    Returns:
        ``adversarial`` (unconditional + conditional, over all sizes), ``words``, ``sentence``, ``contrastive``, ``kl``,
        and their weighted sum ``loss_g``.
    """
    # A mean over the 2B images times two is the sum over the two views.
    adversarial = 2 * sum(
        generator_loss(discriminator, augment(images), text.sentence)
        for discriminator, images in zip(discriminators, out.images, strict=True)
    )
    kl = 2 * kl_loss(out.mu, out.logvar)
    losses = {"adversarial": adversarial, "kl": kl}
    loss = adversarial + kl
    matching_weight, contrastive_weight = config.TRAIN.SMOOTH.LAMBDA, config.TRAIN.CONTRASTIVE.WEIGHT
    if matching_weight or contrastive_weight:
        guidance = guidance_losses(encoder, out.images[-1], text, class_ids, config, caption_ids)
        loss = loss + matching_weight * (guidance["words"] + guidance["sentence"])
        loss = loss + contrastive_weight * guidance["contrastive"]
        losses.update(guidance)
    return {"loss_g": loss, **losses}


def gradient_penalty(
    config: Config, step: int, discriminator: nn.Module, real: Tensor, sentence: Tensor
) -> Tensor | float:
    """``TRAIN.GRADIENT_PENALTY`` at real images with one caption each; 0 where it is off, or not due at this step.

    A penalty that is due at every k-th step only weighs k times as much there (Karras et al. 2020, StyleGAN2, §3.1).
    """
    penalty = config.TRAIN.GRADIENT_PENALTY
    if not penalty.KIND or step % penalty.EVERY:
        return 0.0
    return penalty.EVERY * penalty.WEIGHT * PENALTIES[penalty.KIND](discriminator, real, sentence)


def rates(config: Config) -> dict[str, float]:
    """The learning rates by the names that the log gives them; a run that goes on may have others."""
    return {"lr_generator": config.TRAIN.GENERATOR_LR, "lr_discriminators": config.TRAIN.DISCRIMINATOR_LR}


def train_gan(
    config: Config,
    networks: GanNetworks,
    encoder: ClipEncoder,
    dataset: TextImageDataset,
    device: torch.device,
    folder: RunFolder,
    measure: Callable[[nn.Module, int], dict[str, float | str]] | None = None,
    draw: Callable[[nn.Module, int], None] | None = None,
    resume: bool = False,
) -> Path:
    """Train ``networks`` in place.

    Args:
        config: the run's configuration.
        networks: the generator and the discriminators.
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
    sampler, loader = training_loader(config, dataset, device)
    total = config.total_steps(len(sampler))
    precision = Precision(config.TRAIN.PRECISION, device)
    prepare_training(device)
    progress = Progress.of(folder, "training", total, config, device)
    guard = Guard(device, folder, REMEDY, progress.say)
    generator, discriminators, average = networks.prepare(config, device, precision, guard)
    frozen = FrozenEncoder(encoder, config, precision)
    trained = {"generator": generator, "average": average, "progress": progress, "guard": guard}
    trained |= {f"discriminator {i}": network for i, network in enumerate(discriminators)}
    networks.data_fingerprint = data_fingerprint(dataset.examples)
    origin = {"encoder": networks.encoder_fingerprint, "data": networks.data_fingerprint}
    state = TrainingState(folder, trained, config, guard.healthy, origin)
    position = state.resume() if resume else Position()
    progress.start(position.step, position.epoch)
    report = EpochReport(config, networks, average, folder, progress, measure, draw)
    with StopSignals() as stop, state, progress:
        while position.step < total or position.batch:
            networks.generator.train()
            sampler.set_epoch(position.epoch, position.batch)
            for batch in loader:
                if position.step >= total:
                    break
                batch = batch.to(device)
                guard.begin(networks.generator)

                # 1. Encode both captions
                with torch.no_grad(), precision.autocast():
                    text = frozen.encode_text(torch.cat(batch.tokens))               # [2b, D, W], [2b, W], [2b, E]

                # 2. Generate both views with the same noise
                noise, condition_noise = noise_of_step(config, position.step, device)
                with precision.autocast():
                    out = generator(noise, condition_noise, text.sentence, text.words, text.word_mask)

                # 3. Update each discriminator on both views
                networks.discriminators.requires_grad_(True).train()
                augment = DiffAugment(config, position.step, device)
                wrong_sentences, *wrong_pairs = wrong_pairs_of(text.sentence, batch.caption_ids)
                losses_d = {}
                for i, discriminator in enumerate(discriminators):
                    real, fakes = augment(batch.images[i]), augment(out.images[i].detach()).chunk(2)
                    views = fakes, text.sentence.chunk(2), wrong_sentences
                    with precision.autocast():
                        loss = discriminator_loss(discriminator, real, *views, *wrong_pairs)
                    loss = loss + gradient_penalty(config, position.step, discriminator.network, real, views[1][0])
                    discriminator.update(loss)
                    losses_d[f"loss_d{i}"] = loss.detach()

                # 4. Update the generator
                networks.discriminators.requires_grad_(False).eval()  # no gradients, no further power iterations
                of_batch = text, batch.class_ids, config, batch.caption_ids
                with precision.autocast():
                    losses = generator_losses(out, networks.discriminators, frozen, *of_batch, augment)
                generator.update(losses["loss_g"])

                # 5. Update the average
                position.count_step()
                made = guard.end(position.step)
                average.update(networks.generator, made)
                losses = {**losses, "loss_d": sum(losses_d.values()), **losses_d, **rates(config), "skipped": 1 - made}
                progress.step(position.step, position.epoch + 1, losses, shown=SHOWN)
                state.after_step(position, stop, last=position.step >= total)
                keep_freed_memory(device)  # not before the first step, which gives the optimizers' states their places

            with state.during_evaluation(position, stop):
                position.end_epoch()
                report(position, last=position.step >= total)
    if total == 0:
        networks.save(folder, average.network, position, config)
    return networks.snapshot(folder, position.epoch)
