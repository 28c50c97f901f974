"""The door: which form is taken where; every fast form equals its plain one, values and gradients."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from clipgan.flags import REPOSITORY
from clipgan.losses.damsm import caption_image_similarity
from clipgan.machine import cpu_kernels, cpu_memory, cpu_products, door
from clipgan.machine.device import place
from clipgan.networks.blocks import norm_glu

CPU = torch.device("cpu")


def norm_of(x, training=True):
    """A batch norm for x with weights, biases and running statistics that are all different."""
    torch.manual_seed(3)
    norm = (nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d)(x.shape[1]).to(x.dtype).train(training)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(x.shape[1]) + 0.5)
    return norm


def images(*shape):
    return 3 * torch.randn(shape) + 2


# For each form its inputs, the first ones floating-point tensors that get gradients, and the rest of the arguments.
CASES = {
    "norm_glu": [
        *(((images(*shape),), lambda x: (norm_of(x),))
          for shape in [(6, 8), (3, 8, 6, 5), (3, 8, 2, 2), (2, 4, 7, 3), (2, 2, 6, 5), (1, 6, 16, 8)]),
        ((images(3, 8, 6, 5),), lambda x: (norm_of(x, training=False),)),
        ((images(1, 8),), lambda x: (norm_of(x, training=False),)),
    ],
    "caption_image_similarity": [
        ((torch.randn(captions, 6, words), torch.randn(pictures, 6, 9)), lengths)
        for captions, pictures, words, lengths in [(4, 4, 5, [3, 5, 1, 4]), (2, 3, 40, [40, 33]), (3, 2, 4, [0, 4, 2])]
    ],
}


def call(form, inputs, rest):
    """The outputs of a form, the gradients of a fixed random projection by its inputs, and what it left in a norm."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    if callable(rest):
        (norm,) = rest(inputs[0])
        inputs += list(norm.parameters())
        # Something else that uses x gets the norm's gradient after it: a form must not write into what it was given.
        value = form(inputs[0], norm) + inputs[0].chunk(2, dim=1)[0]
        left = [norm.running_mean, norm.running_var]
    else:
        mask = torch.arange(inputs[0].shape[2]) < torch.tensor(rest)[:, None]
        value, left = form(inputs[0], mask, inputs[1], 4.0, 5.0, 10.0), []
    torch.manual_seed(2)
    direction = torch.randn(value.shape, dtype=value.dtype)
    return [value, *torch.autograd.grad((value * direction).sum(), inputs), *left]


def test_every_fast_form_has_cases_here():
    assert CASES.keys() == door.PLAIN_FORMS.keys()
    assert all(callable(getattr(cpu_kernels, name)) for name in CASES)


