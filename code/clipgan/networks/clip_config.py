"""The declared shape of model configs in open_clip's format.

Every size is bounded, so that building a network on the meta device is quick. What would download weights, and what
this project cannot use, is refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import open_clip

from clipgan.files import shapes
from clipgan.files.gate import short
from clipgan.files.shapes import Misfit, either, flag, list_of, nothing, number, one_of, record, text, whole

END_OF_TEXT = 49407  # CLIP's token, the largest of its vocabulary of 49 408

# Image statistics, of images in [0, 1]
MEAN = list_of(number(-10, 10), 3, 3)
STD = list_of(number(1e-3, 10), 3, 3)

_WIDTH, _LAYERS = whole(1, 16384), whole(1, 200)
_RATIO = number(1 / 64, 64)
_ACTIVATION = either(nothing, record({}, {"approximate": one_of("none", "tanh")}))
_NORM = either(nothing, record({}, {"eps": number(1e-12, 0.1)}))
_SCALE = either(nothing, number(0, 1000))
_NAME = either(nothing, text(200))
_NONE = one_of(False)

# What to use instead of a model that is refused, by the last size in its name: published ViTs about as large
_SIZE = re.compile(r"(?:^|[-_])(B-16|base[-_]patch16|L|large|SO400M|so400m|H|huge|gopt|g|giant|bigG|E)(?=[-_]|$)")
_AS_LARGE = {
    **dict.fromkeys(("B-16", "base-patch16", "base_patch16"), "ViT-B-16"),
    **dict.fromkeys(("L", "large", "SO400M", "so400m"), "ViT-L-14"),
    **dict.fromkeys(("H", "huge"), "ViT-H-14"),
    **dict.fromkeys(("g", "giant", "gopt"), "ViT-g-14"),
    **dict.fromkeys(("bigG", "E"), "ViT-bigG-14"),
}
_BLOCK = {
    "block_type": either(nothing, one_of("default", "custom")),
    "qk_norm": flag,
    "scaled_cosine_attn": _NONE,  # open_clip's own code of it cannot run
    "scale_heads": flag,
    "scale_attn_inner": flag,
    "scale_attn": flag,
    "scale_fc": flag,
}
_VISION = {
    "layers": _LAYERS,
    "width": _WIDTH,
    "head_width": _WIDTH,
    "mlp_ratio": _RATIO,
    "patch_size": whole(1, 1024),
    "image_size": either(list_of(whole(8, 1024), 2, 2), whole(8, 1024)),
    "ls_init_value": _SCALE,
    "patch_dropout": number(0, 0),  # would leave regions out in training
    "attentional_pool": flag,
    "attn_pooler_queries": whole(1, 4096),
    "attn_pooler_heads": whole(1, 4096),
    "no_ln_pre": flag,
    "pos_embed_type": one_of("learnable", "sin_cos_2d"),
    "final_ln_after_pool": flag,
    "pool_type": one_of("tok", "avg"),
    "output_tokens": flag,
    "act_kwargs": _ACTIVATION,
    "norm_kwargs": _NORM,
    **_BLOCK,
    "timm_model_name": nothing,
    "timm_model_pretrained": _NONE,
    "timm_pool": _NAME,
    "timm_proj": _NAME,
    "timm_proj_bias": flag,
    "timm_drop": number(0, 1),
    "timm_drop_path": either(nothing, number(0, 1)),
}
_TEXT = {
    "context_length": whole(3, 1024),
    "vocab_size": one_of(END_OF_TEXT + 1),
    "hf_tokenizer_name": nothing,
    "tokenizer_mode": nothing,
    "tokenizer_kwargs": either(nothing, record({})),
    "width": _WIDTH,
    "heads": _WIDTH,
    "layers": _LAYERS,
    "mlp_ratio": _RATIO,
    "ls_init_value": _SCALE,
    "embed_cls": _NONE,
    "pad_id": whole(0, END_OF_TEXT),
    "eos_id": whole(0, END_OF_TEXT),
    "no_causal_mask": _NONE,
    "final_ln_after_pool": flag,
    "pool_type": one_of("argmax", "eos"),
    "proj_bias": flag,
    "proj_type": one_of("linear", "none"),
    "output_tokens": flag,
    "act_kwargs": _ACTIVATION,
    "norm_kwargs": _NORM,
    **_BLOCK,
    "hf_model_name": nothing,
    "hf_model_pretrained": flag,
    "hf_proj_type": _NAME,
    "hf_pooler_type": _NAME,
}


def _known(shape: dict[str, shapes.Shape], section: type) -> dict[str, shapes.Shape]:
    """The keys that the installed open_clip has too."""
    names = {field.name for field in fields(section)}
    return {key: value for key, value in shape.items() if key in names}


_CONFIG = record(
    {
        "embed_dim": _WIDTH,
        "vision_cfg": record({}, _known(_VISION, open_clip.CLIPVisionCfg)),
        "text_cfg": record({}, _known(_TEXT, open_clip.CLIPTextCfg)),
    },
    {
        "quick_gelu": flag,
        "custom_text": flag,
        "init_logit_scale": number(-100, 100),
        "init_logit_bias": either(nothing, number(-1000, 1000)),
        "nonscalar_logit_scale": flag,
    },
)
PREPROCESSING = either(nothing, record({}, {"mean": either(nothing, MEAN), "std": either(nothing, STD)}, others=True))


def check_config(config: Any, name: str) -> None:
    """Whether a value is the config of a CLIP whose words and regions this project can use.

    Raises:
        Misfit: names the key, or says why such a model is of no use here.
    """
    if not isinstance(config, Mapping):
        raise Misfit(f"{name} must be a dictionary, not {short(config)}")
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise Misfit(f"{name} is no open_clip model config: it lacks {', '.join(missing)}")
    for section in ("vision_cfg", "text_cfg"):
        if not isinstance(config[section], Mapping):
            raise Misfit(f"{name}.{section} must be a dictionary, not {short(config[section])}")
    reason = _unusable(config, config["vision_cfg"], config["text_cfg"], name)
    if reason:
        raise Misfit(f"{name} {reason}")
    _CONFIG(config, name)
    problem = _contradiction(config)
    if problem:
        raise Misfit(f"{name}.{problem}")


def alike(name: str) -> str:
    """A published model of open_clip that can be used, about as large as a name says; else ViT-B-32."""
    found = _SIZE.findall(name)
    return _AS_LARGE[found[-1]] if found else "ViT-B-32"


def _unusable(config: Mapping, vision: Mapping, words: Mapping, name: str) -> str | None:
    """Why a model, however well described, cannot be used; None if it can."""
    instead = f"use a CLIP ViT such as {alike(name)}"
    if config.get("multimodal_cfg"):
        return f"is a CoCa, a captioner with a third network, which is not read here: {instead}"
    if vision.get("timm_model_name") or vision.get("timm_model_pretrained"):
        return (
            f"sees images with a network of timm ({short(vision.get('timm_model_name'))}) and has no vision "
            f"transformer of open_clip, which the regions need: {instead}"
        )
    if isinstance(vision.get("layers"), list | tuple):
        return f"sees images with a ResNet and has no vision transformer, which the regions need: {instead}"
    if words.get("hf_model_name"):
        return (
            f"reads text with {short(words['hf_model_name'])} of transformers, which would be downloaded, not as CLIP "
            f"does (BPE, causal, end-of-text state): {instead}"
        )
    tokenizer = next((words[k] for k in ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode") if words.get(k)), 0)
    if tokenizer:
        return f"cuts text into the tokens of {short(tokenizer)}, not into CLIP's (BPE): {instead}"
    by_eos = words.get("pool_type") == "eos"
    if by_eos and words.get("eos_id", 2) != END_OF_TEXT:
        return (
            f"takes the sentence from the token {short(words.get('eos_id', 2))} (text_cfg: pool_type eos, eos_id), but "
            f"CLIP's captions end with {END_OF_TEXT}: set eos_id to {END_OF_TEXT} if it was trained so"
        )
    causal = words.get("no_causal_mask", False) is False and words.get("embed_cls", False) is False
    plain = words.get("vocab_size", END_OF_TEXT + 1), words.get("pool_type", "argmax")
    known = (isinstance(plain[0], int) and plain[0] > END_OF_TEXT + 1) or plain[1] in ("first", "last", "none")
    if not causal or known:
        return f"does not read text as CLIP does (BPE, causal, end-of-text state): {instead}"
    return None


def _contradiction(config: Mapping) -> str | None:
    """The first of several legal values that do not go together."""
    vision, words = (open_clip.CLIPVisionCfg(**config["vision_cfg"]), open_clip.CLIPTextCfg(**config["text_cfg"]))
    side = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
    heads = vision.width // vision.head_width
    if not isinstance(vision.image_size, int) and len(set(vision.image_size)) > 1:
        return f"vision_cfg.image_size must be a square, not {short(vision.image_size)}"
    if vision.patch_size > side or (side // vision.patch_size) ** 2 > 1 << 14:
        return f"vision_cfg.patch_size {vision.patch_size} does not cut images of {side} pixels into 1 to 16384 patches"
    if heads < 1 or vision.width % heads:
        return f"vision_cfg.head_width {vision.head_width} does not divide the width {vision.width}"
    if vision.pos_embed_type == "sin_cos_2d" and (
        vision.width % 4 or (side // vision.patch_size) ** 2 * vision.width > 1 << 25
    ):
        return f"vision_cfg.pos_embed_type sin_cos_2d cannot be made for a width of {vision.width}"
    if vision.attentional_pool and config["embed_dim"] % vision.attn_pooler_heads:
        return f"vision_cfg.attn_pooler_heads {vision.attn_pooler_heads} does not divide embed_dim"
    if words.width % words.heads:
        return f"text_cfg.heads {words.heads} does not divide the width {words.width}"
    if words.proj_type == "none" and words.width != config["embed_dim"]:
        return f"text_cfg.width {words.width} must be embed_dim where proj_type is none"
    for section, part in (("vision_cfg", vision), ("text_cfg", words)):
        if int(part.width * part.mlp_ratio) < 1:
            return f"{section}.mlp_ratio {part.mlp_ratio} leaves nothing of the width {part.width}"
        if config.get("quick_gelu") and part.act_kwargs:
            return f"{section}.act_kwargs is for gelu, but quick_gelu is true"
    return None


def same_shape(one: Mapping, other: Mapping) -> bool:
    """Whether two checked configs describe networks of the same shape; they may differ in QuickGELU."""

    def resolved(config: Mapping) -> tuple:
        vision, words = (open_clip.CLIPVisionCfg(**config["vision_cfg"]), open_clip.CLIPTextCfg(**config["text_cfg"]))
        others = ("custom_text", "nonscalar_logit_scale")
        return config["embed_dim"], vision, words, *(bool(config.get(key)) for key in others)

    return resolved(one) == resolved(other)
