"""What cannot be compiled runs as it is, with a line; what fails while computing is raised."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounter

from clipgan.machine.compiling import CompiledFunction, compile_forward


def double(x):
    return 2 * x


def broken_backend(graph, inputs):
    raise RuntimeError("no kernel\nfor this processor")


def test_a_failure_to_compile_is_one_line_and_the_function_runs_as_it_is(capsys):
    torch._dynamo.reset()
    function = CompiledFunction(double, "double", backend=broken_backend)
    assert function(torch.ones(2)).tolist() == [2, 2]
    said = capsys.readouterr().out
    assert said.startswith("TRAIN.COMPILE: double runs uncompiled (BackendCompilerFailed:")
    assert "no kernel for this processor" in said and said.count("\n") == 1
    assert function(torch.ones(3)).tolist() == [2, 2, 2]
    assert capsys.readouterr().out == ""


def test_a_lack_of_memory_is_raised_while_compiling_and_while_computing():
    def too_large(*arguments):
        raise torch.OutOfMemoryError("out of memory")

    torch._dynamo.reset()
    with pytest.raises(BackendCompilerFailed, match="out of memory"):
        CompiledFunction(double, "double", backend=too_large)(torch.ones(2))

    torch._dynamo.reset()
    function = CompiledFunction(double, "double", backend=lambda graph, inputs: too_large)
    with pytest.raises(torch.OutOfMemoryError):
        function(torch.ones(2))


def test_an_error_of_the_computation_itself_is_raised(capsys):
    torch._dynamo.reset()

    def connection_lost(*arguments):
        raise RuntimeError("connection closed by peer")

    function = CompiledFunction(double, "double", backend=lambda graph, inputs: connection_lost)
    with pytest.raises(RuntimeError, match="connection closed"):
        function(torch.ones(2))
    assert capsys.readouterr().out == ""


def test_sizes_that_vary_do_not_compile_anew():
    torch._dynamo.reset()
    counter = CompileCounter()
    function = CompiledFunction(lambda a, b: a.sum(1) + b, "sum", varying=[(0, 1)], backend=counter)
    for size in (5, 3, 9, 1):
        assert torch.equal(function(torch.ones(2, size), torch.ones(2)), torch.full((2,), size + 1.0))
    assert counter.frame_count <= 2  # one size may be an exception: 1


def test_a_compiled_network_keeps_the_names_of_its_weights_and_is_called_as_before():
    torch._dynamo.reset()
    network, counter = nn.Linear(3, 2), CompileCounter()
    plain, x = copy.deepcopy(network), torch.randn(4, 3)
    compile_forward(network, backend=counter)
    assert torch.equal(network(x), plain(x)) and counter.frame_count == 1
    assert network.state_dict().keys() == plain.state_dict().keys()
