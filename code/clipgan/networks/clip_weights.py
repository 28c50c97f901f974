"""Weights of CLIPs, in the layouts in which they are passed around, by the names that open_clip gives them.

Read are open_clip's own state dicts, OpenAI's TorchScript archives, checkpoints of training frameworks that nest a
state dict and put prefixes before its names, and the layout of transformers' ``CLIPModel``; as PyTorch's files or as
safetensors. Nothing of a file is ever run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.archives import open_archive, read_member
from clipgan.files.gate import MEGABYTE, reading, short
from clipgan.files.pickles import Foreign
from clipgan.files.safetensors_file import is_safetensors, read_safetensors
from clipgan.files.torch_file import is_torchscript, read_torch_file

EXPECTED = "weights of a CLIP in open_clip's, OpenAI's or transformers' layout"

# A name of each layout that nothing else has; what stands before it is the prefix of all.
_OPEN_CLIP, _TRANSFORMERS = "visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"
_USUAL_KEYS = ("state_dict", "model", "model_state_dict", "module", "net", "weights")  # of a nested state dict
# Attributes and constants that no network here has as weights
_IGNORED = re.compile(r"(.*\.)?(position_ids|attn_mask|input_resolution|context_length|vocab_size)$")
_LARGEST_PROGRAM = 64 * MEGABYTE  # text of a TorchScript archive; OpenAI's have less than one
# Names that other models have, beside those by which a CLIP is known, and what these are
_OTHERS = (
    (re.compile(r"visual\.(layer\d|attnpool)\."), "a CLIP with a ResNet, which has no regions as a ViT has them"),
    (re.compile(r"text_decoder\."), "a CoCa, a captioner"),
    (re.compile(r"vision_model\.head\.|text_model\.head\."), "a SigLIP, which reads text in another way than CLIP"),
    (re.compile(r"text\.transformer\.(embeddings|encoder|shared)\."), "a CLIP with a text tower of transformers"),
)
# The same for models that have none of those names
_NO_CLIPS = (
    (re.compile(r"(.*\.)?visual\.trunk\."), "a CLIP with an image tower of timm (SigLIP, EVA02, ConvNeXt, …)"),
    (re.compile(r"(.*\.)?visual\.(blocks\.\d|patch_embed\.)"), "an EVA-CLIP"),
    (re.compile(r"(.*\.)?visual_encoder\."), "a BLIP"),
)
_TEXT_TOWER = re.compile(r"(token_embedding|positional_embedding|transformer|ln_final|text_projection)(\.|$)")


class Weights(NamedTuple):
    """A CLIP's weights by open_clip's names."""

    tensors: dict[str, Tensor]
    quick_gelu: bool | None = None  # what the program of a TorchScript archive computes; None where there is none


def read_weights(path: str | Path) -> Weights:
    """The weights of a file.

    Raises:
        UserError: no such file; damaged; no CLIP in it, or two.
    """
    quick_gelu = None
    if is_safetensors(path):
        content: Any = read_safetensors(path, expected=EXPECTED)
    else:
        content = read_torch_file(path, foreign=True, expected=EXPECTED)
        if is_torchscript(path):
            quick_gelu = _activation_of_program(path)
    with reading(path, EXPECTED):
        if isinstance(content, Mapping) and str(content.get("format")).startswith("clipgan"):
            kind, key = short(content.get("kind"))[1:-1], "CLIP_MODEL_CHECKPOINT"
            raise UserError(f"is a checkpoint of this project ({kind}): an encoder is named in {key}")
        found = _state_dict(content)
        prefix, layout = _prefix(found)
        tensors = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        tensors = {name: value for name, value in tensors.items() if not _IGNORED.match(name)}
        for name, value in tensors.items():
            shapes.tensor(value, name)
        other = next((what for pattern, what in _OTHERS if any(map(pattern.match, tensors))), "")
        if other:
            raise ValueError(f"holds {other}: use weights of a CLIP ViT, such as those of ViT-B-32")
        if layout == _TRANSFORMERS:
            tensors = dict(_from_transformers(tensors))
    return Weights(tensors, quick_gelu)


def _activation_of_program(path: str | Path) -> bool | None:
    """Whether the program of a TorchScript archive computes QuickGELU, x·sigmoid(1.702·x); None where it is unclear.

    Its text is read, never run. In a CLIP's vision transformer nothing else has a sigmoid.
    """
    with reading(path, EXPECTED), open_archive(path, stored=True) as archive:
        members = [member for member in archive.infolist() if re.search(r"/code/.*\.py$", member.filename)]
        if sum(member.file_size for member in members) > _LARGEST_PROGRAM:
            raise ValueError("its program is larger than any of a CLIP")
        found = set()
        for member in members:
            text = bytes(read_member(archive, member.filename, stored=False))
            found |= set(re.findall(rb"torch\.(sigmoid|gelu)\(", text))
    return found == {b"sigmoid"} if len(found) == 1 else None


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of the dictionary that holds a CLIP: the content itself, or one of those nested in it."""
    candidates: list[tuple[str, dict]] = []
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen: list[str] = []
    while waiting and len(candidates) < 10:
        key, value, depth = waiting.pop(0)
        if not isinstance(value, Mapping):
            continue
        tensors = {name: part for name, part in value.items() if isinstance(name, str) and isinstance(part, Tensor)}
        seen += tensors
        if any(name.endswith((_OPEN_CLIP, _TRANSFORMERS)) for name in tensors):
            candidates.append((key, tensors))
        elif depth < 3 and len(value) < 1000:
            waiting += [(str(name), part, depth + 1) for name, part in value.items()]
    for key in ("", *_USUAL_KEYS):
        for name, tensors in candidates:
            if name == key:
                return tensors
    if len(candidates) == 1:
        return candidates[0][1]
    if candidates:
        raise ValueError(f"holds several CLIPs: {short([key for key, _ in candidates])}; save one of them alone")
    if isinstance(content, Foreign):
        raise ValueError(f"is a whole {short(content.name)[1:-1]}, which is not run: save its state_dict() instead")
    names = list(content)[:4] if isinstance(content, Mapping) else short(content)
    for pattern, what in _NO_CLIPS:
        if any(pattern.match(name) for name in seen):
            raise ValueError(f"holds {what}, not a CLIP ViT: use weights of one, such as those of ViT-B-32")
    raise ValueError(
        f"holds no CLIP with a vision transformer: no {_OPEN_CLIP}, no {_TRANSFORMERS}, but {short(names)}"
    )


