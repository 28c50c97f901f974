"""Validation of an encoder: retrieval between captions and images of the test split, and the losses on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.evaluation.encoding import evaluation_images, evaluation_loader
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.metrics.r_precision import count_candidates, retrieval_hits
from clipgan.evaluation.sampling import evenly_spaced
from clipgan.losses.damsm import word_attention
from clipgan.machine import distributed
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.folder import RunFolder
from clipgan.training.matching import View, matching_losses
from clipgan.visualize import first_of_each_class, save_attention_sheet

SHEET_ROWS = 6


class Validation:
    """Measures an encoder on (a fixed part of) the test split; called after every epoch of pretraining.

    ``r1`` is the mean of ``r1_image`` (a caption finds its image among 100) and ``r1_text`` (an image finds its caption
    among 100). The other 99 are of other classes, and an image whose caption 0 or 1 equals the caption is not among
    them. ``words`` and ``sentence`` are the losses over batches of TRAIN.BATCH_SIZE in a fixed random order. Caption 0
    of each image is used.

    Raises:
        UserError: the classes or the captions leave an image or a caption nothing to be told from.
    """

    def __init__(self, examples: Sequence[Example], config: Config, device: torch.device, folder: RunFolder):
        self._examples = evenly_spaced(examples, config.EVAL.MEASURE_IMAGES)
        self._config = config
        self._device = device
        self._folder = folder
        self._classes = torch.tensor([example.class_id for example in self._examples])
        self._sheet = first_of_each_class(self._classes.tolist(), SHEET_ROWS)
        # Splits are sorted by class. A batch of one class has no pairs to tell apart, so the order is random.
        order = np.random.default_rng(config.SEED).permutation(len(self._examples))
        self._order = torch.from_numpy(order)
        self._loader: DataLoader | None = None
        numbers: dict[str, int] = {}
        texts = [(example.captions[0], example.captions[:2][-1]) for example in self._examples]
        ids = torch.tensor([[numbers.setdefault(text, len(numbers)) for text in both] for both in texts])
        for direction in self._compared(ids):
            count_candidates(**direction)  # too few are refused here, not after an epoch

    @torch.no_grad()
    @full_precision()
    def __call__(self, encoder: ClipEncoder, epoch: int) -> dict[str, float]:
        """Measure, and draw ``Image/attention_epoch_<epoch>.png``."""
        size = self._config.TRAIN.BATCH_SIZE
        if self._loader is None:
            self._loader = evaluation_loader(
                self._examples, encoder, self._config, size, self._device, self._order.tolist()
            )
        parts = []
        for batch in self._loader:
            batch = batch.to(self._device)
            view = View(*encoder.encode_image(batch.images[-1]), *encoder.encode_text(batch.tokens[0]))
            smooth, ids = self._config.TRAIN.SMOOTH, batch.caption_ids
            losses = matching_losses([view], batch.class_ids, smooth, caption_ids=ids)
            numbers = (float(losses["words"]), float(losses["sentence"]))
            parts.append((view.image.cpu(), view.sentence.cpu(), ids.cpu(), numbers))
        images, sentences, ids, losses = zip(*distributed.join(parts), strict=True)
        back = self._order.argsort()
        image, text = torch.cat(images)[back], torch.cat(sentences)[back]
        full = [loss for part, loss in zip(images, losses, strict=True) if len(part) == size]
        word_losses, sentence_losses = zip(*(full or losses), strict=True)  # a smaller batch is easier
        own, (of_captions, of_images) = torch.arange(len(image)), self._compared(torch.cat(ids)[back])
        to_image, candidates = retrieval_hits(text, image, own, **of_captions)
        to_text, _ = retrieval_hits(image, text, own, **of_images)
        if distributed.is_main():
            self._draw(encoder, epoch)
        r1_image, r1_text = float(to_image.double().mean()), float(to_text.double().mean())
        numbers = {
            "r1": (r1_image + r1_text) / 2,
            "r1_image": r1_image,
            "r1_text": r1_text,
            "candidates": candidates,
            "words": sum(word_losses) / len(word_losses),
            "sentence": sum(sentence_losses) / len(sentence_losses),
        }
        require_finite(numbers, "the validation of the encoder")
        return numbers

    def _compared(self, ids: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What decides the candidates of captions, and of images; ``ids`` [N, 2] of captions 0 and 1 of each image."""
        classes = {"query_classes": self._classes, "target_classes": self._classes}
        return (
            {**classes, "query_captions": ids[:, 0], "target_captions": ids},
            {**classes, "query_captions": ids, "target_captions": ids[:, 0]},
        )

    def _draw(self, encoder: ClipEncoder, epoch: int) -> None:
        examples = [self._examples[i] for i in self._sheet]
        images = evaluation_images(examples, self._config).to(self._device)
        tokens = encoder.tokenize([example.captions[0] for example in examples]).to(self._device)
        words, word_mask, _ = encoder.encode_text(tokens)
        regions, _ = encoder.encode_image(images)
        attention = word_attention(words, word_mask, regions, self._config.TRAIN.SMOOTH.GAMMA1)  # [N, W, R]
        attention = attention.unflatten(2, encoder.region_grid)
        texts = [encoder.tokenize.words_of(row) for row in tokens.cpu()]
        save_attention_sheet(self._folder.images / f"attention_epoch_{epoch}.png", images, texts, attention)
