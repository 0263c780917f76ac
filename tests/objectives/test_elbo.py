import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diptych.core.errors import UserError
from diptych.objectives.elbo import draw, kl_to_prior, product_of_experts


def gaussian(mean, variance):
    return torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64).log()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_experts_have_the_known_product(count):
    mean, log = product_of_experts([gaussian(1.7, 0.4)] * count)
    assert log.exp().item() == pytest.approx(1 / (1 + count / 0.4), abs=1e-12)
    assert mean.item() == pytest.approx(1.7 * (count / 0.4) / (1 + count / 0.4), abs=1e-12)


def test_the_product_is_that_of_the_densities():
    experts = [gaussian(0.3, 2.0), gaussian(-1.1, 0.25)]
    mean, log = product_of_experts(experts)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = Normal(mean, (log / 2).exp()).log_prob(x)
    wanted = Normal(0.0, 1.0).log_prob(x) + sum(Normal(m, (v / 2).exp()).log_prob(x) for m, v in experts)
    difference = found - wanted
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), rtol=0, atol=1e-12)


def test_the_order_of_experts_changes_nothing_and_an_extreme_one_gives_no_nan():
    experts = [(torch.randn(3, 2), torch.randn(3, 2)) for _ in range(3)]
    for one, two in zip(product_of_experts(experts), product_of_experts(experts[::-1]), strict=True):
        torch.testing.assert_close(one, two)
    mean, log = product_of_experts([(torch.ones(1, 2), torch.tensor([[-200.0, 200.0]]))])
    torch.testing.assert_close(mean, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(log, torch.tensor([[-200.0, 0.0]]))
    with pytest.raises(UserError, match="at least one"):
        product_of_experts([])


def test_distance_from_the_prior():
    posterior = (torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64))
    wanted = kl_divergence(Normal(posterior[0], (posterior[1] / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_prior(posterior), wanted, rtol=1e-10, atol=1e-10)
    assert kl_to_prior(gaussian(0.0, 1.0)).item() == 0
    assert draw(gaussian(2.0, 9.0), torch.tensor([[0.5]])).item() == pytest.approx(2 + 3 * 0.5)
    assert math.isfinite(kl_to_prior(gaussian(0.0, 1e-30)).item())
