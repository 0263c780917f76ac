import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diptych.nn import linear as module
from diptych.nn.linear import Linear, linear


@pytest.fixture
def fast(monkeypatch):
    """Take the path for slow products whatever the processor is."""
    if not module._offered():
        pytest.skip("this torch does not offer oneDNN's product")
    monkeypatch.setattr(module, "slow_products", lambda: True)
    used = []
    plain = module._onednn
    monkeypatch.setattr(module, "_onednn", lambda *given: (used.append(1), plain(*given))[1])
    return used


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 24), (3, 17, 24), (2, 3, 5, 24)])
def test_it_is_torchs_linear_forward_and_backward(fast, shape, bias):
    layer = Linear(24, 33, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    leaves = [x, *layer.parameters()]
    weigh = torch.randn(*shape[:-1], 33)
    found = torch.autograd.grad((layer(x) * weigh).sum(), leaves)
    assert len(fast) == 3  # forward, and back to both factors
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y = F.linear(*exact)
    torch.testing.assert_close(layer(x).double(), y, rtol=1e-5, atol=1e-5)
    for mine, right in zip(found, torch.autograd.grad((y * weigh).sum(), exact), strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-5, atol=3e-5)


def test_it_can_be_differentiated_twice(fast):
    x, weight, bias = (torch.randn(*s, requires_grad=True) for s in ((20, 6), (7, 6), (7,)))

    def penalty(product):
        (slope,) = torch.autograd.grad(product(x, weight, bias).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), (x, weight, bias))

    for mine, right in zip(penalty(linear), penalty(F.linear), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-3 * float(right.abs().max()))
    assert fast


def test_what_is_left_to_torch(fast):
    layer = Linear(8, 8)
    layer(torch.randn(15, 8))  # too few rows
    layer.double()(torch.randn(40, 8, dtype=torch.float64))
    layer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(40, 8)).dtype == torch.bfloat16
    assert not fast
    assert layer(torch.randn(0, 8)).shape == (0, 8)


def test_it_is_saved_and_drawn_as_torchs():
    torch.manual_seed(3)
    one = Linear(5, 4)
    torch.manual_seed(3)
    other = nn.Linear(5, 4)
    assert list(one.state_dict()) == list(other.state_dict())
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=0)
    x = torch.randn(3, 5)
    torch.testing.assert_close(one(x), other(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("text", "slow"), [("vendor_id : AuthenticAMD\nflags : avx2 avx512f", True), ("GenuineIntel avx512f", False)]
)
def test_the_vendor_decides(monkeypatch, text, slow):
    monkeypatch.setattr(module.Path, "exists", lambda _: True)
    monkeypatch.setattr(module.Path, "read_text", lambda *_, **__: text)
    module.slow_products.cache_clear()
    assert module.slow_products() is (slow and torch.backends.mkl.is_available() and module._offered())
    module.slow_products.cache_clear()


@pytest.mark.parametrize(("exact", "inside"), [(True, "medium"), (False, "highest")])
def test_quick_products_leave_the_setting_as_it_was(fast, monkeypatch, exact, inside):
    monkeypatch.setattr(module, "_rounds_nothing", lambda: exact)
    assert torch.get_float32_matmul_precision() == "highest"

    def fail():
        with module.quick_products():
            assert torch.get_float32_matmul_precision() == inside
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_float32_matmul_precision() == "highest"


def test_products_that_would_be_rounded_are_found_out(monkeypatch):
    module._rounds_nothing.cache_clear()
    plain = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: plain(a.bfloat16(), b.bfloat16()).float())
    assert not module._rounds_nothing()
    monkeypatch.setattr(torch, "mm", lambda a, b: plain(a.double(), b.double()).float())
    module._rounds_nothing.cache_clear()
    assert module._rounds_nothing()
    module._rounds_nothing.cache_clear()
    assert torch.get_float32_matmul_precision() == "highest"
