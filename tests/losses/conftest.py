"""What the tests of the losses share."""

from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden():
    """Read a file of tests/golden as tensors; those named `state/...` come as one dictionary, `state`."""

    def read(name):
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state = {key.removeprefix("state/"): tensors.pop(key) for key in list(tensors) if key.startswith("state/")}
        return {**tensors, "state": state}

    return read
