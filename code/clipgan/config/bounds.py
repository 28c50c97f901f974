"""What the values of the keys may be: bounds, choices, texts, and what would contradict another key."""

from __future__ import annotations

import re
from typing import Any

from clipgan.config.sections import Config, get_key, key_paths
from clipgan.errors import UserError
from clipgan.files.gate import short

_STEPS = 10**9
LARGEST_IMAGE = 2048  # pixels of a side

# The least and the greatest value of every key that is a number.
BOUNDS: dict[str, tuple[float, float]] = {
    "GPU_ID": (-1, 1023),
    "WORKERS": (0, 256),
    "SEED": (0, 2**63 - 1),
    "TREE.BRANCH_NUM": (1, 8),
    "TREE.BASE_SIZE": (8, LARGEST_IMAGE),
    "DATA.CROP_SCALE": (1.0, 8.0),
    "TRAIN.BATCH_SIZE": (2, 65536),
    "TRAIN.LOOK_ALIKES": (1, 65536),
    "TRAIN.MAX_EPOCH": (0, _STEPS),
    "TRAIN.MAX_STEPS": (0, _STEPS),
    "TRAIN.SNAPSHOT_INTERVAL": (1, _STEPS),
    "TRAIN.DISCRIMINATOR_LR": (0.0, 100.0),
    "TRAIN.GENERATOR_LR": (0.0, 100.0),
    "TRAIN.BACKBONE_LR": (0.0, 100.0),
    "TRAIN.LINEAR_LR": (0.0, 100.0),
    "TRAIN.RNN_GRAD_CLIP": (1e-6, 1e6),
    "TRAIN.EMA": (0.0, 1.0),
    "TRAIN.ACCUMULATE": (1, 65536),
    "TRAIN.STATE_INTERVAL": (0.0, 1e9),
    "TRAIN.SMOOTH.GAMMA1": (0.0, 1000.0),
    "TRAIN.SMOOTH.GAMMA2": (1e-3, 1000.0),
    "TRAIN.SMOOTH.GAMMA3": (0.0, 1000.0),
    "TRAIN.SMOOTH.LAMBDA": (0.0, 1e6),
    "TRAIN.CONTRASTIVE.WEIGHT": (0.0, 1e6),
    "TRAIN.CONTRASTIVE.TEMPERATURE": (1e-3, 1e3),
    "TRAIN.GRADIENT_PENALTY.WEIGHT": (0.0, 1e6),
    "TRAIN.GRADIENT_PENALTY.EVERY": (1, _STEPS),
    "GAN.DF_DIM": (1, 1024),
    "GAN.GF_DIM": (1, 1024),
    "GAN.Z_DIM": (1, 16384),
    "GAN.CONDITION_DIM": (1, 16384),
    "GAN.R_NUM": (1, 64),
    "TEXT.CAPTIONS_PER_IMAGE": (1, 1000),
    "TEXT.EMBEDDING_DIM": (1, 65536),
    "TEXT.WORDS_NUM": (1, 1000),
    "EVAL.NUM_IMAGES": (1, 10**8),
    "EVAL.BATCH_SIZE": (1, 65536),
    "EVAL.INTERVAL": (0, _STEPS),
    "EVAL.MEASURE_IMAGES": (2, 10**8),
}
_CHOICES = {
    "TRAIN.PRECISION": ("fp32", "tf32", "bf16", "fp16"),
    "TRAIN.CLIP_ACTIVATION": ("", "gelu", "quick_gelu"),
    "EVAL.JUDGE.CLIP_ACTIVATION": ("", "gelu", "quick_gelu"),
    "EVAL.BEST_SPLIT": ("train", "test"),
    "TRAIN.GRADIENT_PENALTY.KIND": ("", "r1", "matching_aware"),
}
# Lists of names: which names there are. None may be there twice.
_NAMES_OF = {"TRAIN.DIFFAUG": ("color", "translation", "cutout")}
# Lists of three numbers, one a colour: their bounds. An empty one says nothing.
_COLOURS = {"CLIP_MEAN": (-10.0, 10.0), "CLIP_STD": (1e-3, 10.0)}
_NEEDED = ("DATA_DIR", "OUTPUT_DIR")
_NAMES = ("CONFIG_NAME", "DATASET_NAME")  # which name the run folder
_LONGEST_NAME = 100  # bytes
_LONGEST_PATH = 4096  # characters
# Control characters, halves of surrogate pairs, and what stands in a decoded file for a byte that is no text.
_NO_TEXT = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufffd]")


