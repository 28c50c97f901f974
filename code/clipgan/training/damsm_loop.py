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
import torch.nn.functional as F
from torch import Tensor

from clipgan import distributed
from clipgan.config import Config
from clipgan.data.dataset import Batch, TextImageDataset
from clipgan.data.from_config import training_loader
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import sentence_loss
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runtime import RunFolder, keep_freed_memory
from clipgan.training.matching import words_matching
from clipgan.training.precision import Precision, compile_methods, full_precision
from clipgan.training.progress import Progress
from clipgan.training.state import Position, StopSignals, TrainingState, random_state, set_random_state

# Fractions of the run in which the learning rates rise to their peaks.
BACKBONE_WARMUP, PROJECTION_WARMUP = 0.02, 0.10


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


class Features(NamedTuple):
    """What the losses compare: b images and the two captions of each."""

    regions: Tensor    # [b, D, R]
    image: Tensor      # [b, E]
    words: Tensor      # [b, 2, D, W]
    word_mask: Tensor  # [b, 2, W], True = a real word
    sentence: Tensor   # [b, 2, E]


def encode(encoder: ClipEncoder, images: Tensor, tokens: Tensor) -> Features:
    """Encode each image once, [b, 3, S, S], and both of its captions, [b, 2, T]."""
    regions, image = encoder.encode_image(images)
    text = encoder.encode_text(tokens.flatten(0, 1))
    return Features(regions, image, *(tensor.unflatten(0, tokens.shape[:2]) for tensor in text))


def compare(features: Features, class_ids: Tensor, config: Config) -> dict[str, Tensor]:
    """The losses, both captions summed, over the batch of all processes; ``class_ids`` are this one's, [b].

    Returns:
        ``words`` and ``sentence`` (both directions, both captions), ``contrastive``, and their weighted sum ``loss``.
    """
    smooth, contrastive = config.TRAIN.SMOOTH, config.TRAIN.CONTRASTIVE
    regions, image = distributed.gather(features.regions), distributed.gather(features.image)   # [B, D, R], [B, E]
    sentence, class_ids = distributed.gather(features.sentence), distributed.gather(class_ids)  # [B, 2, E], [B]
    word_total, sentence_total = 0.0, 0.0
    for view in (0, 1):
        words, word_mask = features.words[:, view], features.word_mask[:, view]
        word_total = word_total + words_matching(words, word_mask, regions, class_ids, smooth)
        sentence_total = sentence_total + sum(sentence_loss(image, sentence[:, view], class_ids, smooth.GAMMA3))
    between_captions = nt_xent(sentence[:, 0], sentence[:, 1], contrastive.TEMPERATURE)
    weight = 1.0 if contrastive.WEIGHT is None else contrastive.WEIGHT
    return {
        "loss": word_total + sentence_total + weight * between_captions,
        "words": word_total,
        "sentence": sentence_total,
        "contrastive": between_captions,
    }


