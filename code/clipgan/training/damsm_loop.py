"""Pretraining: fine-tune CLIP so that words match regions, sentences match images, and captions of one image agree.

DAMSM is from AttnGAN (Xu et al. 2018, §3.2); the contrastive loss between the two captions of an image from DM-GAN+CL
(Ye et al. 2021), NT-Xent from SimCLR (Chen et al. 2020, eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clipgan.config import Config
from clipgan.data.dataset import Batch, TextImageDataset
from clipgan.data.from_config import data_fingerprint, training_loader
from clipgan.losses.contrastive import equal_captions, nt_xent
from clipgan.machine import distributed
from clipgan.machine.compiling import compile_forward
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import prepare_training
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.folder import RunFolder
from clipgan.runs.progress import Progress
from clipgan.runs.snapshots import save_encoder
from clipgan.runs.state import Position, StopSignals, TrainingState, random_state, set_random_state
from clipgan.training.guard import Guard, step_if_allowed
from clipgan.training.matching import View, matching_losses

# Fractions of the run in which the learning rates rise to their peaks.
BACKBONE_WARMUP, PROJECTION_WARMUP = 0.02, 0.10
REMEDY = "lower TRAIN.BACKBONE_LR and TRAIN.LINEAR_LR, or set TRAIN.PRECISION to fp32"
SHOWN = ("loss", "words", "sentence", "contrastive")


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Factor of the peak learning rate at ``step`` of ``total``: a cosine up from 1/25, a cosine down to 1/250 000.

    Smith and Topin 2018, with torch's default end points.
    """
    rise = max(1.0, warmup * total)
    if step < rise:
        low, high, phase = 1 / 25, 1.0, step / rise
    else:
        low, high, phase = 1.0, 1 / 25e4, min(1.0, (step - rise) / max(1.0, total - 1 - rise))
    return high + (low - high) * (1 + math.cos(math.pi * phase)) / 2


def learning_rates(config: Config, step: int, total: int) -> dict[str, float]:
    """The rates of CLIP's own weights and of the region projection, by the names that the log gives them."""
    return {
        "lr_backbone": config.TRAIN.BACKBONE_LR * one_cycle(step, total, BACKBONE_WARMUP),
        "lr_projection": config.TRAIN.LINEAR_LR * one_cycle(step, total, PROJECTION_WARMUP),
    }