def _prefix(tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """What stands before all names of the CLIP, and the name by which its layout is known."""
    found = {
        (name[: -len(known)], known)
        for known in (_OPEN_CLIP, _TRANSFORMERS)
        for name in tensors
        if name.endswith(known) and (len(name) == len(known) or name[-len(known) - 1] == ".")
    }
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} CLIPs, with the prefixes {short([prefix for prefix, _ in found])}")
    return found.pop()


def _from_transformers(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The names and matrices of transformers' CLIPModel as open_clip's; what is unknown keeps its name."""
    for name, value in tensors.items():
        if name in ("text_projection.weight", "visual_projection.weight"):
            yield ("text_projection" if name.startswith("text") else "visual.proj"), _turned(value, name)
            continue
        tower, _, rest = name.partition(".")
        if tower not in ("text_model", "vision_model"):
            yield name, value
            continue
        ours = "visual." if tower == "vision_model" else ""
        layer = re.fullmatch(r"encoder\.layers\.(\d{1,4})\.(.+)\.(weight|bias)", rest)
        if layer is None:
            yield (ours + _OUTSIDE_LAYERS[rest] if rest in _OUTSIDE_LAYERS else name), value
            continue
        number, part, kind = layer.groups()
        block = f"{ours}transformer.resblocks.{int(number)}"
        if part in _IN_LAYERS:
            yield f"{block}.{_IN_LAYERS[part]}.{kind}", value
        elif part == "self_attn.q_proj":  # open_clip keeps queries, keys and values in one matrix
            beginning = name.removesuffix(f"q_proj.{kind}")
            three = [tensors.get(f"{beginning}{letter}_proj.{kind}") for letter in "qkv"]
            if any(part is None or part.shape != value.shape for part in three):
                raise ValueError(f"lacks the keys or values that belong to {short(name)}, or has others")
            yield f"{block}.attn.in_proj_{kind}", torch.cat(three)
        elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
            yield name, value


_IN_LAYERS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OUTSIDE_LAYERS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "pre_layrnorm.weight": "ln_pre.weight",  # really spelled so
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}


def _turned(value: Tensor, name: str) -> Tensor:
    if value.dim() != 2:
        raise ValueError(f"has {name} as {short(list(value.shape))}, not as a matrix")
    return value.T.contiguous()


def named_as_in(tensors: Mapping[str, Tensor], clip: nn.Module, config: Mapping) -> dict[str, Tensor]:
    """Weights by the names that ``clip`` gives them, whether its text tower stands apart or not.

    The scale and bias of CLIP's own loss, which nothing here uses, may be missing, superfluous, or of one dimension
    more or less.
    """
    apart = hasattr(clip, "text")
    named = {}
    for name, value in tensors.items():
        if apart and _TEXT_TOWER.match(name):
            name = f"text.{name}"
        elif not apart and name.startswith("text.") and _TEXT_TOWER.match(name[5:]):
            name = name[5:]
        named[name] = value
    wanted = clip.state_dict()
    initial = {"logit_scale": config.get("init_logit_scale"), "logit_bias": config.get("init_logit_bias")}
    initial["logit_scale"] = math.log(1 / 0.07) if initial["logit_scale"] is None else initial["logit_scale"]
    for name, value in initial.items():
        found = named.pop(name, None)
        if name in wanted and found is not None and found.numel() == 1:
            named[name] = found.reshape(wanted[name].shape)
        elif name in wanted:
            named[name] = torch.full(wanted[name].shape, float(value or 0))
    return named


def fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network on the meta device memory and weights; the caller sets what is no weight.

    Args:
        network: on the meta device.
        tensors: its state dict, in any floating-point type.

    Raises:
        UserError: names or shapes differ (the first are named; no memory was taken then), or a weight is not finite.
    """
    differences = shapes.weight_differences(network.state_dict(), tensors)
    if differences:
        raise UserError(differences)
    network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    broken = shapes.not_finite(network.state_dict().items())
    if broken:
        raise UserError(f"its {broken} holds NaN or infinities")
