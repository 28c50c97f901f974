"""Where CLIP's model configs come from, and the networks that they describe.

A config comes from open_clip's own list, a JSON file, a folder, the Hugging Face hub or a checkpoint. All of them pass
``clip_config.check_config``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import open_clip
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import nn

from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, parse_json, read_text, reading, short
from clipgan.files.memory import machine_memory
from clipgan.files.shapes import Misfit
from clipgan.networks.clip_config import PREPROCESSING, check_config
from clipgan.networks.clip_hub import fetch_from_hub

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (  # of a folder or a repository of the hub, the preferred first
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("model.safetensors", "pytorch_model.bin"),
)
_EXPECTED = "a model config in open_clip's format"


@dataclass(frozen=True)
class Model:
    """What a ``CLIP_MODEL_BASE`` names."""

    name: str
    config: dict
    kind: str = "name"  # "name" of open_clip's list, "file", "folder" or "hub"
    place: str = ""  # path of the folder, or ORG/NAME on the hub
    mean: tuple[float, ...] = ()  # of images in [0, 1], as its own description says; empty where it does not
    std: tuple[float, ...] = ()


def read_model(base: str, key: str = "TRAIN.CLIP_MODEL_BASE") -> Model:
    """The model config of an open_clip model, a JSON file, ``local-dir:PATH`` or ``hf-hub:ORG/NAME``.

    Args:
        base: one of these.
        key: the config key that names it, for messages.

    Raises:
        UserError: no such model, file or network; no model config in it; or one that cannot be used here.
    """
    scheme, _, place = base.partition(":")
    if scheme in ("local-dir", "hf-hub") and base != scheme:
        if not place.strip():
            raise UserError(f"{key}: {base} names nothing: write local-dir:PATH or hf-hub:ORG/NAME")
        if scheme == "hf-hub":
            return _read_json(Path(fetch_from_hub(place, (CONFIG_FILE,))), place, "hub", place)
        path = Path(place) / CONFIG_FILE
        if not os.path.lexists(path):
            raise UserError(f"{key}: no {CONFIG_FILE} in the folder {place}")
        return _read_json(path, Path(os.path.abspath(place)).name or place, "folder", place)
    if base.lower().endswith(".json"):
        path = Path(base)
        if not os.path.lexists(path):
            raise UserError(f"{key}: no file at {path}")
        return _read_json(path, path.stem, "file", "")
    config = open_clip.get_model_config(base)
    if config is None:
        near = difflib.get_close_matches(base[:100], open_clip.list_models(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{key}: open_clip has no model {short(base)}{hint}")
    try:
        check_config(config, base)
    except Misfit as error:
        raise UserError(f"{key}: {error}") from None
    return Model(base, config)


def _read_json(path: Path, name: str, kind: str, place: str) -> Model:
    with reading(path, _EXPECTED):
        content = parse_json(read_text(path, MEGABYTE))
        if not isinstance(content, dict):
            raise Misfit(f"must hold a dictionary, not {short(content)}")
        config = content.get("model_cfg", content)
        preprocessing = content.get("preprocess_cfg")
        if config is content:
            config = {key: value for key, value in content.items() if key != "preprocess_cfg"}
        check_config(config, "model")
        PREPROCESSING(preprocessing, "preprocess_cfg")
    mean, std = (tuple((preprocessing or {}).get(part) or ()) for part in ("mean", "std"))
    return Model(name, config, kind, place, mean, std)


def create_clip(config: Mapping, name: str) -> nn.Module:
    """The network of a model config, at random, on the current device.

    Raises:
        UserError: it is no config of a model that can be used here.
    """
    try:
        check_config(config, name)
        arguments = dict(config)
        kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
        clip = kind(**arguments)
    except Misfit as error:
        raise UserError(str(error)) from None
    except (TypeError, KeyError, AssertionError) as error:
        raise UserError(f"{name}: open_clip cannot build this model: {error}") from None
    for module in clip.modules():
        if isinstance(module, Transformer) and all(type(b) is ResidualAttentionBlock for b in module.resblocks):
            _put_sequence_first(module)
    return clip


def _put_sequence_first(transformer: Transformer) -> None:
    """Let a transformer work on [L, B, D] instead of [B, L, D]: the same bits, from contiguous tensors.

    nn.MultiheadAttention transposes batches that come first. For the strides that this leaves, PyTorch may copy
    *frozen* weights once for every token.
    """
    transformer.batch_first = False
    for block in transformer.resblocks:
        block.attn.batch_first = False


def require_memory(network: nn.Module, name: str) -> None:
    """Refuse a network, built on the meta device, whose weights this machine cannot hold.

    Raises:
        UserError: says what it needs.
    """
    needed = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    have = machine_memory()
    if needed > have:
        raise UserError(
            f"{name} needs {needed / 1e9:,.0f} GB of memory for its weights, but this machine has {have / 1e9:,.0f} GB"
            ": name a smaller model in CLIP_MODEL_BASE"
        )
