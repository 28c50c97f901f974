"""How good files are spoilt: bytes of any file, and values of those that hold a tree of values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hypothesis import strategies as st

HOSTILE_TEXTS = [
    "", " ", "\0", "x" * 5000, "../../etc/passwd", "/etc/passwd", "\ud800", "NaN", "1e999", "é漢😀", "a\r\nb", "C:\\x",
]  # fmt: skip
HOSTILE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    [], {}, [[]], [None], {"": None}, [0] * 3, ["a"] * 3, {"a": {"b": {"c": []}}}, *HOSTILE_TEXTS,
]  # fmt: skip


def _tensors() -> list[torch.Tensor]:
    return [
        torch.tensor(float("nan")), torch.full((3,), float("inf")), torch.zeros(0), torch.zeros(2, 3),
        torch.tensor(1), torch.tensor([True]), torch.zeros(2, dtype=torch.complex64), torch.ones(1).expand(1 << 30),
        torch.zeros(3, dtype=torch.float64), torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), [1.0], (4,)),
        torch.empty(3, device="meta"),
    ]  # fmt: skip


@st.composite
def spoilt_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few bytes changed, cut out, doubled, put in, or the end cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        place = draw(st.integers(0, len(content) - 1))
        length = draw(st.sampled_from([1, 2, 4, 8, 64, 1024]))
        kind = draw(st.sampled_from(["change", "flip", "cut", "double", "insert", "end", "ones"]))
        if kind == "change":
            content[place] = draw(st.integers(0, 255))
        elif kind == "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "end":
            del content[place:]
        else:
            content[place : place + length] = b"\xff" * length
    return bytes(content)


def _places(tree: Any, path: tuple = (), limit: int = 400) -> list[tuple]:
    """Paths to the values of nested dictionaries and lists, the tree itself included."""
    found, waiting = [], [(path, tree)]
    while waiting and len(found) < limit:
        where, value = waiting.pop(0)
        found.append(where)
        if isinstance(value, dict):
            waiting += [((*where, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*where, place), item) for place, item in enumerate(value[:20])]
    return found


@st.composite
def spoilt_tree(draw: st.DrawFn, reader: Any) -> Any:
    """A few values of ``reader.tree`` replaced, removed, or put under another key."""
    tree = copy.deepcopy(reader.tree)
    hostile = HOSTILE + (_tensors() if reader.tensors else [])
    for _ in range(draw(st.integers(1, 3))):
        places = _places(tree)
        place = places[draw(st.integers(0, len(places) - 1))]
        new = copy.deepcopy(hostile[draw(st.integers(0, len(hostile) - 1))])
        if not place:
            if draw(st.integers(0, 9)) == 0:
                tree = new
            continue
        parent = tree
        for key in place[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "more", "rename"]))
        if kind == "replace":
            parent[place[-1]] = new
        elif kind == "remove":
            del parent[place[-1]]
        elif isinstance(parent, list):
            parent.append(new)
        elif kind == "more":
            parent[draw(st.sampled_from(["more", "", "x" * 3000, "weights"]))] = new
        else:
            parent[f"{place[-1]}."] = parent.pop(place[-1])
    return tree