def trained_weights(encoder: ClipEncoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """CLIP's own weights and those of the region projection. CLIP's temperature, which no loss uses, is frozen."""
    for name, weight in encoder.clip.named_parameters():
        weight.requires_grad_(not name.startswith("logit_"))
    backbone = [weight for weight in encoder.clip.parameters() if weight.requires_grad]
    return backbone, list(encoder.region_projection.parameters())


class Features(NamedTuple):
    """What the losses compare: b images and the two captions of each."""

    regions: Tensor    # [b, D, R]
    image: Tensor      # [b, E]
    words: Tensor      # [b, 2, D, W]
    word_mask: Tensor  # [b, 2, W], True = a real word
    sentence: Tensor   # [b, 2, E]


def encode(encoder: nn.Module, images: Tensor, tokens: Tensor) -> Features:
    """Encode each image once, [b, 3, S, S], and both of its captions, [b, 2, L]."""
    of_images, of_captions = encoder(images, tokens.flatten(0, 1))
    return Features(*of_images, *(tensor.unflatten(0, tokens.shape[:2]) for tensor in of_captions))


def compare(
    features: Features, class_ids: Tensor, config: Config, caption_ids: Tensor | None = None
) -> dict[str, Tensor]:
    """The losses, both captions summed, over the batch of all processes.

    Args:
        features: of this process's images and captions.
        class_ids: this process's, [b].
        config: the run's configuration.
        caption_ids: this process's, int64 [b, 2]. Equal captions of two images are no mismatches of these, and no
            negatives of one another. None: captions are not compared.

    Returns:
        ``words`` and ``sentence`` (both directions, both captions), ``contrastive``, and their weighted sum ``loss``.
    """
    contrastive = config.TRAIN.CONTRASTIVE
    regions, image = distributed.gather(features.regions), distributed.gather(features.image)   # [B, D, R], [B, E]
    sentence, class_ids = distributed.gather(features.sentence), distributed.gather(class_ids)  # [B, 2, E], [B]
    views = [
        View(regions, image, features.words[:, caption], features.word_mask[:, caption], sentence[:, caption])
        for caption in (0, 1)
    ]
    caption_ids = caption_ids if caption_ids is None else distributed.gather(caption_ids)       # [B, 2]
    equal = caption_ids if caption_ids is None else equal_captions(caption_ids)                 # [2B, 2B]
    losses = matching_losses(views, class_ids, config.TRAIN.SMOOTH, caption_ids=caption_ids)
    losses["contrastive"] = nt_xent(views[0].sentence, views[1].sentence, contrastive.TEMPERATURE, equal)
    loss = losses["words"] + losses["sentence"] + contrastive.WEIGHT * losses["contrastive"]
    return {"loss": loss, **losses}


def backward(
    encoder: nn.Module, batch: Batch, config: Config, precision: Precision, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Add the gradients of one batch to the encoder's weights; returns the losses.

    With ``TRAIN.ACCUMULATE`` parts, one part is held in memory at a time: the whole batch is encoded part by part
    without keeping anything, the losses give the gradients of the features, and each part is encoded once more to
    take its own further back (gradient caching, Gao et al. 2021). It is the same gradient, for a third more work.

    Args:
        encoder: what ``distributed.data_parallel`` makes of a :class:`ClipEncoder`.
        batch: on the encoder's device.
        config: the run's configuration.
        precision: what the encoder computes in.
        scaler: of the loss.
    """
    images, tokens = batch.images[-1], torch.stack(batch.tokens, dim=1)              # [b, 3, S, S], [b, 2, L]
    parts = config.TRAIN.ACCUMULATE
    if parts == 1:
        with precision.autocast():
            losses = compare(encode(encoder, images, tokens), batch.class_ids, config, batch.caption_ids)
        scaler.scale(losses["loss"]).backward()
        return losses

    # Encode every part, and keep its features only
    pieces = list(zip(images.chunk(parts), tokens.chunk(parts), strict=True))
    states, encoded = [], []
    for piece in pieces:
        states.append(random_state())  # the second pass drops out what the first did, where the encoder has dropout
        with torch.no_grad(), precision.autocast():
            encoded.append(encode(encoder, *piece))

    # Compare the whole batch, down to the gradients of the features
    features = Features(*map(torch.cat, zip(*encoded, strict=True)))
    features = Features(*(tensor.requires_grad_(tensor.is_floating_point()) for tensor in features))
    losses = compare(features, batch.class_ids, config, batch.caption_ids)
    scaler.scale(losses["loss"]).backward()

    # Encode every part again, and take its gradients on to the weights
    end = 0
    for number, (piece, state) in enumerate(zip(pieces, states, strict=True), start=1):
        set_random_state(state)
        with distributed.gradients_averaged(encoder, number == parts):
            with precision.autocast():
                part = encode(encoder, *piece)
            start, end = end, end + len(part.image)
            wanted = [(tensor, whole.grad) for tensor, whole in zip(part, features, strict=True)
                      if whole.grad is not None]
            torch.autograd.backward([tensor for tensor, _ in wanted],
                                    [gradient[start:end] for _, gradient in wanted])
    return losses


def pretrain(
    config: Config,
    encoder: ClipEncoder,
    dataset: TextImageDataset,
    device: torch.device,
    folder: RunFolder,
    validate: Callable[[ClipEncoder, int], dict[str, float]],
    resume: bool = False,
) -> Path:
    """Fine-tune ``encoder`` in place.

    Args:
        config: the run's configuration.
        encoder: on ``device``.
        dataset: the training split.
        device: where to compute.
        folder: gets ``Model/clip<epoch>.pth``, ``Model/clip_best.pth`` and ``metrics.jsonl``.
        validate: called with the encoder and the epoch after every epoch, on the test split; its numbers are logged.
            The snapshot with the highest ``r1`` becomes ``clip_best.pth``, which says where it was ``chosen_on``.
        resume: go on from the newest training state in ``folder``.

    Returns:
        The path of ``clip_best.pth``.

    Raises:
        Stopped: the process was asked to end; the training state is written.
        UserError: ``resume`` without a state.
    """
    train = config.TRAIN
    sampler, loader = training_loader(config, dataset, device)
    total = config.total_steps(len(sampler))
    precision = Precision(train.PRECISION, device)
    prepare_training(device)

    backbone, projection = trained_weights(encoder)
    optimizer = torch.optim.Adam(
        [{"params": backbone}, {"params": projection}], lr=0.0, betas=(0.9, 0.98), fused=True
    )
    scaler = precision.scaler()
    progress = Progress.of(folder, "pretraining", total, config, device)
    guard = Guard(device, folder, REMEDY, progress.say)
    trained = {"encoder": encoder, "optimizer": optimizer, "scaler": scaler, "progress": progress, "guard": guard}
    state = TrainingState(folder, trained, config, guard.healthy, {"data": data_fingerprint(dataset.examples)})
    position = state.resume() if resume else Position()
    progress.start(position.step, position.epoch)
    parallel_encoder = distributed.data_parallel(encoder)
    if train.COMPILE:
        compile_forward(encoder, varying=[(1, 1)])  # the captions' length

    with StopSignals() as stop, state, progress:
        while position.step < total or position.batch:
            encoder.train()
            sampler.set_epoch(position.epoch, position.batch)
            for batch in loader:
                if position.step >= total:
                    break
                batch = batch.to(device)
                guard.begin()

                # Encode, compare and propagate back
                optimizer.zero_grad(set_to_none=True)
                losses = backward(parallel_encoder, batch, config, precision, scaler)

                # Update the encoder; skipped steps do not move the schedule
                scaler.unscale_(optimizer)
                rates = learning_rates(config, position.step - guard.skipped, total)
                for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
                    group["lr"] = rate
                norm = torch.nn.utils.clip_grad_norm_(backbone + projection, train.RNN_GRAD_CLIP)
                step_if_allowed(optimizer, guard.allow("loss", losses["loss"], norm))
                scaler.update()

                position.count_step()
                numbers = {**losses, "grad_norm": norm, **rates, "skipped": 1 - guard.end(position.step)}
                progress.step(position.step, position.epoch + 1, numbers, shown=SHOWN)
                state.after_step(position, stop, last=position.step >= total)
                keep_freed_memory(device)  # not before the first step, which gives the optimizer's state its place

            # Validate, and keep the best
            with state.during_evaluation(position, stop):
                position.end_epoch()
                encoder.eval()
                numbers = validate(encoder, position.epoch)
                progress.write("eval", position.step, position.epoch, numbers)
                is_best, position.best = numbers["r1"] > position.best, max(numbers["r1"], position.best)
                if distributed.is_main():
                    _save(encoder, folder, config, position, numbers, is_best, position.step >= total)
                    folder.draw_curves()
                progress.end_epoch(position.epoch, SHOWN, numbers)
    return folder.models / "clip_best.pth"


def _save(
    encoder: ClipEncoder,
    folder: RunFolder,
    config: Config,
    position: Position,
    numbers: dict[str, float],
    is_best: bool,
    is_last: bool,
) -> None:
    """Write the snapshots that are due after an epoch."""
    extra = {"epoch": position.epoch, "step": position.step, "metrics": numbers, "chosen_on": "test"}
    extra["config"] = asdict(config)
    if is_best:
        save_encoder(folder.models / "clip_best.pth", encoder, **extra)
    if position.epoch % config.TRAIN.SNAPSHOT_INTERVAL == 0 or is_last:
        save_encoder(folder.models / f"clip{position.epoch}.pth", encoder, **extra)
