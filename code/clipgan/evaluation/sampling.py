"""Generates images from captions, and writes them to PNG files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.images import to_uint8
from clipgan.errors import UserError
from clipgan.evaluation.unfinished import SAMPLES
from clipgan.machine import distributed
from clipgan.machine.device import send
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator, GeneratorOutput

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One image to generate: caption ``caption`` of example ``example``, at ``place`` in the order of sampling."""

    place: int
    example: int
    caption: int


def sample_order(examples: Sequence[Example], count: int) -> list[Sample]:
    """All examples × caption 0, then × caption 1, … until ``count`` images or until there are no more captions."""
    order: list[Sample] = []
    for caption in range(max(len(example.captions) for example in examples)):
        for index, example in enumerate(examples):
            if len(order) == count:
                return order
            if caption < len(example.captions):
                order.append(Sample(len(order), index, caption))
    return order


def evenly_spaced(examples: Sequence[T], count: int) -> list[T]:
    """At most ``count`` examples at even distances, so that all classes of an ordered split are seen."""
    if len(examples) <= count:
        return list(examples)
    return [examples[i] for i in np.linspace(0, len(examples) - 1, count).round().astype(int)]


def noise_of(seed: int, places: Sequence[int], width: int) -> Tensor:
    """Standard normal noise [len(places), width] that depends on the seed and on each image's place, nothing else."""
    rows = [np.random.default_rng((seed, place)).standard_normal(width, dtype=np.float32) for place in places]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def generate(
    generator: Generator,
    encoder: ClipEncoder,
    captions: Sequence[str],
    places: Sequence[int],
    seed: int,
    device: torch.device,
) -> GeneratorOutput:
    """Generate an image of each caption; its noise is that of its place (:func:`noise_of`)."""
    tokens = encoder.tokenize(list(captions))
    return draw(generator, encoder, send(tokens, device), *noises_of(generator, seed, places, device))


def noises_of(generator: Generator, seed: int, places: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The noise z [N, Z] and ε [N, C] that a generator takes for images at these places (:func:`noise_of`)."""
    widths = [generator.input_widths[name] for name in ("noise", "condition_noise")]
    noise, condition_noise = send(noise_of(seed, places, sum(widths)), device).split(widths, dim=1)
    return noise, condition_noise


def draw(
    generator: Generator, encoder: ClipEncoder, tokens: Tensor, noise: Tensor, condition_noise: Tensor
) -> GeneratorOutput:
    """Generate images from tokens [B, L] and noise [B, Z] and [B, C] on one device, without waiting for it."""
    text = encoder.encode_text(tokens)
    return generator(noise, condition_noise, text.sentence, text.words, text.word_mask)


# The generator's batch size. The last bits of a convolution depend on its batch size, and sometimes decide how a pixel
# is rounded. So this size is fixed: neither EVAL.BATCH_SIZE nor the number of processes changes it.
TOGETHER = 8


def generate_samples(
    generator: Generator,
    encoder: ClipEncoder,
    examples: Sequence[Example],
    samples: Sequence[Sample],
    config: Config,
    device: torch.device,
) -> Iterator[tuple[Sequence[Sample], Tensor]]:
    """This process's share of the samples, in batches with their largest images [B, 3, S, S] in [−1, 1].

    The images are rounded to the 8 bits of a PNG. ``distributed.join`` puts the results of the batches
    into the order of ``samples``.

    Raises:
        UserError: the generator makes images that are not finite.
    """
    size = TOGETHER * max(1, config.EVAL.BATCH_SIZE // TOGETHER)
    batches = distributed.share([samples[i : i + size] for i in range(0, len(samples), size)])
    for batch in tqdm(batches, desc="sampling", unit="batch", leave=False, disable=not distributed.is_main()):
        parts, finite = [], []
        for start in range(0, len(batch), TOGETHER):
            part = batch[start : start + TOGETHER]
            captions = [examples[sample.example].captions[sample.caption] for sample in part]
            places = [sample.place for sample in part]
            missing = TOGETHER - len(part)  # the last part repeats its first sample; the surplus is dropped
            captions, places = captions + captions[:1] * missing, places + places[:1] * missing
            out = generate(generator, encoder, captions, places, config.SEED, device)
            parts.append(to_uint8(out.images[-1][: len(part)]))
            finite.append(torch.isfinite(out.images[-1]).all())
        if not torch.stack(finite).all():  # as bytes they would be black
            raise not_finite(config)
        yield batch, torch.cat(parts).float() / 127.5 - 1


def not_finite(config: Config) -> UserError:
    """The error of a generator whose images hold NaN or infinities."""
    name = f"the generator {config.TRAIN.NET_G}" if config.TRAIN.NET_G and not config.TRAIN.FLAG else "the generator"
    return UserError(
        f"{name} makes images that are not finite (NaN or infinity): its training has diverged; "
        "take an earlier snapshot"
    )


def require_finite_images(images: Tensor, config: Config) -> None:
    """Raise the ``UserError`` of :func:`not_finite` where it is due."""
    if not torch.isfinite(images).all():
        raise not_finite(config)


def sample_folder(net_g: str | Path) -> Path:
    """Where the images of a generator's snapshot are written: ``<NET_G without .pth>/valid/single``.

    Raises:
        UserError: ``net_g`` is no file's name.
    """
    try:
        return Path(net_g).with_suffix("") / "valid" / SAMPLES
    except ValueError:
        raise UserError(f"TRAIN.NET_G = {net_g} is no name of a generator's snapshot: expected a file") from None


def sample_file(folder: Path, example: Example, caption: int) -> Path:
    return folder / f"{example.key}_{caption}.png"


class PngWriter:
    """Writes images in the background, each one whole or not at all."""

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(max(1, threads))
        self._pending: list = []

    def write(self, path: Path, image: Tensor) -> None:
        """Queue one image [3, S, S] in [−1, 1]."""
        pixels = to_uint8(image).cpu().permute(1, 2, 0).contiguous().numpy()
        self._pending.append(self._pool.submit(_write_png, path, pixels))
        if len(self._pending) > 256:
            self.wait()

    def wait(self) -> None:
        """Wait until all images are written.

        Raises:
            UserError: one could not be, on a full disk for example.
        """
        for future in self._pending:
            future.result()
        self._pending = []

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(self, *error) -> None:
        try:
            if error[0] is None:
                self.wait()
        finally:
            self._pool.shutdown(cancel_futures=True)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror or error}): make room, then start again") from None
