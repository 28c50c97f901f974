"""A number for each caption, equal exactly where two captions are one to the encoder.

Two images often have the same caption. Neither is then a mismatch of the other's caption, in no loss and in no score.
The numbers are made on the host, from tokens: captions that differ only in what the tokenizer drops are equal, too.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def caption_ids(tokens: Tensor) -> Tensor:
    """The captions' ids: 64 bits of the BLAKE2b hash of the tokens that the encoder reads.

    Args:
        tokens: int64 [..., L] on the CPU, each row ended by zeros, any number of them. Where the last other token is
            the row's largest, it is the end token, and the encoder reads no further than to the first of them.

    Returns:
        int64 [...]. The same in every process, and for any padding.
    """
    rows = np.ascontiguousarray(tokens.flatten(0, -2).numpy(), dtype="<i8")  # [N, L]
    lengths = ((rows != 0) * np.arange(1, rows.shape[1] + 1)).max(axis=1, initial=1)
    last = np.take_along_axis(rows, lengths[:, None] - 1, axis=1)[:, 0]
    lengths = np.where(last == rows.max(axis=1), rows.argmax(axis=1) + 1, lengths)
    hashes = [hashlib.blake2b(row[:length], digest_size=8).digest() for row, length in zip(rows, lengths, strict=True)]
    return torch.from_numpy(np.frombuffer(b"".join(hashes), "<i8").astype(np.int64)).view(tokens.shape[:-1])
