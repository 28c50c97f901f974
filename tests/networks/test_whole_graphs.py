"""Every network is one graph to ``torch.compile``, compiled once for captions of all lengths, with the same numbers."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from clipgan.machine.door import plain_forms
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator

LENGTHS = (12, 9, 17)


def tokens(length):
    return torch.randint(1, 400, (8, length))


def case(name, clip):
    """A network, which of its functions to compile, its inputs for captions of a length, and what varies in them."""
    torch.manual_seed(0)
    if name == "generator":
        network = Generator(8, 10, 8, 16, 24, residual_num=2, base_size=16, branch_num=3)
        return network, "forward", lambda length: (
            torch.randn(8, 10), torch.randn(8, 8), torch.randn(8, 24), torch.randn(8, 16, length),
            torch.ones(8, length, dtype=torch.bool),
        ), [(3, 2), (4, 1)]  # fmt: skip
    if name == "discriminator":
        pairs = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 2, 3, 1])
        network = Discriminator(64, 4, 24)
        return network, "forward", lambda length: (torch.rand(4, 3, 64, 64), torch.randn(4, 24), pairs), []
    encoder = ClipEncoder(EncoderSpec("tiny", clip, (0.5,) * 3, (0.5,) * 3, 28))
    images = torch.rand(4, 3, 64, 64)
    return encoder, name, *{
        "encode_text": (lambda length: (tokens(length),), [(0, 1)]),
        "encode_image": (lambda length: (images,), []),
        "forward": (lambda length: (images, tokens(length)), [(1, 1)]),
    }[name]


NAMES = ["generator", "discriminator", "encode_text", "encode_image", "forward"]


def leaves(out):
    return tree_leaves(out if isinstance(out, tuple) else vars(out))


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", NAMES)
def test_one_graph_compiled_once(name, training, low, tiny_clip_config):
    network, method, inputs, varying = case(name, tiny_clip_config)
    network.train(training)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(getattr(network, method), backend=counter, fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        for length in LENGTHS:
            arguments = inputs(length)
            for argument, dimension in varying:
                torch._dynamo.maybe_mark_dynamic(arguments[argument], dimension)
            compiled(*arguments)
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["generator", "discriminator", "forward"])
def test_the_compiled_network_gives_the_same_values_gradients_and_buffers(name, tiny_clip_config):
    network, method, inputs, _ = case(name, tiny_clip_config)
    other = copy.deepcopy(network)
    torch._dynamo.reset()
    compiled = torch.compile(getattr(other, method), backend="aot_eager", fullgraph=True)
    arguments = inputs(12)
    with plain_forms():
        results = [leaves(function(*arguments)) for function in (getattr(network, method), compiled)]
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    for outputs in results:
        sum(out.square().sum() for out in outputs if out.requires_grad).backward()
    for (parameter, weight), compiled_weight in zip(network.named_parameters(), other.parameters(), strict=True):
        if weight.grad is not None:
            assert_close(compiled_weight.grad, weight.grad, rtol=1e-4, atol=1e-4, msg=parameter)
    for (buffer, value), compiled_value in zip(network.named_buffers(), other.buffers(), strict=True):
        assert_close(compiled_value, value, rtol=1e-5, atol=1e-6, msg=buffer)
