"""The squared maximum mean discrepancy of two sets of features (Gretton et al. 2012, JMLR 13, lemma 6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import Measured
from clipgan.evaluation.metrics.products import Features, around_one_centre, blocks, inner_products

# Inner products [p, q] and the squared norms [p, 1] and [q] of two sets of vectors → the kernel [p, q], in float64.
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def mmd(ours: Tensor, real: Tensor, kernel: Kernel, scale: float = 1.0) -> Measured:
    """The unbiased estimate over all pairs of different images; it is negative now and then if the sets are alike.

    Σᵢ≠ⱼ k(xᵢ, xⱼ) / m(m − 1) + Σᵢ≠ⱼ k(yᵢ, yⱼ) / n(n − 1) − 2 Σᵢⱼ k(xᵢ, yⱼ) / mn

    Args:
        ours: [m, D]; real: [n, D].
        kernel: of two vectors.
        scale: the value and the effects are multiplied by it.

    Raises:
        UserError: a set has fewer than two images.
    """
    if min(len(ours), len(real)) < 2:
        raise UserError(f"an unbiased MMD needs at least 2 images on each side, not {len(ours)} and {len(real)}")
    x, y = around_one_centre(ours, real)
    within_x, within_y = _sums_within(x, kernel) / (len(x) - 1), _sums_within(y, kernel) / (len(y) - 1)
    between_x, between_y = _sums_between(x, y, kernel)
    between_x, between_y = between_x / len(y), between_y / len(x)
    value = within_x.mean() + within_y.mean() - 2 * between_x.mean()
    effects = (2 * scale * (within - between) for within, between in ((within_x, between_x), (within_y, between_y)))
    return Measured(scale * float(value), tuple(effect - effect.mean() for effect in effects))


def _sums_within(x: Features, kernel: Kernel) -> np.ndarray:
    """Σⱼ k(xᵢ, xⱼ) over j ≠ i, of each image [m]. The kernel is symmetric, so that half of the blocks are enough."""
    sums, norms = torch.zeros(len(x), dtype=torch.float64, device=x.along.device), _norms(x)
    for rows in blocks(len(x)):
        for columns in blocks(len(x)):
            if columns.start < rows.start:
                continue
            values = kernel(inner_products(x, rows, x, columns), norms[rows, None], norms[columns])
            if columns.start == rows.start:
                values.fill_diagonal_(0)
            else:
                sums[columns] += values.sum(dim=0)
            sums[rows] += values.sum(dim=1)
    return sums.cpu().numpy()


def _sums_between(x: Features, y: Features, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Σⱼ k(xᵢ, yⱼ) of each x [m], and Σᵢ k(xᵢ, yⱼ) of each y [n]."""
    sums = [torch.zeros(len(of), dtype=torch.float64, device=of.along.device) for of in (x, y)]
    norms = [_norms(x), _norms(y)]
    for rows in blocks(len(x)):
        for columns in blocks(len(y)):
            values = kernel(inner_products(x, rows, y, columns), norms[0][rows, None], norms[1][columns])
            sums[0][rows] += values.sum(dim=1)
            sums[1][columns] += values.sum(dim=0)
    return sums[0].cpu().numpy(), sums[1].cpu().numpy()


def _norms(x: Features) -> Tensor:
    """|x|² [m] = |x − c|² + 2 (x − c)·c + |c|²."""
    return x.squares + 2 * x.along + x.centre_square
