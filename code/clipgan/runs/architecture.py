"""The sizes of a generator: what they are called in a config and in a file, and within which bounds they are."""

from __future__ import annotations

from clipgan.config import BOUNDS
from clipgan.files import shapes

# The keys that a generator's architecture holds, and the arguments of `Generator` that they are.
GENERATOR_SIZES = {
    "TREE.BRANCH_NUM": "branch_num",
    "TREE.BASE_SIZE": "base_size",
    "GAN.GF_DIM": "gf_dim",
    "GAN.Z_DIM": "z_dim",
    "GAN.CONDITION_DIM": "condition_dim",
    "GAN.R_NUM": "residual_num",
}


def whole_of(key: str) -> shapes.Shape:
    """A whole number within the bounds of a config key."""
    return shapes.whole(*map(int, BOUNDS[key]))


_WIDTH = whole_of("TEXT.EMBEDDING_DIM")
# The arguments of `Generator` as a file says them.
GENERATOR_ARGUMENTS = shapes.record(
    {argument: whole_of(key) for key, argument in GENERATOR_SIZES.items()}
    | {"word_dim": _WIDTH, "sentence_dim": _WIDTH}
)
