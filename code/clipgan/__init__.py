"""CLIP-conditioned DM-GAN: fine-tune CLIP, train a text-to-image GAN on it, measure the result.

>>> import clipgan
>>> model = clipgan.load("birds.safetensors")
>>> model("a small red bird", count=4, seed=1)[0].save("bird.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from clipgan.drawing.model import Model

__all__ = ["load"]
__version__ = "0.1.0"


def load(path: str | Path, device: str | torch.device | None = None) -> Model:
    """Read a trained model that ``tools/export_model.py`` wrote; see :class:`clipgan.drawing.model.Model`.

    Args:
        path: the ``.safetensors``.
        device: ``cpu``, ``cuda``, ``cuda:N``; None takes CUDA if there is one, else the CPU.

    Raises:
        clipgan.errors.UserError: no such file, no model, damaged, or no such device.
    """
    from clipgan.drawing.model import load as load_model

    return load_model(path, device)
