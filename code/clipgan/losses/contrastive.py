"""The contrastive loss between two views of the same examples.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, eq. 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.losses.float32 import in_float32


@in_float32
def nt_xent(view1: Tensor, view2: Tensor, temperature: float = 0.5) -> Tensor:
    """Normalised-temperature cross-entropy: each of the 2B vectors finds its other view among the 2B - 1 others.

    Args:
        view1: vectors [B, E]; need not be normalised.
        view2: the other views of the same examples, in the same order, [B, E].
        temperature: divides the cosines.

    Returns:
        The mean over the 2B vectors, a scalar. For B = 1 there is nothing to tell apart and it is 0.
    """
    batch = view1.shape[0]
    vectors = F.normalize(torch.cat([view1, view2]), dim=1)  # [2B, E]
    scores = vectors @ vectors.T / temperature  # [2B, 2B]
    scores = scores.masked_fill(torch.eye(2 * batch, dtype=torch.bool, device=scores.device), -torch.inf)
    other_view = torch.arange(2 * batch, device=scores.device).roll(batch)  # [2B]
    return F.cross_entropy(scores, other_view)
