"""Which device is computed on, and what is said about it."""

import pytest
import torch

from clipgan.errors import UserError
from clipgan.machine.device import choose_device


@pytest.mark.parametrize(("count", "expected"), [(0, "no CUDA device"), (1, "one CUDA device"), (2, "0 to 1")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, count, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"--gpu 3: .*{expected}"):
        choose_device(3)


def test_the_cpu_is_taken_silently_when_asked_for_and_with_a_line_when_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(-1).type == "cpu"
    assert choose_device(0, use_cuda=False).type == "cpu"
    assert capsys.readouterr().out == ""
    assert choose_device(None).type == "cpu"
    assert "computing on the CPU" in capsys.readouterr().out
