import pytest
import torch

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.core.runtime import add_over_processes, gather, mean_over_processes, rank, world


def states(rows: int) -> States:
    return States(
        torch.zeros(rows, 3, 5), torch.ones(rows, 3, dtype=torch.bool), torch.arange(rows * 4.0).view(rows, 4)
    )


def test_a_batch_counts_its_examples_by_whatever_it_has():
    assert len(Batch()) == 0
    assert len(Batch(label=torch.zeros(7).long())) == 7
    assert len(Batch(image_states=states(3))) == 3


def test_a_missing_field_says_what_there_is():
    with pytest.raises(UserError, match="needs 'image', but the data gives only label"):
        Batch(label=torch.zeros(2).long()).need("image")
    with pytest.raises(UserError, match="gives only nothing"):
        Batch().need("image")


def test_parts_and_changes_reach_into_states():
    batch = Batch(label=torch.arange(4), text_states=states(4))
    part = batch.part(torch.tensor([2, 0]))
    assert part.label.tolist() == [2, 0]
    assert part.text_states.summary[0].tolist() == [8, 9, 10, 11]
    doubled = batch.map(lambda value: value.repeat_interleave(2, 0))
    assert len(doubled) == 8
    assert doubled.image is None


def test_alone_there_is_one_process_and_nothing_to_gather():
    x = torch.randn(3, 2, requires_grad=True)
    assert (rank(), world()) == (0, 1)
    assert gather(x) is x
    assert torch.equal(add_over_processes(x), x.detach())
    assert torch.equal(mean_over_processes(x), x.detach())
