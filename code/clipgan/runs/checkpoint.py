"""Checkpoints: written atomically, described by themselves, loaded strictly, and never executed.

A file holds one dictionary: ``format``, ``kind`` (generator, discriminator, encoder), ``architecture`` (the plain
arguments that build the network again), ``weights``, and whatever its writer adds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.gate import MEGABYTE, reading, short
from clipgan.files.torch_file import read_torch_file
from clipgan.runs.published import import_dmgan_discriminator, import_dmgan_generator

__all__ = [
    "import_dmgan_discriminator", "import_dmgan_generator", "load", "load_fitting", "load_into", "save",
    "write_atomically",
]  # fmt: skip

FORMAT = "clipgan 1"
Network = TypeVar("Network", bound=nn.Module)

CHECKPOINT = shapes.record(
    {
        "format": shapes.one_of(FORMAT),
        "kind": shapes.text(100),
        "architecture": shapes.mapping_of(shapes.anything, at_most=100),
        "weights": shapes.WEIGHTS,
    },
    {
        "epoch": shapes.whole(0, 10**12),
        "step": shapes.whole(0, 10**12),
        "encoder": shapes.text(100),
        "data": shapes.text(100),
    },
    others=True,
)


def fingerprint(network: nn.Module) -> str:
    """Tells networks with different weights apart: 16 hexadecimal digits of their SHA-256."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_atomically(path: str | Path, content: Any) -> None:
    """``torch.save`` to a temporary file beside ``path``, flushed to the disk, then renamed over it.

    Whoever reads ``path`` sees the old file or the new one, never a part, also when the machine stops in between.

    Raises:
        UserError: it cannot be written, on a full disk for example; what was at ``path`` is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer says of a full disk only that it stands at an unexpected place.
        if isinstance(error, RuntimeError) and "unexpected pos" not in str(error) and "Writer" not in str(error):
            raise
        raise UserError(f"{path}: cannot be written ({_reason(error, path)}); {_WRITE_REMEDY}") from None


_WRITE_REMEDY = "what was saved before is still there: make room or choose another OUTPUT_DIR, then go on with --resume"


def _reason(error: Exception, path: Path) -> str:
    free = ""
    if path.parent.is_dir():
        free = f", {shutil.disk_usage(path.parent).free / MEGABYTE:,.0f} MB are free there"
    said = error.strerror or str(error) if isinstance(error, OSError) else "the disk did not take all of it"
    return f"{said}{free}"


def save(path: str | Path, kind: str, *, architecture: dict, weights: dict, **extra: Any) -> None:
    """Write a checkpoint of one network.

    Raises:
        UserError: its weights are not finite; or as :func:`write_atomically`.
    """
    broken = shapes.not_finite(weights.items())
    if broken:
        raise UserError(f"{path}: is not written, because {broken} of the {kind} holds NaN or infinities")
    content = {"format": FORMAT, "kind": kind, "architecture": architecture, "weights": weights, **extra}
    write_atomically(path, content)


def load(path: str | Path, kind: str, *, made_by: str, allow_published: bool = False) -> dict:
    """Read a checkpoint on the CPU.

    Args:
        path: the file.
        kind: what it must hold.
        made_by: the command that writes such files, for the error when there is none.
        allow_published: also take a bare state dict, as published for DM-GAN; it comes back as ``weights`` alone.

    Returns:
        The content, in the shape of ``CHECKPOINT``: every weight is a finite tensor of real numbers.

    Raises:
        UserError: the file is missing, damaged, of another kind, or of another shape.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no {kind} checkpoint at {path}: {made_by} writes one")
    expected = f"a {kind} checkpoint, which {made_by} writes"
    content = read_torch_file(path, expected=expected)
    with reading(path, expected):
        if isinstance(content, dict) and content.get("format") == FORMAT:
            if content.get("kind") != kind:
                raise UserError(f"{path} holds a {short(content.get('kind'))[1:-1]}, not a {kind}")
            CHECKPOINT(content, "it")
        elif allow_published and isinstance(content, dict) and all(torch.is_tensor(v) for v in content.values()):
            shapes.WEIGHTS(content, "it")
            content = {"weights": dict(content)}
        else:
            raise UserError(f"{path} is no {kind} checkpoint of this project: {made_by} writes one")
        require_finite(content["weights"], f"the {kind}")
    return content


