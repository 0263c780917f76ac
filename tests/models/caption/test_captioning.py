"""What all captioners share: they write what they were fitted to, and learn from what their own texts earn."""

import dataclasses

import pytest
import torch

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.core.writing import Writing
from diptych.models import load
from diptych.models.captioning import STAGES
from tests.models.systems import SMALL_CNN, SPEC, make_batch

BOTH = pytest.mark.parametrize("system", ["cnn_captioner", "meshed_memory"])
SMALL = {**SMALL_CNN, "dim": 16, "text_context": 8, "dropout": 0.0, "smoothing": 0.0}


def small(system, **changed):
    module = load(system)
    return module.build(module.Config.parse({**SMALL, **changed}), SPEC)


def ones(tokens, pictures):
    return torch.ones(len(tokens))


def evens(tokens, pictures):
    """Pay for each even token."""
    return ((tokens % 2 == 0) & (tokens > 3)).sum(1).float()


@BOTH
def test_it_writes_what_it_was_fitted_to(system):
    model, batch = small(system).train(), make_batch(5)
    keep = torch.tensor([0, 2, 3, 4])  # rows 0 and 1 show the same picture under two captions
    batch = batch.part(keep)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(batch).total.backward()
        optimizer.step()
    model.eval()
    assert model.loss(batch).parts["word"] < 0.05
    wanted = [row[real][1:].tolist() for row, real in zip(batch.tokens, batch.token_mask, strict=True)]
    for writing in (Writing(beams=1), Writing(beams=4), Writing(nucleus=0.5)):
        written = model.write(batch, writing)
        assert [row[0][real[0]].tolist() for row, real in zip(written.tokens, written.mask, strict=True)] == wanted


@BOTH
def test_the_score_of_a_text_is_the_sum_of_its_log_probabilities(system):
    model, batch = small(system).eval(), make_batch()
    written = model.write(batch, Writing(beams=4, count=2))
    levels, mask = model.look(batch)
    tokens = torch.nn.functional.pad(written.tokens.flatten(0, 1), (1, 0), value=SPEC.bos_id)
    real = torch.nn.functional.pad(written.mask.flatten(0, 1), (1, 0), value=True)
    logs = model.log_probs(tokens, real, levels, mask)
    assert (logs[~real[:, 1:]] == 0).all()
    torch.testing.assert_close(logs.sum(1).view(-1, 2), written.log_prob, rtol=1e-5, atol=1e-5)


@BOTH
def test_a_picture_is_encoded_once_for_its_captions(system, monkeypatch):
    model, batch = small(system).eval(), make_batch(6)
    same = dataclasses.replace(batch, image=batch.image[[0, 0, 2, 2, 4, 4]], pair_id=torch.tensor([3, 3, 1, 1, 2, 2]))
    ragged = dataclasses.replace(batch, image=batch.image[[0, 0, 0, 3, 3, 5]], pair_id=torch.tensor([3, 3, 3, 1, 1, 2]))
    seen = []
    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, x, mask: seen.append(len(x)) or encode(self, x, mask))
    for shared in (same, ragged):
        alone = dataclasses.replace(shared, pair_id=None)
        torch.testing.assert_close(model.loss(shared).total, model.loss(alone).total, rtol=1e-5, atol=1e-5)
    assert seen == [3, 6, 3, 6]


@BOTH
@pytest.mark.parametrize("how", [{}, {"explore": "beams"}, {"baseline": "greedy"}])
def test_equal_rewards_teach_nothing(system, how):
    model = small(system, self_critical=True, **how).train()
    model.enter("reward")
    model.reward_by(ones)
    loss = model.loss(make_batch())
    loss.total.backward()
    assert loss.parts["reward"] == 1
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())
    assert model.training, "writing without dropout must not end the training mode"


