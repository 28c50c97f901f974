"""Validation of an encoder: retrieval between captions and images of the test split, and the losses there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.distributed import is_main
from clipgan.evaluation.encoding import evaluation_images, evaluation_loader
from clipgan.evaluation.r_precision import retrieval_hits
from clipgan.evaluation.sampling import spread
from clipgan.losses.damsm import sentence_loss, word_attention, words_loss
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runtime import RunFolder
from clipgan.visualize import first_of_each_class, save_attention_sheet

SHEET_ROWS = 6


class Validation:
    """Measures an encoder on (a fixed part of) the test split; called after every epoch of pretraining.

    The numbers: ``r1`` is the mean of ``r1_image`` (a caption finds its image among 100) and ``r1_text`` (an image
    finds its caption among 100), the other 99 of other classes; ``words`` and ``sentence`` are the losses over
    batches of TRAIN.BATCH_SIZE, caption 0 of each image.
    """

    def __init__(self, examples: Sequence[Example], config: Config, device: torch.device, folder: RunFolder):
        self._examples = spread(examples, config.EVAL.MEASURE_IMAGES)
        self._config = config
        self._device = device
        self._folder = folder
        self._classes = torch.tensor([example.class_id for example in self._examples])
        self._sheet = first_of_each_class(self._classes.tolist(), SHEET_ROWS)
        self._loader: DataLoader | None = None

    @torch.no_grad()
    def __call__(self, encoder: ClipEncoder, epoch: int) -> dict[str, float]:
        """Measure, and draw ``Image/attention_epoch_<epoch>.png``."""
        smooth, size = self._config.TRAIN.SMOOTH, self._config.TRAIN.BATCH_SIZE
        if self._loader is None:
            self._loader = evaluation_loader(self._examples, encoder, self._config, size, self._device)
        image_features, sentences, word_total, sentence_total, batches = [], [], 0.0, 0.0, 0
        for batch in self._loader:
            batch = batch.to(self._device)
            words, word_mask, sentence = encoder.encode_text(batch.tokens[0])
            regions, image = encoder.encode_image(batch.images[-1])
            image_features.append(image.cpu())
            sentences.append(sentence.cpu())
            if len(image) == size or batches == 0:  # a smaller last batch has an easier choice
                gammas = (smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)
                word_total += float(sum(words_loss(words, word_mask, regions, batch.class_ids, *gammas)))
                sentence_total += float(sum(sentence_loss(image, sentence, batch.class_ids, smooth.GAMMA3)))
                batches += 1
        image, text = torch.cat(image_features), torch.cat(sentences)
        own = torch.arange(len(image))
        options = {"own": own, "query_classes": self._classes, "target_classes": self._classes}
        to_image, candidates = retrieval_hits(text, image, **options)
        to_text, _ = retrieval_hits(image, text, **options)
        if is_main():
            self._draw(encoder, epoch)
        r1_image, r1_text = float(to_image.double().mean()), float(to_text.double().mean())
        return {
            "r1": (r1_image + r1_text) / 2,
            "r1_image": r1_image,
            "r1_text": r1_text,
            "candidates": candidates,
            "words": word_total / batches,
            "sentence": sentence_total / batches,
        }

    def _draw(self, encoder: ClipEncoder, epoch: int) -> None:
        examples = [self._examples[i] for i in self._sheet]
        images = evaluation_images(examples, self._config).to(self._device)
        tokens = encoder.tokenize([example.captions[0] for example in examples]).to(self._device)
        words, word_mask, _ = encoder.encode_text(tokens)
        regions, _ = encoder.encode_image(images)
        attention = word_attention(words, word_mask, regions, self._config.TRAIN.SMOOTH.GAMMA1)  # [N, W, R]
        attention = attention.unflatten(2, encoder.region_grid)
        texts = [encoder.words_of(row) for row in tokens.cpu()]
        save_attention_sheet(self._folder.images / f"attention_epoch_{epoch}.png", images, texts, attention)
