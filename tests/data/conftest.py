"""A small drawn data set that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgan.data.toy import draw_toy_dataset


@pytest.fixture(scope="session")
def toy_birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 12 test images of 32 px in the birds layout; to be read, not changed."""
    folder = tmp_path_factory.mktemp("drawn") / "birds"
    draw_toy_dataset(folder, "birds", train=40, test=12, size=32, seed=1)
    return folder