def backward(
    encoder: ClipEncoder, batch: Batch, config: Config, precision: Precision, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Add the gradients of one batch to the encoder's weights; returns the losses.

    With ``TRAIN.ACCUMULATE`` parts, one part is held in memory at a time: the whole batch is encoded part by part
    without keeping anything, the losses give the gradients of the features, and each part is encoded once more to
    take its own further back (gradient caching, Gao et al. 2021). It is the same gradient, for a third more work.
    """
    images, tokens = batch.images[-1], torch.stack(batch.tokens, dim=1)              # [b, 3, S, S], [b, 2, T]
    parts = config.TRAIN.ACCUMULATE
    if parts == 1:
        with precision.autocast():
            losses = compare(encode(encoder, images, tokens), batch.class_ids, config)
        scaler.scale(losses["loss"]).backward()
        return losses

    pieces, cached, states = list(zip(images.chunk(parts), tokens.chunk(parts), strict=True)), [], []
    for piece in pieces:
        states.append(random_state())  # the second pass drops out what the first did, where the encoder has dropout
        with torch.no_grad(), precision.autocast():
            cached.append(encode(encoder, *piece))
    length = max(part.words.shape[-1] for part in cached)
    features = Features(*map(torch.cat, zip(*(_padded(part, length) for part in cached), strict=True)))
    features = Features(*(tensor.requires_grad_(tensor.is_floating_point()) for tensor in features))
    losses = compare(features, batch.class_ids, config)
    scaler.scale(losses["loss"]).backward()

    end = 0
    for piece, state in zip(pieces, states, strict=True):
        set_random_state(state)
        with precision.autocast():
            part = _padded(encode(encoder, *piece), length)
        start, end = end, end + len(part.image)
        wanted = [(tensor, whole.grad) for tensor, whole in zip(part, features, strict=True) if whole.grad is not None]
        torch.autograd.backward([tensor for tensor, _ in wanted], [gradient[start:end] for _, gradient in wanted])
    return losses


def _padded(features: Features, length: int) -> Features:
    """The same with this many columns for words."""
    missing = (0, length - features.words.shape[-1])
    return features._replace(words=F.pad(features.words, missing), word_mask=F.pad(features.word_mask, missing))


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

    projection = list(encoder.region_projection.parameters())
    backbone = [p for name, p in encoder.clip.named_parameters() if not name.startswith("logit_")]
    optimizer = torch.optim.Adam(
        [{"params": backbone, "lr": train.BACKBONE_LR}, {"params": projection, "lr": train.LINEAR_LR}],
        betas=(0.9, 0.98),
        foreach=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        [lambda step: one_cycle(step, total, BACKBONE_WARMUP), lambda step: one_cycle(step, total, PROJECTION_WARMUP)],
    )
    precision = Precision(train.PRECISION, device)
    scaler = precision.scaler()
    progress = Progress(folder.metrics, total, "pretraining")
    parts = {"encoder": encoder, "optimizer": optimizer, "schedule": schedule, "scaler": scaler, "progress": progress}
    state = TrainingState(folder, parts, config)
    now = state.resume() if resume else Position()
    progress.start(now.step)
    if now.step == 0:
        distributed.broadcast(encoder)
    compile_methods(train.COMPILE, encoder, "encode_image", "encode_text")

    with StopSignals() as stop:
        while now.step < total or now.batch:
            encoder.train()
            sampler.set_epoch(now.epoch, now.batch)
            for batch in loader:
                if now.step == total:
                    break
                batch = batch.to(device)

                # Encode, compare and propagate back
                optimizer.zero_grad(set_to_none=True)
                losses = backward(encoder, batch, config, precision, scaler)

                # Update the encoder
                distributed.average_gradients(backbone + projection)
                scaler.unscale_(optimizer)
                norm = torch.nn.utils.clip_grad_norm_(backbone + projection, train.RNN_GRAD_CLIP)
                scaler.step(optimizer)
                scaler.update()
                lr_backbone, lr_projection = schedule.get_last_lr()
                schedule.step()

                now.count_step()
                numbers = {**losses, "grad_norm": norm, "lr_backbone": lr_backbone, "lr_projection": lr_projection}
                progress.step(now.step, now.epoch + 1, numbers, shown=("loss", "words", "sentence", "contrastive"))
                state.after_step(now, stop)
                keep_freed_memory(device)  # not before the first step, which gives the optimizer's state its place

            # Validate, and keep the best
            with state.during_evaluation(now, stop), full_precision(device):
                now.end_epoch()
                encoder.eval()
                numbers = validate(encoder, now.epoch)
                progress.write("eval", now.step, now.epoch, numbers)
                progress.say(f"epoch {now.epoch}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
                is_best, now.best = numbers["r1"] > now.best, max(numbers["r1"], now.best)
                if distributed.is_main():
                    _save(encoder, folder, config, now, numbers, is_best, now.step == total)
                    folder.draw_curves()
    progress.close()
    return folder.models / "clip_best.pth"


def _save(
    encoder: ClipEncoder,
    folder: RunFolder,
    config: Config,
    now: Position,
    numbers: dict[str, float],
    is_best: bool,
    is_last: bool,
) -> None:
    """Write the snapshots that are due after an epoch."""
    extra = {"epoch": now.epoch, "step": now.step, "metrics": numbers, "chosen_on": "test", "config": asdict(config)}
    if is_best:
        encoder.save(folder.models / "clip_best.pth", **extra)
    if now.epoch % config.TRAIN.SNAPSHOT_INTERVAL == 0 or is_last:
        encoder.save(folder.models / f"clip{now.epoch}.pth", **extra)
