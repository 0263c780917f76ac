"""The gradient of a batch is the same however it is cut, dropout included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diptych.core.batch import Batch
from diptych.core.model import Coupled, Loss, Model
from diptych.train.gradients import Arithmetic, add_gradients, cut
from diptych.train.replica import Replica
from tests.train import toys
from tests.train.proofs import exact, fresh

CPU = Arithmetic(torch.device("cpu"), bf16=False)


def batch(rows=10):
    return exact(next(toys.Pairs(rows, rows).epoch(0)))


def gradient(model, parts, given=None):
    """In float64, so that what is exact differs only by 1e-15."""
    given = batch() if given is None else given
    loss = add_gradients(Replica(model.double(), sharding="none"), given, CPU, parts=parts)
    return loss, {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    ("rows", "parts", "sizes"), [(10, 4, [3, 2, 3, 2]), (8, 4, [2] * 4), (3, 8, [1] * 3), (5, 1, [5])]
)
def test_no_row_is_lost(rows, parts, sizes):
    pieces = cut(rows, parts)
    assert sorted(piece.stop - piece.start for piece in pieces) == sorted(sizes)
    assert [row for piece in pieces for row in range(rows)[piece]] == list(range(rows))


@pytest.mark.parametrize("make", [toys.Twins, toys.Guess])
@pytest.mark.parametrize("parts", [2, 3, 4, 10, 64])
def test_parts_have_the_gradient_of_the_batch(make, parts):
    whole, whole_gradient = gradient(fresh(make), 1)
    loss, found = gradient(fresh(make), parts)
    torch.testing.assert_close(loss.total, whole.total, rtol=0, atol=1e-12)
    assert found.keys() == whole_gradient.keys()
    for name, value in whole_gradient.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
    assert loss.parts.keys() == whole.parts.keys()


def test_dropout_drops_the_same_in_both_looks_at_a_part():
    made, parts = batch(), cut(10, 3)
    model = fresh(lambda: toys.Twins(dropout=0.4)).double()
    torch.manual_seed(7)
    embedded = [model.embed(made.part(part)) for part in parts]  # the graph of all parts at once
    loss = model.couple(tuple(torch.cat(pieces) for pieces in zip(*embedded, strict=True)), made)
    loss.total.backward()
    expected, after = {name: value.grad.clone() for name, value in model.named_parameters()}, torch.rand(3)
    model = fresh(lambda: toys.Twins(dropout=0.4))
    torch.manual_seed(7)
    found_loss, found = gradient(model, 3, made)
    torch.testing.assert_close(found_loss.total, loss.total.detach(), rtol=0, atol=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
    assert torch.equal(torch.rand(3), after)  # and the next batch goes on from where the first look ended


def test_gradients_are_added_to_those_that_are_there():
    model = fresh(toys.Twins)
    _, once = gradient(model, 3)
    _, twice = gradient(model, 3)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], 2 * value, rtol=0, atol=1e-12)


class Normed(Model, Coupled):
    """A tower with batch normalisation, in which the rows of a part see each other."""

    def __init__(self):
        super().__init__()
        self.layer, self.normal = nn.Linear(48, 4), nn.BatchNorm1d(4)

    def embed(self, batch: Batch):
        return (F.normalize(self.normal(self.layer(batch.need("image").flatten(1)))),)

    def couple(self, embeddings, batch: Batch) -> Loss:
        (one,) = embeddings
        return Loss((one @ one.T).logsumexp(1).mean())

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        return self.couple(self.embed(batch), batch)


def test_batch_normalisation_counts_each_row_once():
    model = fresh(Normed)
    gradient(model, 2)
    assert model.normal.num_batches_tracked == 2
    expected = nn.BatchNorm1d(4)
    expected = expected.double()
    model = fresh(Normed).double()
    for part in cut(10, 2):
        expected(model.layer(batch().part(part).image.flatten(1)))
    gradient(model, 2)
    torch.testing.assert_close(model.normal.running_mean, expected.running_mean)


def test_bf16_computes_layers_in_bf16_and_keeps_the_gradient_in_float32():
    rough = Arithmetic.choose(torch.device("cpu"), "bf16")
    model = fresh(toys.Twins)
    with rough.context():
        assert model.image(torch.rand(2, 48)).dtype == torch.bfloat16
    given = batch().map(lambda value: value.float() if value.is_floating_point() else value)
    loss = add_gradients(Replica(model, sharding="none"), given, rough, parts=3)
    precise, expected = gradient(fresh(toys.Twins), 1)
    assert model.image.weight.grad.dtype == torch.float32
    # bfloat16 has 8 bits: single products are right to 0.4 %
    torch.testing.assert_close(loss.total.double(), precise.total, rtol=0.02, atol=0.02)
    torch.testing.assert_close(model.image.weight.grad.double(), expected["image.weight"], rtol=0.1, atol=0.05)


def test_auto_is_fp32_on_a_cpu():
    assert not Arithmetic.choose(torch.device("cpu"), "auto").bf16
    assert not Arithmetic.choose(torch.device("cpu"), "fp32").bf16
