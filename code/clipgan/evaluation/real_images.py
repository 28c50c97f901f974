"""The real images of a split, prepared as in training but without chance, or in the way that a protocol asks for."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split
from clipgan.data.image_file import READING
from clipgan.data.images import load_image, to_pixels
from clipgan.errors import UserError
from clipgan.evaluation.encoding import evaluation_pixels
from clipgan.evaluation.image_pass import Loaded

AS_TRAINED, CENTRE, WHOLE = "as trained", "centre", "whole"  # how a real image is cut out of its photograph


@dataclass(frozen=True)
class Split:
    """The real images of a config's split.

    Attributes:
        config: says where the data is and how it was prepared.
        name: ``train`` or ``test``.
        examples: of the split.
        crop: ``as trained``: the crop of the config, from its centre and not flipped; ``centre``: the largest square
            in the middle; ``whole``: the whole photograph, which a network's input then distorts to a square.
    """

    config: Config
    name: str
    examples: Sequence[Example]
    crop: str = AS_TRAINED

    @staticmethod
    def of(config: Config, name: str = "test", crop: str = AS_TRAINED) -> Split:
        """Raises ``UserError`` for whatever is missing in DATA_DIR."""
        return Split(config, name, read_split(config, name), crop)

    def loader(self) -> Callable[[Example], Loaded]:
        """The function that turns an example into pixels."""
        return functools.partial(_load, config=self.config, crop=self.crop)

    def describe(self) -> dict[str, Any]:
        """Everything that the prepared images depend on."""
        return {
            "dataset": self.config.DATASET_NAME,
            "split": self.name,
            "images": len(self.examples),
            "image_size": self.config.image_size,
            "box_crop": self.config.DATA.BOX_CROP,
            "crop_scale": self.config.DATA.CROP_SCALE,
            "reading": READING,
            "files": self._digest(),
        } | ({"crop": self.crop} if self.crop != AS_TRAINED else {})

    def _digest(self) -> str:
        """Hash of keys, boxes and file sizes: changes if the data set is replaced under the same name."""
        digest = hashlib.sha256()
        for example in self.examples:
            try:
                size = example.image.stat().st_size
            except OSError:
                raise UserError(f"no image at {example.image}, which the {self.name} split lists") from None
            digest.update(f"{example.key} {example.box} {size}\n".encode())
        return digest.hexdigest()[:16]


def _load(example: Example, config: Config, crop: str) -> Loaded:
    if crop == WHOLE:
        return to_pixels(load_image(example.image)), None
    if crop == CENTRE:
        config = dataclasses.replace(config, DATA=dataclasses.replace(config.DATA, BOX_CROP=False, CROP_SCALE=1.0))
    return evaluation_pixels(example, config), None
