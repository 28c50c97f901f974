"""What the tests of CLIP's models and weights share."""

import logging

import pytest
from tiny_clips import open_clips


@pytest.fixture(scope="module")
def clip():
    return open_clips()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_arguments, **_keywords):
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("clipgan.networks.clip_hub.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
