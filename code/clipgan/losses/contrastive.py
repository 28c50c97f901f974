"""The contrastive loss between two views of the same examples.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, eq. 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.losses.float32 import in_float32


def equal_captions(captions: Tensor) -> Tensor:
    """Which vectors of `nt_xent` come from equal captions.

    Args:
        captions: int64 [B, 2], ids of both views' captions, equal for equal captions.

    Returns:
        [2B, 2B] bool, the second views after the first.
    """
    every = captions.T.flatten()  # [2B]
    return every.unsqueeze(0) == every.unsqueeze(1)


@in_float32
def nt_xent(view1: Tensor, view2: Tensor, temperature: float = 0.5, left_out: Tensor | None = None) -> Tensor:
    """Normalised-temperature cross-entropy: each of the 2B vectors finds its other view among the 2B - 1 others.

    Args:
        view1: vectors [B, E]; need not be normalised.
        view2: the other views of the same examples, in the same order, [B, E].
        temperature: divides the cosines.
        left_out: [2B, 2B] bool: a vector is not told from those (the same caption of another image, say). Its other
            view stays in any case.

    Returns:
        The mean over the 2B vectors, a scalar. For B = 1 there is nothing to tell apart and it is 0.
    """
    batch = view1.shape[0]
    vectors = F.normalize(torch.cat([view1, view2]), dim=1)  # [2B, E]
    scores = vectors @ vectors.T / temperature  # [2B, 2B]
    itself = torch.eye(2 * batch, dtype=torch.bool, device=scores.device)
    if left_out is not None:
        itself = itself | left_out & ~itself.roll(batch, dims=1)
    scores = scores.masked_fill(itself, -torch.inf)
    other_view = torch.arange(2 * batch, device=scores.device).roll(batch)  # [2B]
    return F.cross_entropy(scores, other_view)
