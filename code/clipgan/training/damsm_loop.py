"""Pretraining: fine-tune CLIP so that words match regions, sentences match images, and captions of one image agree.

DAMSM is from AttnGAN (Xu et al. 2018, §3.2); the contrastive loss between the two captions of an image from DM-GAN+CL
(Ye et al. 2021), NT-Xent from SimCLR (Chen et al. 2020, eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from clipgan.config import Config
from clipgan.data.dataset import Batch, EpochBatchSampler, TextImageDataset, make_loader
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import sentence_loss, words_loss
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runtime import RunFolder
from clipgan.training.precision import Precision
from clipgan.training.progress import Progress

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


def matching_losses(encoder: ClipEncoder, batch: Batch, config: Config) -> dict[str, Tensor]:
    """The losses of one batch, both captions summed.

    Returns:
        ``words`` and ``sentence`` (both directions, both captions), ``contrastive``, and their weighted sum ``loss``.
    """
    smooth, contrastive = config.TRAIN.SMOOTH, config.TRAIN.CONTRASTIVE
    regions, image = encoder.encode_image(batch.images[-1])                          # [B, D, R], [B, E]
    words, word_mask, sentence = encoder.encode_text(torch.cat(batch.tokens))        # [2B, D, W], [2B, W], [2B, E]
    word_total, sentence_total = 0.0, 0.0
    views = zip(words.chunk(2), word_mask.chunk(2), sentence.chunk(2), strict=True)
    for view_words, view_mask, view_sentence in views:
        word_total = word_total + sum(
            words_loss(
                view_words, view_mask, regions, batch.class_ids, smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3
            )
        )
        sentence_total = sentence_total + sum(sentence_loss(image, view_sentence, batch.class_ids, smooth.GAMMA3))
    between_captions = nt_xent(*sentence.chunk(2), contrastive.TEMPERATURE)
    weight = 1.0 if contrastive.WEIGHT is None else contrastive.WEIGHT
    return {
        "loss": word_total + sentence_total + weight * between_captions,
        "words": word_total,
        "sentence": sentence_total,
        "contrastive": between_captions,
    }


def pretrain(
    config: Config,
    encoder: ClipEncoder,
    dataset: TextImageDataset,
    device: torch.device,
    folder: RunFolder,
    validate: Callable[[ClipEncoder, int], dict[str, float]],
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

    Returns:
        The path of ``clip_best.pth``.
    """
    train = config.TRAIN
    sampler = EpochBatchSampler(len(dataset), train.BATCH_SIZE, config.SEED)
    loader = make_loader(dataset, sampler, config.WORKERS, device)
    total = train.MAX_EPOCH * len(sampler)
    total = min(total, train.MAX_STEPS) if train.MAX_STEPS else total

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

    best, step, epoch = -1.0, 0, 0
    while step < total:
        encoder.train()
        sampler.set_epoch(epoch)
        for batch in loader:
            batch = batch.to(device)

            # Encode and compare
            with precision.autocast():
                losses = matching_losses(encoder, batch, config)

            # Update the encoder
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(losses["loss"]).backward()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(backbone + projection, train.RNN_GRAD_CLIP)
            scaler.step(optimizer)
            scaler.update()
            lr_backbone, lr_projection = schedule.get_last_lr()
            schedule.step()

            step += 1
            rates = {"grad_norm": norm, "lr_backbone": lr_backbone, "lr_projection": lr_projection}
            progress.step(step, epoch + 1, {**losses, **rates}, shown=("loss", "words", "sentence", "contrastive"))
            if step == total:
                break
        epoch += 1

        # Validate, and keep the best
        encoder.eval()
        numbers = validate(encoder, epoch)
        progress.write("eval", step, epoch, numbers)
        progress.say(f"epoch {epoch}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
        extra = {"epoch": epoch, "step": step, "metrics": numbers, "chosen_on": "test", "config": asdict(config)}
        if numbers["r1"] > best:
            best = numbers["r1"]
            encoder.save(folder.models / "clip_best.pth", **extra)
        if epoch % train.SNAPSHOT_INTERVAL == 0 or step == total:
            encoder.save(folder.models / f"clip{epoch}.pth", **extra)
    progress.close()
    return folder.models / "clip_best.pth"
