"""What the networks say of a split's real images, computed once and kept.

The files lie in ``<OUTPUT_DIR>/features/``, one for each split and network, named by a digest of everything that they
depend on. So nothing in them is ever out of date; the folder can be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.image_pass import Extractor, collect
from clipgan.evaluation.real_images import Split
from clipgan.files.safetensors_file import read_safetensors
from clipgan.files.writing import replacing
from clipgan.machine import distributed

_EXPECTED = "features of real images, which this program keeps"
_TENSOR = "features"


def outputs_of_split(
    split: Split, extractors: Sequence[Extractor], batch_size: int, workers: int, label: str = "real images"
) -> dict[str, Tensor]:
    """What the extractors compute of a split's real images, [N, …] on the CPU, by their names.

    One pass computes whatever is not kept. Extractors without an identity are computed each time.

    Raises:
        UserError: an image is missing or unreadable.
    """
    described = split.describe()
    paths = {one.name: _path(split, one, described) for one in extractors if one.identity}
    kept = {name: read_features(path, len(split.examples)) for name, path in paths.items()}
    found = {name: tensor for name, tensor in kept.items() if not distributed.any_process(tensor is None)}
    missing = [one for one in extractors if one.name not in found]
    computed = collect(split.examples, split.loader(), missing, batch_size, workers, label)
    for name in computed.keys() & paths.keys() if distributed.is_main() else ():
        _write(paths[name], computed[name])
    return {one.name: found.get(one.name, computed.get(one.name)) for one in extractors}


def _path(split: Split, extractor: Extractor, described: dict) -> Path:
    parts = [described, extractor.view.name, extractor.view.side, extractor.identity]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{split.config.DATASET_NAME}_{split.name}_{extractor.name.split()[0]}_{digest}.safetensors"
    return Path(split.config.OUTPUT_DIR) / "features" / name


def read_features(path: Path, images: int) -> Tensor | None:
    """The features [images, …] that a file keeps; None where there is no such file, or none that can be used."""
    if not path.is_file():
        return None
    try:
        tensor = read_safetensors(path, expected=_EXPECTED).get(_TENSOR)
    except UserError as error:
        print(f"warning: {error}: computed again")
        return None
    usable = tensor is not None and tensor.is_floating_point() and tensor.ndim == 2 and len(tensor) == images
    return tensor if usable else None


def _write(path: Path, features: Tensor) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(safetensors.torch.save({_TENSOR: features.contiguous()}))
    except OSError as error:
        print(f"warning: cannot keep the real images' features in {path} ({error.strerror}): computed each time")
