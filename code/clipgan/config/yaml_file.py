"""YAML of anyone's, read into plain values: bounded in work and memory, every failure a line that names its place."""

from __future__ import annotations

import re
from typing import Any

import yaml

from clipgan.errors import UserError, one_line
from clipgan.files.gate import short

MOST_NODES = 10_000  # visited, so that anchors that multiply one another are counted as often as they appear
DEEPEST = 10  # levels
LONGEST_SCALAR = 5_000  # characters; paths have 4 096 at most
_MAPPING, _LIST, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str"))
# YAML 1.1 reads 010 as 8 and 1:30 as 90: whoever writes that in a config means something else.
_SURPRISING = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class _Composer(yaml.SafeLoader):
    """PyYAML's, but it stops at ``MOST_NODES`` and ``DEEPEST`` before it has built more."""

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MOST_NODES or self._depth > DEEPEST + 1:
            raise _too_much(self.line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: mappings from texts, lists, and scalars as ``yaml.safe_load`` reads them.

    Raises:
        UserError: it is no YAML, too large or too deep, has a key twice, a key that is no text, or a value that is
            not of the type that it claims. The message names the line and the key, not the file.
    """
    try:
        loader = _Composer(text)
        node = loader.get_single_node()
    except UserError:
        raise
    except Exception as error:  # beside its own errors, PyYAML raises nearly anything
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"is not valid YAML{place}: {one_line(problem, 200)}") from None
    return None if node is None else _Reader(loader).value(node, "", 0)


class _Reader:
    """Makes values of composed nodes, each scalar on its own, so that a failure knows its key."""

    def __init__(self, loader: _Composer):
        self._loader = loader
        self._visited = 0

    def value(self, node: yaml.Node, name: str, depth: int) -> Any:
        """``name`` is the key's whole path, for messages."""
        self._visited += 1
        if self._visited > MOST_NODES or depth > DEEPEST:
            raise _too_much(node.start_mark.line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, name)
        if node.tag not in (_MAPPING, _LIST):
            raise UserError(f"{_at(node, name)}: {short(node.tag)[1:-1]} is not for a config")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{name}[{place}]", depth + 1) for place, item in enumerate(node.value)]
        return self._mapping(node, name, depth)

    def _mapping(self, node: yaml.MappingNode, name: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TEXT:
                said = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                raise UserError(f"{_at(key_node, name)}: a key must be a text, not {short(said)}")
            key = key_node.value
            path = f"{name}.{key}" if name else key
            if key in found:
                raise UserError(f"{_at(key_node, path)} stands there twice: leave one of the two out")
            found[key] = self.value(value_node, path, depth + 1)
        return found

    def _scalar(self, node: yaml.ScalarNode, name: str) -> Any:
        text = node.value
        if len(text) > LONGEST_SCALAR:
            raise UserError(f"{_at(node, name)}: {short(text)} has {len(text)} characters: at most {LONGEST_SCALAR}")
        if node.tag != _TEXT and _SURPRISING.fullmatch(text):
            raise UserError(f"{_at(node, name)}: {short(text)} is octal or of base 60 in YAML: write it plainly")
        try:
            return self._loader.construct_object(node, deep=True)
        except Exception:  # whatever PyYAML's constructors raise for what looks like a number, a date or an object
            kind = short(node.tag.removeprefix("tag:yaml.org,2002:"))[1:-1]
            reason = f"{short(text)} cannot be read as YAML's {kind}; a text goes in quotes"
            raise UserError(f"{_at(node, name)}: {reason}") from None


def _at(node: yaml.Node, name: str) -> str:
    """The line, and the key's path if there is one."""
    line = f"line {node.start_mark.line + 1}"
    return f"{line}: {short(name)[1:-1]}" if name else line


def _too_much(line: int) -> UserError:
    return UserError(f"has, up to line {line + 1}, more than {MOST_NODES} values or more than {DEEPEST} levels")
