"""The sets of images that scores are measured on: the generated ones, the real ones, and real ones in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.from_config import data_fingerprint
from clipgan.errors import UserError
from clipgan.evaluation.encoding import EncodedCaptions, encode_captions
from clipgan.evaluation.extractors import Networks
from clipgan.evaluation.features import not_finite
from clipgan.evaluation.image_facts import ImageFacts
from clipgan.evaluation.image_files import load_file
from clipgan.evaluation.image_pass import collect
from clipgan.evaluation.metrics.attributes import read_truths
from clipgan.evaluation.metrics.card import ATTRIBUTES, CAPTIONS, TEST, TRAIN, Metric
from clipgan.evaluation.outputs import Outputs
from clipgan.evaluation.protocols import Protocol
from clipgan.evaluation.real_features import outputs_of_split
from clipgan.evaluation.real_images import Split
from clipgan.evaluation.sampling import Sample, evenly_spaced, sample_file, sample_order
from clipgan.evaluation.unfinished import refuse_unfinished
from clipgan.files.gate import printable


@dataclass(frozen=True)
class Pass:
    """How images are passed through networks: the networks, and how many images and processes at once."""

    networks: Networks
    batch_size: int
    workers: int


@dataclass(frozen=True)
class Compared:
    """What scores are measured on.

    Attributes:
        ours: the images that are scored.
        real: the real images that metrics compare with, by split.
        in_their_place: real images that take the place of ours, for metrics that compare with real images; None where
            there are no others.
        own_real: likewise for the other metrics.
    """

    ours: Outputs
    real: Mapping[str, Outputs]
    in_their_place: Outputs | None = None
    own_real: Outputs | None = None


@dataclass
class Files:
    """Image files that are scored, and what is noted of them while they are read."""

    folder: Path
    paths: Sequence[Path]
    facts: ImageFacts = field(default_factory=ImageFacts)

    def outputs(
        self, way: Pass, needs: Collection[str], truths: Sequence[dict[str, str]] | None = None
    ) -> Outputs:
        """One pass over the files; ``truths`` says what each should show.

        Raises:
            UserError: one is unreadable; a sampling into the folder began; or outputs are not finite.
        """
        extractors = way.networks.extractors(needs, truths)
        by_name = collect(self.paths, load_file, extractors, way.batch_size, way.workers, "images", self.facts)
        refuse_unfinished(self.folder)
        _require_finite(by_name, way.networks, f"the images in {self.folder}")
        return Outputs(by_name)


class Run:
    """Generated images, and the data set whose captions they are of.

    Attributes:
        files: the generated images.
        samples: the captions that they are of, in the order of sampling; None if they are named otherwise.
        missing: splits that cannot be read, and why.

    Raises:
        UserError: a split that is needed cannot be read.
    """

    def __init__(self, config: Config, files: Files, protocol: Protocol):
        self.files, self.samples = files, None
        self._config, self._protocol = config, protocol
        self._splits = {TEST: Split.of(config, TEST, protocol.crop)}
        self.missing: dict[str, str] = {}
        try:
            self._splits[TRAIN] = Split.of(config, TRAIN, protocol.crop)
        except UserError as error:
            if TRAIN in protocol.splits:
                raise
            self.missing[TRAIN] = str(error)
        self._truths = read_truths(config.DATA_DIR, self.test)
        samples, rows = samples_of(files, self.test)
        if len(samples) == len(files.paths):
            self.samples, self._rows = samples, rows

    @property
    def test(self) -> Sequence[Example]:
        """The examples of the test split."""
        return self._splits[TEST].examples

    @property
    def train(self) -> Split:
        """The training split; it is there unless it is ``missing``."""
        return self._splits[TRAIN]

    def count_warnings(self) -> list[str]:
        """What to say of a number of images that is not the one of the config or the protocol.

        Raises:
            UserError: the protocol asks for another number.
        """
        asked = self._protocol.images or self._config.EVAL.NUM_IMAGES
        expected, found = len(sample_order(self.test, asked)), len(self.files.paths)
        if found == expected:
            return []
        if self._protocol.images is not None:
            raise UserError(
                f"the protocol {self._protocol.name} scores {expected} images of this data set, not the {found} in "
                f"{self.files.folder}: generate them with --set EVAL.NUM_IMAGES={asked}, or choose another --protocol"
            )
        return [f"this config generates {expected} images, not the {found} in {self.files.folder}"]

    def lacking(self) -> dict[str, str]:
        """Needs of metrics that cannot be met, and why."""
        unnamed = f"the images in {self.files.folder} are not named as captions of this test split"
        lacking = {} if self.samples else {CAPTIONS: unnamed, ATTRIBUTES: unnamed}
        return lacking | ({} if self._truths else {ATTRIBUTES: "only the drawn data set has an oracle"})

    def describe(self) -> dict[str, Any]:
        """The real images that metrics compare with."""
        described = self._splits[TEST].describe()
        names = "+".join(self._protocol.splits)
        if TRAIN in self._protocol.splits:
            train = self.train.describe()
            described |= {"images": described["images"] + train["images"], "files": train["files"] + described["files"]}
        captions = data_fingerprint(self.test)
        return described | {"split": names, "captions": captions, "path": printable(self._config.DATA_DIR)}

    def compared(self, way: Pass, metrics: Sequence[Metric]) -> Compared:
        """Pass the images that these metrics need through the networks; real ones are kept (`outputs_of_split`)."""
        needs = {metric.needs for metric in metrics}
        compares = any(metric.against for metric in metrics)
        mixed = TRAIN in self._protocol.splits
        ours = self.files.outputs(way, needs, self._truths_of_files())
        test = self._real(self._splits[TEST], way, needs, self._truths)
        captions: list[EncodedCaptions] = []
        if CAPTIONS in needs:
            captions = [encode_captions(judge, self.test, way.networks.device) for judge in way.networks.judges]
        own_real = test
        if self.samples is not None:
            ours = replace(ours, samples=self.samples, captions=captions, image_of=self._rows)
            examples = torch.tensor([sample.example for sample in self.samples])
            own_real = replace(test, samples=self.samples, captions=captions, image_of=examples)
        if not compares:
            return Compared(ours, {}, own_real=own_real)
        if self.missing:
            return Compared(ours, {TEST: test}, own_real=own_real)
        whole = mixed or any(TRAIN in metric.against for metric in metrics)
        few = evenly_spaced(range(len(self.train.examples)), len(self.files.paths))
        split = self.train if whole else replace(self.train, examples=[self.train.examples[row] for row in few])
        train = self._real(split, way, {metric.needs for metric in metrics if metric.against}, None)
        reference = Outputs({name: torch.cat([train.by_name[name], test.by_name[name]]) for name in train.by_name})
        in_their_place = train.rows(torch.tensor(few)) if whole else train
        return Compared(
            ours, {TEST: reference if mixed else test, TRAIN: train}, None if mixed else in_their_place, own_real
        )

    def _truths_of_files(self) -> list[dict[str, str]] | None:
        """What each file should show."""
        if self.samples is None or self._truths is None:
            return None
        example_of = dict(zip(self._rows.tolist(), (sample.example for sample in self.samples), strict=True))
        return [self._truths[example_of[row]] for row in range(len(self.files.paths))]

    def _real(
        self, split: Split, way: Pass, needs: Collection[str], truths: Sequence[dict[str, str]] | None
    ) -> Outputs:
        extractors = way.networks.extractors(needs, truths)
        by_name = outputs_of_split(split, extractors, way.batch_size, way.workers, f"{split.name} images")
        _require_finite(by_name, way.networks, f"the real images in {self._config.DATA_DIR}")
        return Outputs(by_name)


def compare_folders(files: Files, real: Files, way: Pass, metrics: Sequence[Metric]) -> Compared:
    """The images of two folders, the second in the place of the real ones."""
    needs = {metric.needs for metric in metrics}
    against = {metric.needs for metric in metrics if metric.against}
    ours = files.outputs(way, needs)
    return Compared(ours, {TEST: real.outputs(way, against)} if against else {})


def samples_of(files: Files, examples: Sequence[Example]) -> tuple[list[Sample], Tensor]:
    """The captions that files are of by their names, in the order of sampling, and the row of each one's file."""
    rows = {path: row for row, path in enumerate(files.paths)}
    every = sample_order(examples, sum(len(example.captions) for example in examples))
    found = [
        (sample, rows[path])
        for sample in every
        if (path := sample_file(files.folder, examples[sample.example], sample.caption)) in rows
    ]
    return [sample for sample, _ in found], torch.tensor([row for _, row in found], dtype=torch.int64)


def _require_finite(outputs: Mapping[str, Tensor], networks: Networks, images: str) -> None:
    """Raise ``UserError`` if a network's outputs are not finite."""
    for name, output in outputs.items():
        if not torch.isfinite(output).all():
            network = networks.inception_for(name)
            if network is None:
                raise UserError(f"a judge's features of {images} are not finite: take another judge")
            raise not_finite(name, images, network.provenance)
