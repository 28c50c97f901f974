"""Checkpoints: written atomically, described by themselves, loaded strictly, and never executed.

A file holds one dictionary: ``format``, ``kind`` (generator, discriminator, encoder), ``architecture`` (the plain
arguments that build the network again), ``weights``, and whatever its writer adds.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipgan.errors import UserError
from clipgan.runs.published import import_dmgan_discriminator, import_dmgan_generator

__all__ = ["import_dmgan_discriminator", "import_dmgan_generator", "load", "load_weights", "save", "write_atomically"]

FORMAT = "clipgan 1"


def fingerprint(network: nn.Module) -> str:
    """Tells networks with different weights apart: 16 hexadecimal digits of their SHA-256."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_atomically(path: str | Path, content: Any) -> None:
    """``torch.save`` to a temporary file beside ``path``, flushed to the disk, then renamed over it.

    Whoever reads ``path`` sees the old file or the new one, never a part, also when the machine stops in between.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: str | Path, kind: str, *, architecture: dict, weights: dict, **extra: Any) -> None:
    """Write a checkpoint of one network."""
    content = {"format": FORMAT, "kind": kind, "architecture": architecture, "weights": weights, **extra}
    write_atomically(path, content)


def load(path: str | Path, kind: str, *, made_by: str, allow_published: bool = False) -> dict:
    """Read a checkpoint on the CPU.

    Args:
        path: the file.
        kind: what it must hold.
        made_by: the command that writes such files, for the error when there is none.
        allow_published: also take a bare state dict, as published for DM-GAN; it comes back as ``weights`` alone.

    Raises:
        UserError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no {kind} checkpoint at {path}: {made_by} writes one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint: {reason}") from None
    if isinstance(content, dict) and content.get("format") == FORMAT:
        if content["kind"] != kind:
            raise UserError(f"{path} holds a {content['kind']}, not a {kind}")
        return content
    if allow_published and isinstance(content, dict) and all(torch.is_tensor(v) for v in content.values()):
        return {"weights": content}
    raise UserError(f"{path} is no {kind} checkpoint of this project: {made_by} writes one")


def load_weights(network: nn.Module, weights: dict, path: str | Path) -> None:
    """Strict ``load_state_dict`` whose error fits a line."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not fit this architecture: {reason[:300]}") from None