def require_finite(weights: dict[str, Tensor], what: str) -> None:
    """Refuse weights with NaN or infinities, and variances below 0, whose root is NaN.

    Raises:
        UserError: names the tensor.
    """
    broken = shapes.not_finite(weights.items())
    if broken:
        raise UserError(f"{broken} of {what} holds NaN or infinities: the run that wrote it had diverged")
    for name, tensor in weights.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UserError(f"{name} of {what} holds variances below 0")


def load_into(build: Callable[[], Network], weights: dict[str, Tensor], path: str | Path) -> Network:
    """A network with the weights of a file; memory is taken for what the file holds only.

    Args:
        build: makes the network. It is called for PyTorch's meta device, on which tensors have shapes but no memory.
        weights: finite, see :func:`load`.
        path: of the file, for the message.

    Raises:
        UserError: names or shapes differ; the first of them are named.
    """
    with torch.device("meta"):
        network = build()
    require_same_shapes(network.state_dict(), weights, path)
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    weights = {name: tensor.to(kinds[name]) for name, tensor in weights.items()}
    with reading(path, "weights within the range of float32"):  # those of float64 may lie beyond
        require_finite(weights, "the network")
    network.load_state_dict(weights, assign=True)
    for weight in network.parameters():  # assigned ones take this from the file's tensors
        weight.requires_grad_(True)
    return network


class Difference(NamedTuple):
    """A layer that a network does not take from a file, by the first of its tensors that differs."""

    name: str
    found: list[int] | None  # the shape in the file; None where the file lacks it
    wanted: list[int] | None  # the shape here; None where the network has no such layer


def load_fitting(network: nn.Module, weights: dict[str, Tensor], path: str | Path) -> tuple[int, list[Difference]]:
    """Load, in place, each layer of which the file has all tensors in the network's shapes; the others stay.

    Args:
        network: on the CPU.
        weights: finite, see :func:`load`.
        path: of the file, for the message.

    Returns:
        How many layers were loaded, and the others.

    Raises:
        UserError: a weight is not finite in float32.
    """
    wanted = network.state_dict()
    ours, theirs = _layers(wanted), _layers(weights)
    differences = {layer: _first_difference(names, wanted, weights) for layer, names in ours.items()}
    fitting = [layer for layer, difference in differences.items() if difference is None]
    taken = {name: weights[name].to(wanted[name].dtype) for layer in fitting for name in ours[layer]}
    with reading(path, "weights within the range of float32"):  # those of float64 may lie beyond
        require_finite(taken, "the network")
    network.load_state_dict(taken, strict=False)
    others = [difference for difference in differences.values() if difference is not None]
    unused = [max(names, key=lambda n: weights[n].numel()) for layer, names in theirs.items() if layer not in ours]
    return len(fitting), others + [Difference(name, list(weights[name].shape), None) for name in unused]


def _layers(weights: dict[str, Tensor]) -> dict[str, list[str]]:
    """The names of each layer's tensors; what spectral normalisation keeps belongs to its convolution."""
    layers: dict[str, list[str]] = {}
    for name in weights:
        owner, spectral, _ = name.partition(".parametrizations.")
        layers.setdefault(owner if spectral else name.rpartition(".")[0], []).append(name)
    return layers


def _first_difference(names: list[str], wanted: dict[str, Tensor], found: dict[str, Tensor]) -> Difference | None:
    """The first tensor of a layer that a file lacks, or has in another shape or kind of numbers; None if it fits."""
    for name in names:
        ours, theirs = wanted[name], found.get(name)
        if theirs is None:
            return Difference(name, None, list(ours.shape))
        if theirs.shape != ours.shape or theirs.is_floating_point() != ours.is_floating_point():
            return Difference(name, list(theirs.shape), list(ours.shape))
    return None


def require_same_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor], path: str | Path) -> None:
    """Compare names, shapes and kinds of numbers of a network's weights with those of a file.

    Raises:
        UserError: the first differences are named.
    """
    differences = shapes.weight_differences(wanted, found)
    if differences:
        raise UserError(f"{path} does not fit this architecture: {differences}")