@pytest.mark.parametrize("pixels_at_once", [1, 8, 16, 2**13])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize(
    ("name", "case"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))]
)
def test_a_fast_form_equals_the_plain_one(name, case, dtype, tolerance, memory_format, pixels_at_once, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_PIXELS_AT_ONCE", pixels_at_once)
    inputs, rest = CASES[name][case]
    inputs = [x.to(dtype).contiguous(memory_format=memory_format) if x.ndim == 4 else x.to(dtype) for x in inputs]
    plain = call(door.PLAIN_FORMS[name], inputs, rest)
    fast = call(getattr(cpu_kernels, name), inputs, rest)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("training", [True, False])
def test_norm_and_gate_in_bf16_are_about_as_near_to_float32_as_the_plain_form(training):
    x = images(4, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    exact = norm_glu(x, norm_of(x, training))
    errors = []
    for form in (door.PLAIN_FORMS["norm_glu"], cpu_kernels.norm_glu):
        out = form(x.bfloat16(), norm_of(x, training))
        assert out.dtype == torch.bfloat16
        errors.append((out.float() - exact).norm() / exact.norm())
    assert errors[1] <= 1.5 * errors[0] < 0.005


def test_large_channels_last_features_pass_through_the_norm_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_PIXELS_AT_ONCE", 16)
    sizes, normalise = [], cpu_kernels._normalise

    def noting(x, *rest):
        sizes.append(x.shape)
        return normalise(x, *rest)

    monkeypatch.setattr(cpu_kernels, "_normalise", noting)
    x = torch.randn(2, 6, 8, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm_glu(x, nn.BatchNorm2d(6)).sum().backward()
    assert sizes == 2 * 4 * [(1, 6, 4, 4)]  # 16 pixels each: four parts forward, four backward


def test_padding_is_not_computed_with():
    mask = torch.arange(20) < torch.tensor([1, 2, 7, 12, 3, 20, 9, 17])[:, None]  # 71 words
    used = cpu_kernels._used_words(mask)
    assert used[:71].tolist() == mask.flatten().nonzero().flatten().tolist()
    assert len(used.unique()) == len(used) == 96  # with padding, so that few different numbers come up
    assert cpu_kernels._used_words(mask[:1]).sort().values.tolist() == list(range(20))  # where there is enough of it


@pytest.fixture
def taken(monkeypatch):
    """The names of the fast forms that were called."""
    names = []
    for name in door.PLAIN_FORMS:
        form = getattr(cpu_kernels, name)
        monkeypatch.setattr(cpu_kernels, name, lambda *a, form=form, name=name: names.append(name) or form(*a))
    return names


def use_both(device="cpu", run=lambda form, *inputs: form(*inputs)):
    x, words, regions = (torch.randn(*shape, device=device) for shape in [(4, 6), (2, 3, 5), (2, 3, 4)])
    run(norm_glu, x, nn.BatchNorm1d(6).to(device))
    mask = torch.ones(2, 5, dtype=torch.bool, device=device)
    run(caption_image_similarity, words, mask, regions, 4.0, 5.0, 10.0)


def test_plain_tensors_on_a_cpu_take_the_fast_forms_and_the_switch_turns_them_off(taken):
    use_both()
    assert taken == ["norm_glu", "caption_image_similarity"]
    with door.plain_forms():
        use_both()
        with pytest.raises(ZeroDivisionError), door.plain_forms():
            raise ZeroDivisionError
        use_both()
    assert len(taken) == 2
    use_both()
    assert len(taken) == 4


def test_other_devices_and_the_compiler_meet_the_plain_forms(taken):
    use_both("meta")
    use_both(run=lambda form, *inputs: torch.compile(form, backend="eager", fullgraph=True)(*inputs))
    assert taken == []


@pytest.mark.parametrize(("value", "on"), [("1", False), ("0", True), ("", True)])
def test_the_environment_turns_everything_off(value, on):
    program = (
        "import torch; from clipgan.machine import cpu_memory, door; door.speed_up(torch.device('cpu')); "
        "print(door.fast_forms_are_on(), cpu_memory.keep_freed_memory(torch.device('cpu')), "
        "not torch.backends.cuda.flash_sdp_enabled())"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"CLIPGAN_PLAIN": value, "PYTHONPATH": str(REPOSITORY / "code")}
    said = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).split()
    kept = on and cpu_memory.platform.libc_ver()[0] == "glibc"
    assert said == [str(on), str(kept), str(on)]


def attention_and_its_gradient():
    torch.manual_seed(0)
    queries = torch.randn(2, 3, 7, 8, requires_grad=True)
    value = F.scaled_dot_product_attention(queries, queries, queries)
    return value, torch.autograd.grad(value.square().sum(), queries)[0]


def test_speed_up_takes_the_plain_attention_which_is_the_same_and_the_switch_gives_it_back(monkeypatch):
    monkeypatch.setattr(cpu_products, "_mkl_is_slow", lambda: False)
    before = attention_and_its_gradient()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.backends.cuda.enable_flash_sdp, True)
        door.speed_up(CPU)
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert_close(attention_and_its_gradient(), before)
        with door.plain_forms():
            assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
    door.speed_up(torch.device("cuda"))
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("device", "low", "off", "expected"),
    [("cpu", None, False, True), ("cpu", None, True, False)],
)
def test_convolutions_are_placed_in_the_layout_that_is_fast_there(device, low, off, expected):
    with door.plain_forms() if off else contextlib.nullcontext():
        network = place(nn.Conv2d(4, 4, 3), torch.device(device), low)
    assert network.weight.is_contiguous(memory_format=torch.channels_last) == expected
    assert network.weight.device.type == device
