"""Inception features, batch by batch: of folders, of a config's test split (cached), or of tensors."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split
from clipgan.data.images import load_image, to_tensor
from clipgan.data.shared_memory import fit_workers
from clipgan.errors import UserError
from clipgan.evaluation.encoding import evaluation_image
from clipgan.evaluation.inception import RESIZE, SIDE, FidNetwork, ScoreNetwork, resize
from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics
from clipgan.machine import distributed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def list_images(folder: str | Path) -> list[Path]:
    """All image files below ``folder``, sorted; nothing hidden.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)


def statistics_of_tensors(
    images: Iterable[Tensor], network: FidNetwork, total: int | None = None, label: str = "features"
) -> Statistics:
    """Mean and covariance of the features of batches [B, 3, H, W] in [−1, 1], of any size and on any device.

    ``total`` (images) is for the progress bar, ``label`` heads it; an empty label shows none.
    """
    return _running_statistics(images, network, total, label).statistics()


def _running_statistics(
    images: Iterable[Tensor], network: FidNetwork, total: int | None, label: str
) -> RunningStatistics:
    statistics = RunningStatistics(network.dims, _device_of(network))
    for features in _outputs(images, network, total, label):
        statistics.update(features)
    return statistics


def probabilities_of_tensors(
    images: Iterable[Tensor], network: ScoreNetwork, total: int | None = None, label: str = "probabilities"
) -> np.ndarray:
    """Class probabilities [N, classes] float64 of batches as in :func:`statistics_of_tensors`."""
    parts = [output.cpu().numpy() for output in _outputs(images, network, total, label)]
    return np.concatenate(parts) if parts else np.zeros((0, network.classes))


def statistics_of_files(paths: Sequence[Path], network: FidNetwork, batch_size: int, workers: int) -> Statistics:
    """Mean and covariance of the features of image files, whose sizes may differ; each process reads a share."""
    return _statistics_of_items(paths, _read_file, network, batch_size, workers, "features")


def _statistics_of_items(
    items: Sequence[Any],
    load: Callable[[Any], Tensor],
    network: FidNetwork,
    batch_size: int,
    workers: int,
    label: str,
) -> Statistics:
    own = distributed.share(items)
    batches = _load_batches(own, load, batch_size, workers, network)
    statistics = RunningStatistics(network.dims)
    for part in distributed.gather_objects(_running_statistics(batches, network, len(own), label).cpu()):
        statistics.merge(part)
    return statistics.statistics()


def probabilities_of_files(paths: Sequence[Path], network: ScoreNetwork, batch_size: int, workers: int) -> np.ndarray:
    """Class probabilities [N, classes] float64 of image files, in their order; each process reads a share."""
    own = distributed.share(paths)
    batches = _load_batches(own, _read_file, batch_size, workers, network)
    return np.stack(distributed.join(list(probabilities_of_tensors(batches, network, len(own)))))


@dataclass(frozen=True)
class Split:
    """The real images of a config's split, as they are prepared in training but with a centre crop and no flip."""

    config: Config
    name: str  # train or test
    examples: Sequence[Example]

    @staticmethod
    def of(config: Config, name: str = "test") -> Split:
        return Split(config, name, read_split(config, name))

    def describe(self) -> dict[str, Any]:
        """Everything that the prepared images depend on."""
        return {
            "dataset": self.config.DATASET_NAME,
            "split": self.name,
            "images": len(self.examples),
            "image_size": self.config.image_size,
            "box_crop": self.config.DATA.BOX_CROP,
            "crop_scale": self.config.DATA.CROP_SCALE,
            "files": self._digest(),
        }

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


# The setting that decides each field of a cache's provenance, for the error message.
_SETTING = {
    "dataset": "DATASET_NAME",
    "image_size": "TREE.BASE_SIZE and TREE.BRANCH_NUM",
    "box_crop": "DATA.BOX_CROP",
    "crop_scale": "DATA.CROP_SCALE",
    "images": "the number of images in DATA_DIR",
    "files": "the content of DATA_DIR",
    "dims": "--dims",
    "weights": "--weights",
}


