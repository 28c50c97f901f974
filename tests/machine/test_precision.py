"""What a step and a score are computed in."""

from pathlib import Path

import pytest
import torch

from clipgan.errors import UserError
from clipgan.machine.precision import Precision, full_precision, has_bf16


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match="fp16 needs CUDA"):
        Precision("fp16", torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "bf16", "dtype", "said"),
    [
        ("fp32", True, torch.float32, "fp32"),
        ("tf32", True, torch.float32, "fp32 (tf32 is for CUDA)"),
        ("bf16", True, torch.bfloat16, "bf16"),
        ("bf16", False, torch.float32, "fp32 (bf16 would be slower: this cpu emulates it)"),
    ],
)
def test_bf16_computes_in_bf16_only_where_the_processor_has_it(monkeypatch, name, bf16, dtype, said):
    monkeypatch.setattr("clipgan.machine.precision.has_bf16", lambda device: bf16)
    precision = Precision(name, torch.device("cpu"))
    with precision.autocast():
        assert torch.nn.Linear(4, 4)(torch.randn(2, 4)).dtype == dtype
    assert str(precision) == said


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads Linux's list of a processor's instructions")
def test_bf16_is_used_on_cpus_that_list_it():
    flags = Path("/proc/cpuinfo").read_text().split()
    listed = any(flag in flags for flag in ("avx512_bf16", "bf16"))  # x86, ARM
    assert has_bf16(torch.device("cpu")) == listed


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def backends(monkeypatch):
    """Gives PyTorch's switches back as they were."""
    before = tf32()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(("name", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False), ("fp16", False)])
def test_tf32_is_used_on_cuda_only_where_it_is_asked_for(backends, monkeypatch, name, allowed):
    monkeypatch.setattr("clipgan.machine.precision.has_bf16", lambda device: True)
    assert str(Precision(name, torch.device("cuda"))) == name
    assert tf32() == (allowed, allowed)


def test_a_score_is_computed_in_full_precision_whatever_surrounds_it(backends):
    @full_precision()
    def score(x):
        assert tf32() == (False, False) and not torch.backends.cudnn.benchmark
        return x @ x

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert score(torch.randn(3, 3)).dtype == torch.float32
    assert tf32() == (True, True) and torch.backends.cudnn.benchmark
