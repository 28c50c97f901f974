"""A number that is not finite is an error, not a score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clipgan.errors import UserError


def require_finite(numbers: Mapping[str, Any], what: str) -> None:
    """Refuse a report in which a number, however deep, is NaN or infinite.

    Args:
        numbers: a report as it is written to JSON.
        what: was measured, for the message.

    Raises:
        UserError: names the number.
    """
    waiting: list[tuple[str, Any]] = list(numbers.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{what}: {name} is {value}, which is no score: a network that takes part holds or makes numbers that "
                "are too large; try an earlier snapshot"
            )
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{name}[{place}]", item) for place, item in enumerate(value)]
