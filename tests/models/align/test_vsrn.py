from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from tests.models.align import compositions
from tests.models.align.fixture import IMAGE, TEXT, compared, make, pairs


def test_the_golden_losses_of_three_pairs():
    assert compared("vsrn") == pytest.approx(0.9315498879, abs=1e-9)
    assert 3 * compared("vsrn", objective="triplet") == pytest.approx(1.872, abs=1e-9)
    assert 3 * compared("vsrn", objective="hardest", hardest_after=0) == pytest.approx(1.536, abs=1e-9)


def test_the_way_to_the_hardest_is_counted_in_steps_and_saved():
    model = make("vsrn", objective="hardest", hardest_after=4)
    shares = []
    for _ in range(6):
        shares.append(model.couple((IMAGE, TEXT), Batch()).parts["hardest"].item())
        model.after_step()
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1]
    again = make("vsrn", objective="hardest", hardest_after=4)
    again.load_state_dict(model.state_dict())
    assert again.hardest() == 1


def test_at_the_start_the_layers_change_nothing():
    """The same weights without relation layers give the same vectors: each layer begins as the identity."""
    deep, flat = make("vsrn", relation_layers=4).eval(), make("vsrn", relation_layers=0).eval()
    flat.load_state_dict({name: value for name, value in deep.state_dict().items() if ".relate." not in name})
    batch = pairs()
    torch.testing.assert_close(deep.encode_image(batch), flat.encode_image(batch), rtol=0, atol=0)


def test_captions_are_written_from_the_regions_and_weighed():
    model = make("vsrn", caption_weight=0.5).eval()
    batch = pairs()
    loss = model.loss(batch)
    assert set(loss.parts) == {"contrastive", "scale", "caption"}
    torch.testing.assert_close(loss.total, loss.parts["contrastive"] + 0.5 * loss.parts["caption"])
    states = model.image_tower(batch.image)
    nodes = model.graph.reason(states.tokens, states.mask)
    wanted = model.writer.nll(batch.tokens, batch.token_mask, nodes, states.mask).mean()
    torch.testing.assert_close(loss.parts["caption"], wanted)


def test_captions_need_words():
    model, batch = make("vsrn", caption_weight=1.0), pairs()
    states = States(torch.zeros(4, 6, 16), torch.ones(4, 6).bool(), torch.zeros(4, 16))
    with pytest.raises(UserError, match="set cache=false"):
        model.loss(replace(batch, tokens=None, token_mask=None, text_states=states))


@pytest.mark.slow
@pytest.mark.training
def test_reasoning_tells_apart_sentences_of_the_same_words():
    model = compositions.learn(compositions.make("vsrn"), steps=150)
    batch = compositions.draw(100, seed=10**6)
    places, colours = compositions.told_apart(model.encode_image(batch) @ model.encode_text(batch).T)
    assert places > 0.8
    assert colours > 0.9
