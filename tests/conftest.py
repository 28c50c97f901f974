"""What the tests share: the scripts, a tiny CLIP, the golden numbers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from clipgan.machine import cpu_products

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
TINY_CLIP = {
    "embed_dim": 24,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def load_script(name: str) -> ModuleType:
    """Import a script of the repository's root by its file name."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(name).stem}", ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    return load_script


@pytest.fixture(scope="session")
def tiny_clip_config() -> dict:
    """A model config in open_clip's format: words of 16, sentences of 24 dimensions, 4×4 regions."""
    return TINY_CLIP


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ``tiny_clip_config``."""
    path = tmp_path_factory.mktemp("clip") / "tiny.json"
    path.write_text(json.dumps(TINY_CLIP))
    return path


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """As many threads as the smallest machine that the suite is meant for; more only get in each other's way."""
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def arithmetic_of_pytorch() -> Iterator[None]:
    """A script run by a test in this process leaves the other tests' arithmetic as it was."""
    yield
    torch.backends.cuda.enable_flash_sdp(True)
    cpu_products._until_the_end.close()
    cpu_products.use_fast_products.cache_clear()


@pytest.fixture(scope="session")
def golden():
    """Read a file of tests/golden as tensors; those named `state/...` come as one dictionary, `state`."""

    def read(name):
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state = {key.removeprefix("state/"): tensors.pop(key) for key in list(tensors) if key.startswith("state/")}
        return {**tensors, "state": state}

    return read
