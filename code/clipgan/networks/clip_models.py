"""Where CLIP's model configs come from, and the networks that they describe.

A config comes from open_clip's own list, a JSON file, a folder, the Hugging Face hub or a checkpoint, in open_clip's
format or in that of transformers. All of them pass ``clip_config.check_config``.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, parse_json, read_json, read_text, reading, short
from clipgan.files.memory import machine_memory
from clipgan.files.shapes import Misfit
from clipgan.networks import clip_transformers
from clipgan.networks.clip_config import PREPROCESSING, alike, check_config
from clipgan.networks.clip_hub import fetch_from_hub, find_on_hub

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (  # of a folder or a repository of the hub, the preferred first
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("model.safetensors", "pytorch_model.bin"),
)
_EXPECTED = "a model config in open_clip's format, or the config.json of a CLIP of transformers"
_USUAL = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14")  # named where no name is near
_FAMILIES = {  # of models that somebody may name otherwise than open_clip does
    r"siglip": "a SigLIP",
    r"\beva\d*\b": "an EVA-CLIP",
    r"coca": "a CoCa",
    r"blip": "a BLIP",
    r"\brn\d|resnet": "a ResNet",
    r"convnext": "a ConvNeXt",
    r"mobileclip": "a MobileCLIP",
    r"vitamin": "a ViTamin",
}


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
        base: one of these; OpenAI's spelling of a name (``ViT-L/14@336px``) is understood, too.
        key: the config key that names it, for messages.

    Raises:
        UserError: no such model, file or network; no model config in it; or one that cannot be used here.
    """
    scheme, _, place = base.partition(":")
    if scheme in ("local-dir", "hf-hub") and base != scheme:
        if not place.strip():
            raise UserError(f"{key}: {base} names nothing: write local-dir:PATH or hf-hub:ORG/NAME")
        return _read_repository(place, key) if scheme == "hf-hub" else _read_folder(place, key)
    if base.lower().endswith(".json"):
        path = Path(base)
        if not os.path.lexists(path):
            raise UserError(f"{key}: no file at {path}")
        return _read_json(path, path.stem, "file", "")
    name = re.sub("^(ViT-[A-Za-z]+)/([0-9]+)(?:@([0-9]+)px)?$", lambda m: "-".join(filter(None, m.groups())), base)
    config = open_clip.get_model_config(name)
    if config is None:
        raise UserError(f"{key}: {_unknown(base)}")
    try:
        check_config(config, name)
    except Misfit as error:
        raise UserError(f"{key}: {error}") from None
    return Model(name, config)


def usable_models() -> list[str]:
    """The models of open_clip's list that can be used."""
    usable = []
    for name in open_clip.list_models():
        with contextlib.suppress(Misfit):
            check_config(open_clip.get_model_config(name), name)
            usable.append(name)
    return usable


def models_of_shape(tensors: Mapping[str, Tensor]) -> list[str]:
    """The models of open_clip's list whose networks have the sizes of these weights, which have open_clip's names."""
    tensors = {name.removeprefix("text."): value for name, value in tensors.items()}
    parts = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "positional_embedding")
    found = [list(tensors[name].shape) if name in tensors else None for name in parts]
    for prefix in ("visual.transformer.resblocks.", "transformer.resblocks."):
        rest = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        found.append(len({name.partition(".")[0] for name in rest}))
    fitting = []
    for name in usable_models():
        config = open_clip.get_model_config(name)
        vision, words = open_clip.CLIPVisionCfg(**config["vision_cfg"]), open_clip.CLIPTextCfg(**config["text_cfg"])
        wanted: list[Any] = [
            [vision.width, 3, vision.patch_size, vision.patch_size],
            [(vision.image_size // vision.patch_size) ** 2 + 1, vision.width],
            [vision.width, config["embed_dim"]],
            [words.context_length, words.width],
        ]
        if found == [*wanted, vision.layers, words.layers]:
            fitting.append(name)
    return fitting


def _unknown(base: str) -> str:
    """Why a text names no model, and what would."""
    if os.path.isdir(base):
        return f"{short(base)[1:-1]} is a folder: write local-dir:{short(base)[1:-1]}"
    if os.path.isfile(base):
        return (
            f"{short(base)[1:-1]} is a file, but no model config (.json): name weights in CLIP_PRETRAINED, and here "
            "the model that they are of"
        )
    families = [family for pattern, family in _FAMILIES.items() if re.search(pattern, base[:200], re.IGNORECASE)]
    if families:
        return (
            f"{short(base)} names {families[0]}, which is no CLIP with a vision transformer of open_clip: "
            f"use a CLIP ViT such as {alike(base[:200])}"
        )
    usable = usable_models()
    folded = {name.lower(): name for name in usable}
    near = difflib.get_close_matches(base[:100].strip().lower(), folded, n=3, cutoff=0.6)
    if near:
        return f"open_clip has no model {short(base)}; did you mean {' or '.join(folded[name] for name in near)}?"
    if re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", base):
        return f"open_clip has no model {short(base)}: for a repository of the Hugging Face hub write hf-hub:{base}"
    return (
        f"open_clip has no model {short(base)}; {', '.join(_USUAL)} and {len(usable) - len(_USUAL)} others can be used "
        "(docs/encoders.md)"
    )


def _read_folder(place: str, key: str) -> Model:
    name = Path(os.path.abspath(place)).name or place
    for file in (CONFIG_FILE, clip_transformers.CONFIG_FILE):
        path = Path(place) / file
        if os.path.lexists(path):
            others = [Path(place) / other for other in clip_transformers.PREPROCESSING_FILES]
            return _read_json(path, name, "folder", place, [other for other in others if os.path.lexists(other)])
    raise UserError(
        f"{key}: no {CONFIG_FILE} (open_clip's) and no {clip_transformers.CONFIG_FILE} (transformers') in the folder "
        f"{place}"
    )


def _read_repository(place: str, key: str) -> Model:
    path = Path(fetch_from_hub(place, (CONFIG_FILE, clip_transformers.CONFIG_FILE)))
    others = []
    if path.name == clip_transformers.CONFIG_FILE:
        others = [Path(found) for found in find_on_hub(place, clip_transformers.PREPROCESSING_FILES)]
    return _read_json(path, place, "hub", place, others)


def _read_json(path: Path, name: str, kind: str, place: str, others: Sequence[Path] = ()) -> Model:
    """The model that a file describes.

    Args:
        path: in open_clip's format or in that of transformers.
        name: of the model.
        kind: see :class:`Model`.
        place: the same.
        others: files beside it that tell the image statistics of a model of transformers; the first holds.
    """
    with reading(path, _EXPECTED):
        content = parse_json(read_text(path, MEGABYTE))
        if not isinstance(content, dict):
            raise Misfit(f"must hold a dictionary, not {short(content)}")
        if clip_transformers.is_of_transformers(content):
            config = clip_transformers.as_open_clip(content, name)
            check_config(config, "model")
        else:
            preprocessing = content.get("preprocess_cfg")
            config = content.get("model_cfg", {k: v for k, v in content.items() if k != "preprocess_cfg"})
            check_config(config, "model")
            PREPROCESSING(preprocessing, "preprocess_cfg")
            mean, std = (tuple((preprocessing or {}).get(part) or ()) for part in ("mean", "std"))
            return Model(name, config, kind, place, mean, std)
    mean, std = (), ()
    for other in others[:1]:
        with reading(other, "the image statistics of a CLIP of transformers"):
            mean, std = clip_transformers.statistics(read_json(other, MEGABYTE))
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
