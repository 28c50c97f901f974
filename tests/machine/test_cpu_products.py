"""Products by oneDNN: the same numbers and gradients, only where they are worth it, and gone when they are over."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipgan.machine import cpu_products

CPU = torch.device("cpu")


@pytest.fixture
def multiplied(monkeypatch):
    """The shapes that oneDNN multiplies, on a machine that is taken for one where that is faster."""
    shapes, by_onednn = [], cpu_products._by_onednn

    def noting(a, b, *bias):
        shapes.append((tuple(a.shape), tuple(b.shape)))
        return by_onednn(a, b, *bias)

    monkeypatch.setattr(cpu_products, "_by_onednn", noting)
    monkeypatch.setattr(cpu_products, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(cpu_products, "_WORTH_IT", 1000)
    monkeypatch.setattr(cpu_products, "_SIDE_WORTH_IT", 4)
    return shapes


def linear_and_product(x, weight, bias, other):
    return F.linear(x, weight, bias).tanh() @ other.T


def values_and_gradients(*inputs):
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    value = linear_and_product(*inputs)
    return [value, *torch.autograd.grad(value.square().sum(), inputs)]


def test_a_linear_layer_a_product_and_their_gradients_are_the_same(multiplied):
    torch.manual_seed(0)
    shapes = (4, 30, 20), (40, 20), (40,), (50, 40)
    inputs = [torch.randn(shape) for shape in shapes]
    exact = values_and_gradients(*(tensor.double() for tensor in inputs))
    with cpu_products.fast_products(CPU) as fast:
        ours = values_and_gradients(*inputs)
    assert fast
    for value, expected in zip(ours, exact, strict=True):
        assert (value - expected).norm() <= 1e-6 * expected.norm()
    # Two forward, and for each of these one for either factor.
    assert len(multiplied) == 6 and multiplied[0] == ((120, 20), (20, 40))


def test_transposed_and_cut_out_matrices_are_the_same(multiplied):
    torch.manual_seed(0)
    a, b = torch.randn(40, 60), torch.randn(50, 40)
    expected = [a.T @ b.T, a[:, 1::2].T @ b.T, a.T[3:] @ b.T[:, :20]]
    with cpu_products.fast_products(CPU):
        ours = [a.T @ b.T, a[:, 1::2].T @ b.T, a.T[3:] @ b.T[:, :20]]
    assert len(multiplied) == 3
    for value, exact in zip(ours, expected, strict=True):
        assert_close(value, exact)


def test_matrices_and_biases_of_unusual_strides_are_the_same(multiplied):
    torch.manual_seed(0)
    a, b, row = torch.randn(30, 20), torch.randn(40, 20), torch.randn(80)
    cases = [
        lambda: F.linear(a, b, row[::2]),
        lambda: F.linear(a, b, torch.ones(1).expand(40)),
        lambda: a @ torch.randn(60).unfold(0, 40, 1)[:20],  # rows that overlap
        lambda: a.unfold(0, 20, 5)[0] @ torch.randn(30, 40)[:20].expand(20, 40),
        lambda: a[:1].expand(30, 20) @ b.T,
    ]
    for case in cases:
        torch.manual_seed(1)
        expected = case()
        torch.manual_seed(1)
        with cpu_products.fast_products(CPU):
            assert_close(case(), expected)
    assert len(multiplied) == len(cases)


def test_what_onednn_is_not_for_is_left_to_pytorch(multiplied):
    torch.manual_seed(0)
    a, b, c = torch.randn(30, 20), torch.randn(20, 40), torch.randn(30, 40)
    cases = [
        lambda: a.double() @ b.double(),
        lambda: a[:1] @ b.repeat(1, 90),  # a row
        lambda: a.repeat(90, 1) @ b[:, :1],  # a column
        lambda: a[:4, :4] @ b[:4, :4],  # small
        lambda: torch.addmm(c, a, b),
        lambda: torch.addmm(c[0], a, b, beta=2.0, alpha=0.5),
        lambda: torch.addmm(c[0, :1], a, b),
        lambda: torch.empty(0, 20) @ b,
    ]
    expected = [case() for case in cases]
    with cpu_products.fast_products(CPU):
        ours = [case() for case in cases]
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            a @ c
        with pytest.raises(RuntimeError, match="must be a matrix"):
            torch.mm(a, b[:, 0])
        with pytest.raises(RuntimeError, match="same dtype"):
            a @ b.double()
    assert multiplied == []
    for value, exact in zip(ours, expected, strict=True):
        assert torch.equal(value, exact)


def test_it_ends_with_its_block_even_by_an_error(multiplied):
    a = torch.randn(30, 30)
    with pytest.raises(KeyError), cpu_products.fast_products(CPU):
        raise KeyError
    assert a @ a is not None and multiplied == []


@pytest.mark.parametrize(
    ("device", "maker", "capability", "expected"),
    [
        ("cpu", "AuthenticAMD", "AVX512", True),
        ("cpu", "AuthenticAMD", "AVX2", False),
        ("cpu", "GenuineIntel", "AVX512", False),
        ("cuda", "AuthenticAMD", "AVX512", False),
    ],
)
@pytest.mark.parametrize("linux", [True, False])
def test_only_amd_s_processors_with_avx512_need_it(device, maker, capability, expected, linux, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu_products, "_PROCESSORS", path)
    if linux:
        path.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    else:
        monkeypatch.setattr(cpu_products.platform, "processor", lambda: f"AMD64 Family 26 Model 2 Stepping 1, {maker}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with cpu_products.fast_products(torch.device(device)) as fast:
        assert fast is expected