@pytest.mark.parametrize(
    ("system", "how"),
    [("cnn_captioner", {}), ("meshed_memory", {"explore": "beams"}), ("cnn_captioner", {"baseline": "greedy"})],
)
def test_rewards_are_learnt_from(system, how):
    model, batch = small(system, self_critical=True, dropout=0.1, **how).train(), make_batch()
    assert model.stages() == STAGES
    model.enter("reward")
    model.reward_by(evens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    before = model.loss(batch).parts["reward"].item()
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.total.backward()
        optimizer.step()
    assert loss.parts["reward"].item() > min(before + 1, 6.5), "seven is the most there is to earn"


def test_the_gradient_is_reward_less_baseline_times_that_of_the_log_probability():
    model, batch = small("cnn_captioner", samples=3).eval().double(), make_batch().part(torch.tensor([0, 2, 3]))
    batch = dataclasses.replace(batch, image=batch.image / 255.0).map(
        lambda x: x.double() if x.is_floating_point() else x
    )
    texts = []

    def reward(tokens, pictures):
        texts.append((tokens, pictures))
        return torch.arange(len(tokens)).double() % 4

    model.enter("reward")
    model.reward_by(reward)
    torch.manual_seed(4)
    model.loss(batch).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    ((tokens, pictures),) = texts
    assert pictures.tolist() == [p for p in batch.pair_id.tolist() for _ in range(3)]
    earned = (torch.arange(9).double() % 4).view(3, 3)
    advantage = (earned - earned.mean(1, keepdim=True)).flatten()
    model.zero_grad()
    levels, mask = model.look(batch)
    total = torch.zeros((), dtype=torch.float64)
    for row, (text, weight) in enumerate(zip(tokens, advantage, strict=True)):
        told = torch.tensor([[SPEC.bos_id, *text[text != SPEC.pad_id].tolist()]])
        own = tuple(level[row // 3 : row // 3 + 1] for level in levels)
        logs = model.log_probs(told, torch.ones_like(told, dtype=torch.bool), own, mask)
        total = total - weight * logs.sum() / 9
    total.backward()
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_without_a_reward_the_second_stage_says_what_it_needs():
    model = small("meshed_memory", self_critical=True)
    model.enter("reward")
    with pytest.raises(UserError, match=r"needs a reward: model.reward_by"):
        model.loss(make_batch())
    with pytest.raises(UserError, match="unknown stage 'rewards'; did you mean 'reward'"):
        model.enter("rewards")
    assert small("meshed_memory").stages() == ("words",)


def test_frozen_features_are_brought_to_one_scale_and_stand_in_for_pixels():
    model = small("meshed_memory", image_train="frozen").eval()
    batch = make_batch()
    states = model.image_tower(batch.image)
    cached = dataclasses.replace(batch, image=None, image_states=states)
    torch.testing.assert_close(model.loss(cached).total, model.loss(batch).total)
    wild = States(states.tokens * 50 + 7, states.mask, states.summary * 9)
    model.fit([dataclasses.replace(cached, image_states=wild)])
    even = model.cells.even_cells(wild.tokens).flatten(0, 1)
    torch.testing.assert_close(even.mean(0), torch.zeros_like(even[0]), rtol=0, atol=1e-4)
    assert even.std(0).median() == pytest.approx(1, abs=0.1)


def test_cells_tell_their_places_only_where_asked_and_on_a_square_grid():
    batch = make_batch()
    for positions, places in ((True, "learned"), (True, "fixed"), (False, "learned")):
        model = small("cnn_captioner", positions=positions, places=places).eval()
        states = model.image_tower(batch.image)
        order = torch.tensor([2, 0, 3, 1])
        turned = States(states.tokens[:, order], states.mask, states.summary)
        one, two = model.cells(states)[0], model.cells(turned)[0]
        assert torch.equal(one[:, 0], two[:, 0]), "the summary stands first and has no place"
        assert torch.allclose(one[:, 1:][:, order], two[:, 1:]) != positions
    odd = States(states.tokens[:, :3], states.mask[:, :3], states.summary)
    with pytest.raises(UserError, match="3 cells are no square grid: set positions=false"):
        small("cnn_captioner").loss(dataclasses.replace(batch, image=None, image_states=odd))


def test_mirrored_pictures_are_seen_in_training_only():
    model, batch = small("cnn_captioner", mirror=True), make_batch()
    model.eval()
    one, two = model.loss(batch).total, model.loss(batch).total
    assert one == two
    model.image_tower.eval()  # BatchNorm sees the batch otherwise
    model.training = True
    assert len({model.loss(batch).total.item() for _ in range(6)}) > 1
