"""Hugging Face's description of a CLIP: transformers' ``config.json`` as a model config in open_clip's format.

Unlike most files of weights, it says which activation they were trained with (``hidden_act``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipgan.files.gate import short
from clipgan.files.shapes import Misfit, anything, either, mapping_of, nothing, number, record, text, whole
from clipgan.networks.clip_config import END_OF_TEXT, MEAN, STD, alike

CONFIG_FILE = "config.json"
PREPROCESSING_FILES = ("preprocessor_config.json", "processor_config.json")
_KEYS = ("model_type", "text_config", "vision_config", "text_config_dict", "vision_config_dict")
_ACTIVATIONS = {"quick_gelu": True, "gelu": False}

# Keys that a file leaves out where they have these values: those of CLIP ViT-B/32
_DEFAULTS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_TEXT_DEFAULTS = {
    **_DEFAULTS, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "max_position_embeddings": 77, "vocab_size": END_OF_TEXT + 1, "eos_token_id": END_OF_TEXT,
}  # fmt: skip
_VISION_DEFAULTS = {
    **_DEFAULTS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
    "patch_size": 32, "num_channels": 3,
}  # fmt: skip

_SIZE = whole(1, 1 << 20)
_TOWER = {
    "num_hidden_layers": _SIZE,
    "hidden_act": text(100),
    "layer_norm_eps": number(1e-12, 0.1),
    "hidden_size": _SIZE,
    "intermediate_size": _SIZE,
    "num_attention_heads": _SIZE,
}
_TEXT = record({**_TOWER, "max_position_embeddings": _SIZE, "vocab_size": _SIZE, "eos_token_id": anything}, others=True)
_VISION = record({**_TOWER, "image_size": _SIZE, "patch_size": _SIZE, "num_channels": _SIZE}, others=True)
_SECTION = either(nothing, mapping_of(anything, at_most=1000))
_PREPROCESSING = record(
    {},
    {
        "do_normalize": either(nothing, anything),
        "image_mean": either(nothing, MEAN),
        "image_std": either(nothing, STD),
    },
    others=True,
)


def is_of_transformers(content: Mapping) -> bool:
    """Whether a JSON dictionary is a ``config.json`` of transformers."""
    return any(key in content for key in _KEYS)


def as_open_clip(content: Mapping, name: str) -> dict[str, Any]:
    """The model config that a ``config.json`` describes; ``check_config`` bounds its sizes.

    Raises:
        Misfit: it is none of a CLIP with a vision transformer, or says what open_clip cannot compute.
    """
    kind = content.get("model_type", "clip")
    if kind != "clip":
        raise Misfit(
            f"{name} is a {short(kind)} of transformers, not a CLIP (model_type clip): use a CLIP ViT such as "
            f"{alike(name)}"
        )
    words = _section(content, "text", _TEXT_DEFAULTS)
    vision = _section(content, "vision", _VISION_DEFAULTS)
    _TEXT(words, f"{name}.text_config")
    _VISION(vision, f"{name}.vision_config")
    projection = 512 if content.get("projection_dim") is None else content["projection_dim"]
    _SIZE(projection, f"{name}.projection_dim")
    activations = {words["hidden_act"], vision["hidden_act"]}
    if len(activations) > 1 or not activations <= _ACTIVATIONS.keys():
        raise Misfit(
            f"{name} has hidden_act {' and '.join(map(short, sorted(activations)))}: text_config and vision_config "
            f"must both have {' or both '.join(_ACTIVATIONS)}"
        )
    if words["eos_token_id"] not in (END_OF_TEXT, 2):  # 2 stands in old files; the library then takes the largest token
        raise Misfit(
            f"{name} takes the sentence from the token {short(words['eos_token_id'])} (text_config.eos_token_id), but "
            f"CLIP's captions end with {END_OF_TEXT}"
        )
    if vision["num_channels"] != 3:
        raise Misfit(f"{name}.vision_config.num_channels must be 3, not {vision['num_channels']}")
    for section, part in (("text_config", words), ("vision_config", vision)):
        heads = part["num_attention_heads"]
        if part["hidden_size"] % heads:
            raise Misfit(f"{name}.{section}.num_attention_heads {heads} does not divide hidden_size")
    return {
        "embed_dim": projection,
        "quick_gelu": _ACTIVATIONS[activations.pop()],
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_tower(vision),
        },
        "text_cfg": {
            "context_length": words["max_position_embeddings"],
            "vocab_size": words["vocab_size"],
            "heads": words["num_attention_heads"],
            **_tower(words),
        },
    }


def statistics(content: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a preprocessing file, of images in [0, 1]; empty where it does not say them.

    Raises:
        Misfit: they have another shape.
    """
    if isinstance(content, Mapping) and isinstance(content.get("image_processor"), Mapping):
        content = content["image_processor"]
    _PREPROCESSING(content, "it")
    if content.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    mean, std = (tuple(content.get(key) or ()) for key in ("image_mean", "image_std"))
    return mean, std


def _section(content: Mapping, tower: str, defaults: Mapping) -> dict[str, Any]:
    """What a file says of a tower. Where the old key ``<tower>_config_dict`` is there, it holds, with the defaults."""
    found = dict(defaults)
    for key in (f"{tower}_config", f"{tower}_config_dict"):
        said = content.get(key)
        _SECTION(said, key)
        if said is not None:
            found |= defaults | {name: value for name, value in said.items() if value is not None}
    return found


def _tower(part: Mapping) -> dict[str, Any]:
    """What both towers have. ``mlp_ratio`` is one for which open_clip, which rounds down, finds the same size."""
    width, inner = part["hidden_size"], part["intermediate_size"]
    ratio = inner / width if int(width * (inner / width)) == inner else (inner + 0.5) / width
    tower = {"width": width, "layers": part["num_hidden_layers"], "mlp_ratio": ratio}
    if part["layer_norm_eps"] != _DEFAULTS["layer_norm_eps"]:
        tower["norm_kwargs"] = {"eps": part["layer_norm_eps"]}
    return tower
