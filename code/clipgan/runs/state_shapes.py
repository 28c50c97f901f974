"""What the parts of a training state must be, compared with the parts that they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.runs.checkpoint import require_same_shapes

_SCALER = shapes.mapping_of(shapes.number(0, 1e30), at_most=10)


def require_state(part: Any, state: Any, name: str) -> None:
    """Refuse a state that does not fit its part.

    Args:
        part: a network, an optimizer, a gradient scaler, something that declares the shape of its state as ``STATE``,
            or something whose ``parts()`` are some of these by name.
        state: what a file says that its ``state_dict()`` was.
        name: of the part, for the message.

    Raises:
        UserError, Misfit: names what does not fit.
    """
    if isinstance(part, nn.Module):
        shapes.WEIGHTS(state, name)
        require_same_shapes(part.state_dict(), state, f"the {name}")
    elif isinstance(part, torch.optim.Optimizer):
        _require_optimizer(part, state, name)
    elif isinstance(part, torch.amp.GradScaler):
        _SCALER(state, name)
        if set(state) != set(part.state_dict()):
            raise UserError(f"the {name} was saved with another TRAIN.PRECISION")
    elif hasattr(part, "parts"):
        parts = part.parts()
        shapes.record({key: shapes.anything for key in parts})(state, name)
        for key, inner in parts.items():
            require_state(inner, state[key], f"{name}'s {key}")
    else:
        type(part).STATE(state, name)


def match_layouts(part: Any) -> None:
    """Give an optimizer's moments the layout of their weights in memory, by which its fused step pairs their numbers.

    A state may come from a run whose weights lay otherwise, on another device or without the fast forms.
    """
    if isinstance(part, torch.optim.Optimizer):
        for weight, moments in part.state.items():
            for key, moment in moments.items():
                if key != "step" and moment.stride() != weight.stride():
                    moments[key] = torch.empty_like(weight).copy_(moment)
    elif hasattr(part, "parts"):
        for inner in part.parts().values():
            match_layouts(inner)


def _require_optimizer(optimizer: torch.optim.Optimizer, state: Any, name: str) -> None:
    """The groups have the options of this optimizer's, and the moments have the shapes of its weights."""
    shapes.record({"state": shapes.mapping_of(shapes.anything, key=int), "param_groups": shapes.list_of(_GROUP)})(
        state, name
    )
    groups = optimizer.param_groups
    saved = state["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        raise UserError(f"the {name} is of other weights")
    weights = [weight for group in groups for weight in group["params"]]
    if [index for group in saved for index in group["params"]] != list(range(len(weights))):
        raise UserError(f"the {name} numbers its weights in another way")
    for index, moments in state["state"].items():
        if index not in range(len(weights)):
            raise UserError(f"the {name} has a state of weight {index}, which there is not")
        for key, moment in moments.items() if isinstance(moments, Mapping) else [("state", moments)]:
            shapes.tensor(moment, f"{name}.state.{index}.{key}")
            wanted = () if key == "step" else weights[index].shape
            if moment.shape != wanted or not moment.is_floating_point():
                raise UserError(f"the {name} has {key} of weight {index} as {list(moment.shape)}, not {list(wanted)}")
        if set(moments) != {"step", "exp_avg", "exp_avg_sq"}:
            raise UserError(f"the {name} is not that of Adam")



_GROUP = shapes.record(
    {"params": shapes.list_of(shapes.whole(0, 10**6)), "lr": shapes.number(0, 1e6), "eps": shapes.number(0, 1),
     "betas": shapes.list_of(shapes.number(0, 1), 2, 2), "weight_decay": shapes.number(0, 1e6)},
    {key: shapes.one_of(False, True, None) for key in
     ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay")},
)  # fmt: skip
