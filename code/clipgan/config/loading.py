"""From YAML, dictionaries and ``--set`` to a checked :class:`Config`, and back to YAML."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from clipgan.config.bounds import check
from clipgan.config.sections import Config, key_paths
from clipgan.config.yaml_file import parse_yaml
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, read_text, reading, short
from clipgan.files.writing import write_text

# Keys of the original code that had no effect there. They are accepted, so that its files still load.
_WITHOUT_EFFECT = {
    *("STEP_SIZE_UP", "STEP_SIZE_DOWN", "GAMMA", "BASE_LR", "MAX_LR", "NET_E", "DEVICE", "ENCODER_LR"),
    *("RNN_TYPE", "B_ATTENTION", "B_DCGAN"),
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    list[float]: "a list of numbers, such as [0.5, 0.5, 0.5]",
    list[str]: "a list of names, such as [r_precision, fid]",
}
_LONGEST = {list[float]: 3, list[str]: 100}  # lists that a key can hold, and how many items


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file into a checked :class:`Config`.

    Args:
        path: the YAML file.
        overrides: ``KEY.PATH=VALUE`` strings, applied in order after the file; the value is read as YAML.

    Returns:
        The config, whose ``said`` tells which keys the file and the overrides name.

    Raises:
        UserError: the file is missing or no YAML mapping; a key is unknown (with the nearest valid one) or stands
            there twice, a value has the wrong type, is out of range or contradicts another.
    """
    if not os.path.exists(path):
        raise UserError(f"no config file at {path}: give the path of a YAML file, such as cfg/DAMSM/bird.yml")
    with reading(path, "a config in YAML, such as cfg/DAMSM/bird.yml"):
        values = parse_yaml(read_text(path, at_most=MEGABYTE))
    if values is None:
        values = {}
    config = Config()
    ignored: list[str] = []
    _update(config, values, "", str(path), ignored, config.said)
    for override in overrides:
        _apply_override(config, override, ignored)
    if ignored:
        names = ", ".join(sorted(set(ignored)))
        print(f"warning: {path}: these keys of the original code have no effect: {names}", file=sys.stderr)
    check(config, f"{path} with --set" if overrides else str(path))
    return config


def config_from_dict(values: dict, source: str) -> Config:
    """A checked config of what ``dataclasses.asdict`` made of one; raises as :func:`load_config`."""
    config = Config()
    _update(config, values, "", source, [], config.said)
    check(config, source)
    return config


def config_of_settings(overrides: Sequence[str]) -> Config:
    """A checked config of ``KEY.PATH=VALUE`` strings and defaults; raises as :func:`load_config`."""
    config = Config()
    for override in overrides:
        _apply_override(config, override, [])
    check(config, "--set")
    return config


def save_config(config: Config, path: str | Path) -> None:
    """Write every key with its resolved value; :func:`load_config` reads the file back to an equal config.

    Raises:
        UserError: it cannot be written; a file that was there is still the old one.
    """
    write_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(asdict(config), sort_keys=False)


def _apply_override(config: Config, override: str, ignored: list[str]) -> None:
    key, equals, text = override.partition("=")
    said = f"--set {short(override)[1:-1]}"
    if not equals or not key.strip():
        raise UserError(f"{said}: expected KEY.PATH=VALUE, such as TRAIN.BATCH_SIZE=4")
    try:
        value = parse_yaml(text) if text else ""
    except UserError as error:
        raise UserError(f"{said}: {error}") from None
    nested: Any = value
    for name in reversed(key.strip().split(".")):
        nested = {name: nested}
    _update(config, nested, "", "--set", ignored, config.said)


def _update(node: Any, values: Any, prefix: str, source: str, ignored: list[str], said: dict[str, str]) -> None:
    """Set what ``values`` names in a section (or, without a prefix, in the whole config), each value converted."""
    if not isinstance(values, dict):
        if prefix:
            raise UserError(f"{source}: {prefix[:-1]} is a section with keys below it, not a value ({short(values)})")
        raise UserError(f"{source} must hold a mapping of keys to values, not {short(values)}")
    hints = get_type_hints(type(node))
    for key, value in values.items():
        name = f"{prefix}{short(key)[1:-1] if isinstance(key, str) else short(key)}"
        if not isinstance(key, str) or key not in hints:
            if key in _WITHOUT_EFFECT:
                ignored.append(name)
                continue
            raise UserError(f"{source}: unknown key {name}{_nearest(name)}")
        current = getattr(node, key)
        if is_dataclass(current):
            _update(current, value, f"{name}.", source, ignored, said)
        else:
            setattr(node, key, _convert(value, hints[key], name, source))
            said[name] = source


def _nearest(name: str) -> str:
    paths = list(key_paths())
    last = name.rpartition(".")[2]
    found = [path for path in paths if path.rpartition(".")[2] == last]  # a right key in the wrong section
    found = found or difflib.get_close_matches(name, paths, n=1, cutoff=0.6)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _convert(value: Any, hint: Any, name: str, source: str) -> Any:
    """Give a YAML value the type of its key; ``1e-4``, which YAML 1.1 reads as a string, is a number all the same."""
    if hint == int | None:
        if value is None or value == "":
            return None
        hint = int
    if hint is str and value is None:
        return ""
    if hint in _LONGEST:
        value = [] if value is None or value == "" else value
        if type(value) in (list, tuple) and len(value) <= _LONGEST[hint]:
            return [_convert(item, get_args(hint)[0], name, source) for item in value]
    if hint is float:
        value = _to_float(value)
    if type(value) is not hint:
        quotes = "; put it in quotes" if hint is str and not isinstance(value, list | dict) else ""
        raise UserError(f"{source}: {name} must be {_KINDS[hint]}, not {short(value)}{quotes}")
    return value


def _to_float(value: Any) -> Any:
    """A number or the text of one as a float; anything else as it is."""
    if type(value) in (int, str):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except ValueError:
            pass
    return value
