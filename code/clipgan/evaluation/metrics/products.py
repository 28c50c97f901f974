"""Inner products and distances of many feature vectors, block by block, so that memory is bounded.

The products are taken of centred features in float32, which is twice as fast as in float64; the rest is in float64.
Centring makes the products small, and with them the rounding errors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 1024  # of a block
ROWS_OF_ALL = 256  # of a block with all vectors of the other set
_ROUNDING = 2e-6  # squared distances below this share of the squared norms are rounding errors of 0


class Features:
    """Feature vectors [N, D] around a centre.

    Args:
        features: float [N, D].
        centre: float64 [D], near the mean of all features that are compared.
    """

    def __init__(self, features: Tensor, centre: Tensor):
        wide = torch.as_tensor(features)
        self.centred = torch.empty(wide.shape, dtype=torch.float32, device=wide.device)
        self.along = torch.empty(len(wide), dtype=torch.float64, device=wide.device)  # (x − c)·c
        self.squares = torch.empty(len(wide), dtype=torch.float64, device=wide.device)  # |x − c|²
        for rows in blocks(len(wide)):
            block = wide[rows].double() - centre
            self.centred[rows] = block.float()
            self.along[rows] = block @ centre
            self.squares[rows] = block.square().sum(dim=1)
        self.centre_square = float(centre @ centre)

    def __len__(self) -> int:
        return len(self.centred)


def around_one_centre(*sets: Tensor) -> list[Features]:
    """Several sets of feature vectors around the mean of the first."""
    tensors = [torch.as_tensor(features) for features in sets]
    centre = tensors[0].mean(dim=0, dtype=torch.float64)
    return [Features(features, centre) for features in tensors]


def blocks(total: int, rows: int = ROWS) -> Iterator[slice]:
    """Slices of at most ``rows`` that cover ``total`` rows."""
    for start in range(0, total, rows):
        yield slice(start, min(start + rows, total))


def inner_products(a: Features, rows: slice, b: Features, columns: slice) -> Tensor:
    """xᵢ·yⱼ of rows of ``a`` and ``b``: float64 [rows, columns]."""
    products = (a.centred[rows] @ b.centred[columns].T).double()
    return products.add_(a.along[rows, None] + a.centre_square).add_(b.along[columns])


def squared_distances(a: Features, rows: slice, b: Features) -> Tensor:
    """|xᵢ − yⱼ|² of rows of ``a`` and all of ``b``: float64 [rows, N]; 0 where the vectors differ by rounding only."""
    squares = a.squares[rows, None] + b.squares
    distances = (a.centred[rows] @ b.centred.T).double().mul_(-2).add_(squares)
    return distances.masked_fill_(distances < _ROUNDING * squares, 0)