def check(config: Config, source: str) -> None:
    """Refuse values out of range and contradictions, with ``source`` and the key in the message."""
    for key in key_paths():
        refusal = _refusal(key, get_key(config, key))
        if refusal:
            raise UserError(f"{source}: {key} {refusal}")
    if config.image_size > LARGEST_IMAGE:
        raise UserError(
            f"{source}: TREE.BASE_SIZE {config.TREE.BASE_SIZE} and TREE.BRANCH_NUM {config.TREE.BRANCH_NUM} make "
            f"images of {config.image_size} px: the largest may have {LARGEST_IMAGE}"
        )
    if config.EVAL.JUDGE.CLIP_PRETRAINED and not config.EVAL.JUDGE.CLIP_MODEL_BASE:
        raise UserError(f"{source}: EVAL.JUDGE.CLIP_PRETRAINED needs EVAL.JUDGE.CLIP_MODEL_BASE, the model they are of")


def _refusal(key: str, value: Any) -> str:
    """What is wrong with a value by itself; empty where nothing is."""
    if key in _CHOICES:
        names = [name or "empty" for name in _CHOICES[key]]
        return "" if value in _CHOICES[key] else f"must be one of {', '.join(names)}, not {short(value)}"
    if key in BOUNDS:
        return _wrong_number(key, value)
    if key in _NAMES_OF:
        fits = set(value) <= set(_NAMES_OF[key]) and len(set(value)) == len(value)
        return "" if fits else f"must hold some of {', '.join(_NAMES_OF[key])}, each once, not {short(value)}"
    if isinstance(value, list):
        if key.rpartition(".")[2] not in _COLOURS:
            return next(filter(None, (_wrong_text(key, text) for text in value)), "")
        low, high = _COLOURS[key.rpartition(".")[2]]
        fits = len(value) in (0, 3) and all(low <= number <= high for number in value)
        return "" if fits else f"must be empty or three numbers from {low:g} to {high:g}, not {short(value)}"
    return _wrong_text(key, value) if isinstance(value, str) else ""


def _wrong_number(key: str, value: float | None) -> str:
    low, high = BOUNDS[key]
    if value is None or low <= value <= high:
        return "must be below 1, not 1.0" if key == "TRAIN.EMA" and value == 1 else ""
    finite = "a finite number of " if isinstance(low, float) else ""
    why = ": the matching losses compare the pairs of a batch" if key == "TRAIN.BATCH_SIZE" and value < low else ""
    return f"must be {finite}at least {low:g} and at most {_plain(high)}, not {short(value)}{why}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _wrong_text(key: str, value: str) -> str:
    if _NO_TEXT.search(value):
        return f"holds a character that is none of a text: {short(value)}"
    if len(value) > _LONGEST_PATH:
        return f"must have at most {_LONGEST_PATH} characters, not {len(value)}"
    if key in _NEEDED and not value.strip():
        return "is empty: name a folder"
    if key in _NAMES:
        if not value.strip() or value in (".", "..") or "/" in value or "\\" in value:
            return f"names the run folder, so it is neither empty nor a path: not {short(value)}"
        if len(value.encode()) > _LONGEST_NAME:
            return f"names the run folder, so it has at most {_LONGEST_NAME} bytes, not {len(value.encode())}"
    return ""


def require_generator_size(config: Config) -> None:
    """The generator doubles 4×4 up to ``TREE.BASE_SIZE``; pretraining takes any size.

    Raises:
        UserError: the size is no power of two.
    """
    size = config.TREE.BASE_SIZE
    if size & (size - 1):
        raise UserError(f"TREE.BASE_SIZE must be a power of two (8, 16, 32, 64, …) for the generator, not {size}")


def require_embedding_dim(config: Config, word_dim: int) -> None:
    """Refuse a config whose ``TEXT.EMBEDDING_DIM`` is not the width of the encoder's words."""
    if word_dim != config.TEXT.EMBEDDING_DIM:
        raise UserError(
            f"TEXT.EMBEDDING_DIM is {config.TEXT.EMBEDDING_DIM}, but the words of {config.TRAIN.CLIP_MODEL_BASE} "
            f"have {word_dim} dimensions"
        )