def statistics_of_split(
    split: Split,
    network: FidNetwork,
    batch_size: int,
    workers: int,
    recompute: bool = False,
) -> tuple[Statistics, Path]:
    """Statistics of the real images, kept in ``<OUTPUT_DIR>/fid_statistics/``, and the path of their file.

    They are not kept beside the images, because that folder may be shared or read-only. The file holds ``mu`` and
    ``sigma`` as pytorch-fid's files do, ``count``, and its provenance as JSON.

    Raises:
        UserError: the file there was made from other images or in another way (unless ``recompute``).
    """
    provenance = {**split.describe(), "resize": RESIZE, "dims": network.dims, "weights": network.provenance.sha256}
    name = f"{split.config.DATASET_NAME}_{split.name}_{provenance['image_size']}px_{network.dims}"
    name += f"_{network.provenance.sha256[:8]}.npz"
    path = Path(split.config.OUTPUT_DIR) / "fid_statistics" / name
    if not distributed.any_process(recompute or not path.is_file()):
        statistics, found = read_statistics(path)
        _check_provenance(path, found, provenance)
        return statistics, path
    load = functools.partial(evaluation_image, config=split.config)
    statistics = _statistics_of_items(split.examples, load, network, batch_size, workers, "real images")
    provenance |= {"weights_source": network.provenance.source, "weights_random": network.provenance.random}
    try:
        if distributed.is_main():
            write_statistics(path, statistics, provenance)
    except OSError as error:
        print(f"warning: cannot keep the real images' statistics in {path} ({error.strerror}): computed each time")
    return statistics, path


def _check_provenance(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for field, value in expected.items():
        if found.get(field) != value:
            setting = f" ({_SETTING[field]})" if field in _SETTING else ""
            raise UserError(
                f"{path} was made with {field} = {found.get(field, 'unknown')}, but now {field}{setting} is {value}: "
                "delete the file, or compute it again with --recompute"
            )


def read_statistics(path: str | Path) -> tuple[Statistics, dict[str, Any]]:
    """Statistics and provenance (empty if unknown) of an ``.npz`` written here or by pytorch-fid.

    Raises:
        UserError: no such file, or not one of these.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            count = int(arrays["count"]) if "count" in arrays else None
            provenance = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {}
            if not isinstance(provenance, dict):
                raise ValueError("its provenance is no JSON object")
            return Statistics(arrays["mu"], arrays["sigma"], count), provenance
    except FileNotFoundError:
        raise UserError(f"no statistics file at {path}") from None
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).strip("'\"").splitlines()[:1]
        raise UserError(
            f"{path} is no file of FID statistics with mu [D] and sigma [D, D] ({''.join(reason)[:120]})"
        ) from None


def write_statistics(path: str | Path, statistics: Statistics, provenance: dict[str, Any]) -> None:
    """Write the ``.npz`` whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "provenance": np.array(json.dumps(provenance))}
    if statistics.count is not None:
        arrays["count"] = np.array(statistics.count)
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_file(path: Path) -> Tensor:
    return to_tensor(load_image(path))


class _Resized(Dataset):
    """Items loaded and resized to the networks' input one by one, so that sizes may differ and batches do not matter.

    For an unreadable image, its error is returned: if a worker raised it, the loader would add a traceback to it.
    """

    def __init__(self, items: Sequence[Any], load: Callable[[Any], Tensor]):
        self.items, self.load = items, load

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor | UserError:
        try:
            return resize(self.load(self.items[index])[None])[0]
        except UserError as error:
            return error


def _stack(images: list[Tensor | UserError]) -> Tensor | UserError:
    errors = [image for image in images if isinstance(image, UserError)]
    return errors[0] if errors else torch.stack(images)


def _load_batches(
    items: Sequence[Any], load: Callable[[Any], Tensor], batch_size: int, workers: int, network: nn.Module
) -> Iterator[Tensor]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores, len(items) // batch_size)  # no worker for less than a batch: starting it takes longer
    workers, ahead = fit_workers(workers, 2, batch_size * 3 * SIDE * SIDE * torch.float32.itemsize)
    loader = DataLoader(
        _Resized(items, load),
        batch_size=batch_size,
        num_workers=workers,
        prefetch_factor=ahead if workers > 0 else None,
        collate_fn=_stack,
        pin_memory=_device_of(network).type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _outputs(images: Iterable[Tensor], network: nn.Module, total: int | None, label: str) -> Iterator[Tensor]:
    device = _device_of(network)
    with tqdm(total=total, desc=label, unit="img", disable=not label or not distributed.is_main(), leave=False) as bar:
        for batch in images:
            yield network(batch.to(device, non_blocking=True))
            bar.update(len(batch))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
