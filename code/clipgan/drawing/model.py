"""A trained model that draws sentences: ``clipgan.load("birds.safetensors")("a small red bird")``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipgan.data.captions import prepare_caption
from clipgan.data.images import load_image, to_tensor
from clipgan.drawing.drawing import Drawing
from clipgan.errors import UserError
from clipgan.evaluation.sampling import noises_of
from clipgan.files.gate import short
from clipgan.machine.device import place
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder, TextFeatures
from clipgan.networks.generator import Generator
from clipgan.runs.model_file import ModelFile, read_model
from clipgan.visualize import to_image

LARGEST_SEED, LARGEST_COUNT = 2**63 - 1, 10_000


class Caption(NamedTuple):
    """A text as the encoder reads it."""

    text: str  # as it was given
    tokens: Tensor  # int64 [1, L]
    words: tuple[str, ...]
    pieces: tuple[int, ...]  # how many tokens each word has
    notes: tuple[str, ...]


class Ranked(NamedTuple):
    """An image's place among those that were ranked."""

    index: int  # which of the images
    score: float  # cosine with the text, in [−1, 1]


class Model:
    """Draws pictures of sentences. One seed gives one picture, whatever else is drawn with it.

    Pictures are the same bytes on one machine; on another processor or GPU single pixels may differ by rounding.

    Args:
        file: generator, encoder and what is known of them.
        device: where to compute; None takes CUDA if there is one, else the CPU.
    """

    def __init__(self, file: ModelFile, device: str | torch.device | None = None):
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.device = torch.device(chosen)
            self.generator: Generator = place(file.generator.requires_grad_(False).eval(), self.device)
            self.encoder: ClipEncoder = file.encoder.freeze().to(self.device)
        except (RuntimeError, AssertionError) as error:  # how PyTorch says that there is no such device
            raise UserError(f"device {short(str(chosen))}: {error}; expected cpu, cuda or cuda:N") from None
        self.file = file
        self._raw_captions = file.config.TEXT.RAW_CAPTIONS
        self._vocabulary = frozenset(file.vocabulary)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def sizes(self) -> list[int]:
        """Sides of the pictures in pixels, smallest first."""
        return self.file.config.image_sizes

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a reader of the pictures may want to know of the model: pairs of a name and a text."""
        file, data = self.file, self.file.data_set
        facts = [("model", self.name), ("sizes", ", ".join(f"{size} px" for size in self.sizes))]
        facts.append(("encoder", self.encoder.spec.name))
        if data.get("name"):
            images = f", {data['images']} training images" if data.get("images") else ""
            facts.append(("data set", f"{data['name']}{images}"))
        for score in file.scores:
            spread = f" ± {score['spread']:.3f}" if score.get("spread") is not None else ""
            notice = f" ({score['notice']})" if score.get("notice") else ""
            facts.append((score["name"], f"{score['value']:.3f}{spread}{notice}; {score['protocol']}"))
        return facts + ([("exported", file.date)] if file.date else [])

    def __repr__(self) -> str:
        return f"<clipgan model {self.name!r}: {self.sizes[-1]} px, on {self.device}>"

    def __call__(self, text: str, count: int = 1, seed: int = 0) -> list[Image.Image]:
        """Draw ``count`` pictures of a text, RGB.

        Raises:
            UserError: no word of the text can be read, or ``count`` or ``seed`` is out of range.
        """
        return [drawing.image for drawing in self.draw(text, count, seed)]

    def draw(
        self, texts: str | Sequence[str], count: int = 1, seed: int = 0, best: int | None = None
    ) -> list[Drawing]:
        """Draw pictures of every text, at all sizes, with where the words attend.

        Args:
            texts: one, or several.
            count: pictures of each text.
            seed: of the noise; picture k of every text has the same noise.
            best: keep so many of each text's pictures, those that the encoder finds nearest to it, nearest first.

        Raises:
            UserError: as :meth:`__call__`; ``best`` is out of range, or the model has no image side.
        """
        return list(self.drawings(texts, count, seed, best))

    def drawings(
        self, texts: str | Sequence[str], count: int = 1, seed: int = 0, best: int | None = None
    ) -> Iterator[Drawing]:
        """As :meth:`draw`, one after the other. All arguments are checked before the first is drawn."""
        count, seed = _require("count", count, 1, LARGEST_COUNT), _require("seed", seed, 0, LARGEST_SEED)
        captions = [self.read(text) for text in (texts if isinstance(texts, list | tuple) else [texts])]
        if best is not None:
            best = _require("best", best, 1, count)
            self._require_image_side("keep the best pictures")
        return self._draw_each(captions, count, seed, best)

    def _draw_each(self, captions: list[Caption], count: int, seed: int, best: int | None) -> Iterator[Drawing]:
        for caption in captions:
            features = self._encode(caption)
            if best is None:
                for number in range(count):
                    yield self._draw(caption, features, seed, number)
            else:
                nearest: list[Drawing] = []
                for number in range(count):
                    drawing = self._draw(caption, features, seed, number)
                    score = self._score(drawing.image, features)
                    nearest.append(replace(drawing, score=score))
                    nearest = sorted(nearest, key=lambda drawing: -drawing.score)[:best]
                yield from nearest

    def attention(self, text: str, seed: int = 0, number: int = 0) -> list[tuple[str, np.ndarray]]:
        """Where each word of a text attends in its picture.

        Returns:
            Pairs of a word and a map, float32 [h, w], of the finest memory stage: how much the word says to each place.
            At every place the shares of all words sum to 1. Empty for a generator of a single size.

        Raises:
            UserError: as :meth:`__call__`.
        """
        seed, number = _require("seed", seed, 0, LARGEST_SEED), _require("number", number, 0, LARGEST_COUNT)
        caption = self.read(text)
        drawing = self._draw(caption, self._encode(caption), seed, number)
        return list(zip(drawing.words, drawing.attention[-1], strict=True)) if drawing.attention else []

    def interpolate(self, a: str, b: str, steps: int = 8, seed: int = 0, number: int = 0) -> list[Image.Image]:
        """Pictures on the way from one text to another; the noise stays.

        The sentence moves in a straight line. The memory holds the words of both texts; those of ``a`` lose weight in
        its attention as those of ``b`` gain it. The first and the last picture are those of ``a`` and ``b`` alone.

        Raises:
            UserError: as :meth:`__call__`, or fewer than 2 ``steps``.
        """
        steps = _require("steps", steps, 2, LARGEST_COUNT)
        seed, number = _require("seed", seed, 0, LARGEST_SEED), _require("number", number, 0, LARGEST_COUNT)
        ends = [self._encode(self.read(text)) for text in (a, b)]
        words = torch.cat([end.words for end in ends], dim=2)                        # [1, D, Wa + Wb]
        pictures = []
        for share in torch.linspace(0, 1, steps).tolist():
            if share in (0, 1):
                features = ends[int(share)]
            else:
                weights = [end.word_mask * part for end, part in zip(ends, (1 - share, share), strict=True)]
                sentence = torch.lerp(ends[0].sentence, ends[1].sentence, share)     # [1, E]
                features = TextFeatures(words, torch.cat(weights, dim=1), sentence)
            pictures.append(to_image(self._generate(features, seed, number)[0][-1]))
        return pictures

    def rank(self, images: Sequence[Image.Image | Drawing | str | Path], text: str) -> list[Ranked]:
        """Order images by how near the encoder finds them to a text, nearest first.

        Raises:
            UserError: the model has no image side, no word of the text can be read, or a file is no image.
        """
        self._require_image_side("rank images")
        pictures = list(map(_picture, images))
        features = self._encode(self.read(text))
        scores = [self._score(picture, features) for picture in pictures]
        return sorted((Ranked(*pair) for pair in enumerate(scores)), key=lambda ranked: -ranked.score)

    def read(self, text: str) -> Caption:
        """What the encoder makes of a text.

        Raises:
            UserError: no word of it can be read.
        """
        if not isinstance(text, str):
            raise UserError(f"a text is expected, not {short(text)}")
        prepared = prepare_caption(text, self._raw_captions)
        if not prepared:
            raise UserError(f"the text {short(text)} holds no word of letters a-z or digits, which this model reads")
        tokens = self.encoder.tokenize([prepared])
        words, pieces = zip(*self.encoder.tokenize.whole_words(tokens[0]), strict=True)
        return Caption(text, tokens, words, pieces, tuple(self._notes(text, prepared, words)))

    def _notes(self, text: str, prepared: str, words: Sequence[str]) -> Iterator[str]:
        if not self._raw_captions and any(character.isalnum() and not character.isascii() for character in text):
            yield f"It is read as {short(prepared)}: letters other than a-z are left out."
        read = dict.fromkeys(self.encoder.tokenize.split(prepared)[: len(words)])  # the last one whole, if it was cut
        unknown = [word for word in read if word not in self._vocabulary and any(map(str.isalnum, word))]
        if self._vocabulary and unknown:
            some = ", ".join(short(word) for word in unknown[:8]) + (", …" if len(unknown) > 8 else "")
            yield f"Training never saw the word{'s' * (len(unknown) > 1)} {some}."
        rest = self.encoder.tokenize.cut_off(prepared)
        if rest:
            yield f"Only its first {self.encoder.spec.words_num} tokens are read: {short(rest)} is left out."

    @torch.no_grad()
    @full_precision()
    def _encode(self, caption: Caption) -> TextFeatures:
        return self.encoder.encode_text(caption.tokens.to(self.device))

    @torch.no_grad()
    @full_precision()
    def _generate(self, text: TextFeatures, seed: int, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """Images [3, s, s] and attention [W, h, w] of every size; alone, so that no other picture changes it."""
        noise, condition_noise = noises_of(self.generator, seed, [number], self.device)
        out = self.generator(noise, condition_noise, text.sentence, text.words, text.word_mask)
        if not torch.isfinite(out.images[-1]).all():
            raise UserError(f"the model {self.name} makes images that are not finite: its training has diverged")
        return [images[0] for images in out.images], [maps[0] for maps in out.attention]

    def _draw(self, caption: Caption, features: TextFeatures, seed: int, number: int) -> Drawing:
        images, attention = self._generate(features, seed, number)
        maps = [
            np.stack([of_word.sum(dim=0).cpu().numpy() for of_word in of_size.split(caption.pieces)])
            for of_size in attention
        ]
        pictures = tuple(map(to_image, images))
        return Drawing(caption.text, caption.words, pictures, tuple(maps), seed, number, notes=caption.notes)

    @torch.no_grad()
    @full_precision()
    def _score(self, image: Image.Image, text: TextFeatures) -> float:
        """Cosine of an RGB image and a caption."""
        seen = self.encoder.encode_image(to_tensor(image)[None].to(self.device)).image
        return float(torch.cosine_similarity(seen, text.sentence))

    def _require_image_side(self, purpose: str) -> None:
        if not self.encoder.sees_images:
            raise UserError(
                f"{self.name}: the model's file holds no image side of the encoder, which it takes to {purpose}: "
                "export it by tools/export_model.py --with-judge"
            )


def load(path: str | Path, device: str | torch.device | None = None) -> Model:
    """Read a model's file, which ``tools/export_model.py`` writes.

    Args:
        path: the ``.safetensors``.
        device: where to compute; None takes CUDA if there is one, else the CPU.

    Raises:
        UserError: no such file, no model, damaged, or no such device.
    """
    return Model(read_model(path), device)


def _picture(image: Image.Image | Drawing | str | Path) -> Image.Image:
    """An image to rank, RGB."""
    if isinstance(image, str | Path):
        return load_image(image)
    if isinstance(image, Drawing):
        return image.image
    if not isinstance(image, Image.Image):
        raise UserError(f"a PIL image, a drawing or the path of an image is expected, not {short(image)}")
    return image.convert("RGB")


def _require(name: str, value: int, low: int, high: int) -> int:
    """The value as an ``int``, such as one of NumPy's; raises ``UserError`` unless it is one in these bounds."""
    number = None if isinstance(value, bool | np.bool_) else value.__index__() if hasattr(value, "__index__") else None
    if number is None or not low <= number <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high}, not {short(value)}")
    return number
