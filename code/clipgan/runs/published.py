"""Converts the layer names of published DM-GAN checkpoints to the names of this package.

The weights are the same; only the names differ. In the published files, up-blocks hold their convolution and batch norm
at places 1 and 2 of a sequence, and residual blocks at 0, 1, 3 and 4. Spectrally normalised convolutions keep
`weight_bar` with the singular vectors `weight_u` and `weight_v`. Names may carry the prefix `module.` that
data-parallel training leaves.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from clipgan.errors import UserError

# Names shown of each list in an error: a file of another kind lacks all of them.
_NAMES_SHOWN = 8

_HIGHEST = 1024  # of a number in a layer's name: the largest image size, and far more blocks than anyone has stacked

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_CONV = ("weight", "bias")
_SPECTRAL = {
    "bias": "bias",
    "weight_bar": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def import_dmgan_generator(state_dict: dict[str, Tensor], whole: bool = True) -> dict[str, Tensor]:
    """A published generator's weights under the names of this package.

    Args:
        state_dict: weights as published. How many up-blocks, stages and residual blocks there are is read from it.
        whole: whether all parts of a generator must be there.

    Returns:
        The state dict of a `Generator`, or the part of it that is there.

    Raises:
        UserError: names that no DM-GAN generator has, or parts that are missing; lists the first of them.
    """
    given = _without_prefix(state_dict)
    names = {
        "ca_net.fc.weight": "condition.linear.weight",
        "ca_net.fc.bias": "condition.linear.bias",
        "h_net1.fc.0.weight": "first.linear.weight",
        **_renamed("h_net1.fc.1", "first.norm", _NORM),
    }
    for i in range(_highest(r"h_net1\.upsample(\d+)\.", given, at_least=1)):
        names |= _up_block(f"h_net1.upsample{i + 1}", f"first.up.{i}")

    scales = _highest(r"(?:h_net|img_net)(\d+)\.", given, at_least=1)
    residual_num = 1 + _highest(r"h_net\d+\.residual\.(\d+)\.", given, at_least=0)
    for scale in range(1, scales + 1):
        names[f"img_net{scale}.img.0.weight"] = f"heads.{scale - 1}.conv.weight"
    for scale in range(2, scales + 1):
        names |= _memory_stage(f"h_net{scale}", f"stages.{scale - 2}", residual_num)
    return _translate(given, names, "generator", whole)


def import_dmgan_discriminator(state_dict: dict[str, Tensor], whole: bool = True) -> dict[str, Tensor]:
    """A published discriminator's weights under the names of this package.

    Args:
        state_dict: weights as published. The image size (64 and its doublings) is read from the names.
        whole: whether all parts of a discriminator must be there.

    Returns:
        The state dict of a `Discriminator`, or the part of it that is there.

    Raises:
        UserError: names that no DM-GAN discriminator has, or parts that are missing; lists the first of them.
    """
    given = _without_prefix(state_dict)
    # `img_code_s<n>` halves the image until it is n times smaller; `img_code_s<n>_<i>` are the 3x3 convolutions.
    smallest_by = max(16, _highest(r"img_code_s(\d+)[._]", given, at_least=16))
    doublings = smallest_by.bit_length() - 5
    convs = [f"img_code_s16.{i}" for i in (0, 2, 4, 6)]
    convs += [f"img_code_s{32 << i}.0" for i in range(doublings)]
    convs += [f"img_code_s{16 << doublings}_{i + 1}.0" for i in range(doublings)]

    names = {}
    for i, conv in enumerate(convs):
        names |= _spectral(conv, f"trunk.{2 * i}")
    names |= _spectral("COND_DNET.jointConv.0", "joint.0")
    names |= _renamed("COND_DNET.outlogits.0", "conditional_head", _CONV)
    names |= _renamed("UNCOND_DNET.outlogits.0", "unconditional_head", _CONV)
    return _translate(given, names, "discriminator", whole)


def _memory_stage(published: str, ours: str, residual_num: int) -> dict[str, str]:
    names = {
        f"{published}.A.weight": f"{ours}.memory.word_gate.weight",
        f"{published}.B.weight": f"{ours}.memory.image_gate.weight",
        **_renamed(f"{published}.M_w.0", f"{ours}.memory.word_writer", _CONV),
        **_renamed(f"{published}.M_r.0", f"{ours}.memory.image_writer", _CONV),
        **_renamed(f"{published}.key.0", f"{ours}.memory.key", _CONV),
        **_renamed(f"{published}.value.0", f"{ours}.memory.value", _CONV),
        **_renamed(f"{published}.response_gate.0", f"{ours}.memory.response_gate", _CONV),
        **_up_block(f"{published}.upsample", f"{ours}.up"),
    }
    for i in range(residual_num):
        block, our_block = f"{published}.residual.{i}.block", f"{ours}.residual.{i}"
        names[f"{block}.0.weight"] = f"{our_block}.conv1.weight"
        names |= _renamed(f"{block}.1", f"{our_block}.norm1", _NORM)
        names[f"{block}.3.weight"] = f"{our_block}.conv2.weight"
        names |= _renamed(f"{block}.4", f"{our_block}.norm2", _NORM)
    return names


def _up_block(published: str, ours: str) -> dict[str, str]:
    return {f"{published}.1.weight": f"{ours}.conv.weight", **_renamed(f"{published}.2", f"{ours}.norm", _NORM)}


def _spectral(published: str, ours: str) -> dict[str, str]:
    return {f"{published}.module.{theirs}": f"{ours}.{name}" for theirs, name in _SPECTRAL.items()}


def _renamed(published: str, ours: str, parts: Iterable[str]) -> dict[str, str]:
    return {f"{published}.{part}": f"{ours}.{part}" for part in parts}


def _without_prefix(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _highest(pattern: str, names: Iterable[str], at_least: int) -> int:
    """The highest number that a name has where the pattern says; names with enormous ones stay unknown names."""
    found = [match[1] for match in (re.match(pattern, name) for name in names) if match]
    return max((int(digits) for digits in found if len(digits) <= 4 and int(digits) <= _HIGHEST), default=at_least)


def _translate(given: dict[str, Tensor], names: dict[str, str], kind: str, whole: bool) -> dict[str, Tensor]:
    # Files of PyTorch before 0.4.1 lack this counter; nothing that a forward pass computes depends on it.
    counters = {name: torch.zeros((), dtype=torch.int64) for name in names if name.endswith("num_batches_tracked")}
    given = {**counters, **given}
    unknown = sorted(given.keys() - names.keys())
    missing = sorted(names.keys() - given.keys()) if whole else []
    if unknown or missing:
        lists = {"unknown": unknown, "missing": missing}
        complaints = "; ".join(f"{what}: {_shown(found)}" for what, found in lists.items() if found)
        raise UserError(f"these weights are not those of a published DM-GAN {kind} ({complaints})")
    return {names[name]: tensor for name, tensor in given.items()}


def _shown(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
