"""GAN-CLS: what each player sees and learns from, wrong texts, mixtures, and that it comes to draw what is asked."""

import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diptych import models
from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.models.generate.gan_cls import GanCls, strangers
from diptych.models.onlooker import Onlooker
from diptych.nn.canvas import Canvas, Critic, doublings
from diptych.nn.standardise import Standardise
from diptych.objectives.gan import as_false, as_real
from diptych.train.checkpoint import save_model
from tests.models.systems import SMALL, SMALL_CNN, SMALL_GAN, SPEC, make_batch


def make(seed: int = 0, **settings: object) -> GanCls:
    module = models.load("gan_cls")
    values = {name: value for name, value in {**SMALL, **SMALL_GAN}.items() if name in module.Config.model_fields}
    torch.manual_seed(seed)
    return module.build(module.Config.parse({**values, **settings}), SPEC)


def slopes(model, batch, phase):
    model.zero_grad(set_to_none=True)
    model.loss(batch, phase).total.backward()
    return {
        name for name, value in model.named_parameters() if value.grad is not None and bool((value.grad != 0).any())
    }


def test_the_critic_does_not_touch_the_generator_and_the_generator_hears_the_critic():
    model, batch = make().train(), make_batch()
    assert {name.split(".")[0] for name in slopes(model, batch, "critic")} == {"critic", "text_tower"}
    moved = {name.split(".")[0] for name in slopes(model, batch, "generator")}
    assert {"describe", "canvas"} <= moved
    assert "text_tower" not in moved
    players = {name: {id(weight) for weight in members} for name, members in model.phases().items()}
    assert not players["critic"] & players["generator"]


def test_a_frozen_text_tower_is_nobodys():
    model = make(text_train="frozen")
    still = {id(weight) for weight in model.text_tower.parameters()}
    assert not still & {id(weight) for members in model.phases().values() for weight in members}


def test_the_loss_of_the_critic_is_the_three_errors_by_hand():
    model, batch = make(cls_weight=0.3).eval(), make_batch()
    text = model.understand(batch)
    image = batch.image.float() / 127.5 - 1
    drawn = model.canvas(torch.cat([torch.zeros(6, 5), F.leaky_relu(model.describe(text), 0.2)], 1))
    judge = lambda pictures, texts: model.critic(model.critic.look(pictures), texts)  # noqa: E731
    wrong = []
    for row in range(6):  # rows 0 and 1 show one picture; classes are 0, 1, 2, 0, 1, 2
        others = [one for one in range(6) if one % 3 != row % 3 and {one, row} != {0, 1}]
        each = [as_false(judge(image[[row]], text[[one]])) for one in others]
        wrong.append(torch.cat(each).mean())
    wanted = as_real(judge(image, text)).mean() + 0.3 * torch.stack(wrong).mean()
    wanted = wanted + 0.7 * as_false(judge(drawn, text)).mean()
    torch.testing.assert_close(model.loss(batch, "critic").total, wanted, rtol=1e-5, atol=1e-6)


def test_without_wrong_texts_it_is_the_conditional_gan():
    model, batch = make(cls_weight=0.0).eval(), make_batch()
    loss = model.loss(batch, "critic")
    assert loss.parts["wrong"] == 0
    torch.testing.assert_close(loss.total.detach(), loss.parts["real"] + loss.parts["drawn"])
    with pytest.raises(UserError, match="cls_weight"):
        models.load("gan_cls").Config.parse({"cls_weight": 1.0})


def test_a_wrong_text_is_of_another_picture_and_class():
    batch = make_batch()
    found = strangers(batch)
    assert not found.diagonal().any()
    assert not found[0, 1]  # the same picture
    assert not found[0, 3]  # the same class
    assert found[0, 2]
    unknown = replace(batch, label=torch.full((6,), -1))
    assert bool(strangers(unknown)[0, 3])
    assert torch.equal(strangers(unknown), strangers(replace(batch, label=None)))


def test_a_text_that_says_the_same_is_not_wrong_whosever_it_is():
    batch = replace(make_batch(), label=None, pair_id=torch.arange(6))
    same = replace(batch, tokens=batch.tokens[:1].expand(6, -1), token_mask=batch.token_mask[:1].expand(6, -1))
    for model in (make().train(), make().eval()):
        assert model.loss(same, "critic").parts["wrong"] == 0
        assert model.loss(batch, "critic").parts["wrong"] > 0


def test_wrong_texts_in_training_are_drawn_among_all_strangers():
    model, batch = make().train(), make_batch()
    seen = model.critic.look(batch.image.float() / 127.5 - 1)
    text = model.understand(batch)
    torch.manual_seed(0)
    several = torch.stack([model._wrong(seen, text, batch) for _ in range(400)]).mean()
    every = model.eval()._wrong(seen, text, batch)
    torch.testing.assert_close(several, every, rtol=0.02, atol=0.0)


def test_the_critic_hears_the_text():
    for match in ("concat", "projection"):
        model, batch = make(match=match).eval(), make_batch()
        text, seen = model.understand(batch), model.critic.look(batch.image.float() / 127.5 - 1)
        assert (model.critic(seen, text) - model.critic(seen, text.flip(0))).abs().max() > 1e-6


def test_a_mixture_of_a_text_with_itself_doubles_the_plain_term():
    batch = make_batch()
    whole = make(mix=1.0, interpolation=1.0).eval().loss(batch, "generator")
    torch.testing.assert_close(whole.parts["between"], whole.parts["plain"])
    plain = make(interpolation=0.0).eval().loss(batch, "generator")
    torch.testing.assert_close(whole.total, 2 * plain.total)
    model = make(mix=0.5).train()
    torch.manual_seed(3)
    mixed = model.loss(batch, "generator").parts
    assert mixed["between"] != mixed["plain"]


def test_drawing_follows_text_and_seed():
    model, batch = make().eval(), make_batch()
    drawn = [model.draw(batch, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape == (6, 3, 16, 16)
    assert drawn[0].min() >= 0
    assert drawn[0].max() <= 1
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    told = model.draw(
        replace(batch, tokens=batch.tokens.flip(0), token_mask=batch.token_mask.flip(0)),
        torch.Generator().manual_seed(0),
    )
    assert not torch.equal(told, drawn[0])


def test_stored_outputs_of_a_frozen_tower_stand_in_for_words_and_are_evened_out():
    model, batch = make(text_train="frozen").eval(), make_batch()
    states = model.text_tower(batch.tokens, batch.token_mask)
    stored = Batch(image=batch.image, pair_id=batch.pair_id, label=batch.label, text_states=states)
    model.fit([stored, batch])
    assert isinstance(model.even, Standardise)
    told = model.understand(stored)
    torch.testing.assert_close(told.mean(0), torch.zeros(16), rtol=0, atol=1e-5)
    for phase in model.phases():
        torch.testing.assert_close(model.loss(stored, phase).total, model.loss(batch, phase).total)


def test_a_text_without_words_or_states_is_missed():
    with pytest.raises(UserError, match="needs 'tokens'"):
        make().draw(Batch(pair_id=torch.arange(2)), torch.Generator())


@pytest.mark.parametrize(("size", "count"), [(8, 1), (16, 2), (32, 3), (64, 4)])
def test_grids_double_up_to_the_picture(size, count):
    assert doublings(size) == count
    torch.manual_seed(0)
    canvas, critic = Canvas(7, size=size, width=2), Critic(7, size=size, width=2, dim=3)
    code = torch.randn(2, 7)
    assert canvas(code).shape == (2, 3, size, size)
    assert critic(critic.look(canvas(code)), code).shape == (2,)


@pytest.mark.parametrize("size", [4, 12, 24, 30])
def test_sizes_that_no_doubling_reaches_are_refused(size):
    with pytest.raises(UserError, match=f"image_size={size} cannot be drawn: give 8, 16, 32"):
        Canvas(3, size=size, width=2)


def test_other_kinds_of_critics_are_refused():
    with pytest.raises(UserError, match="did you mean 'spectral'"):
        Critic(3, size=8, width=2, dim=2, norm="spectrl")
    with pytest.raises(UserError, match="did you mean 'concat'"):
        Critic(3, size=8, width=2, dim=2, match="concatt")


def test_states_are_understood_in_float32():
    model = make(text_train="frozen").eval()
    states = States(torch.zeros(2, 0, 16), torch.zeros(2, 0, dtype=torch.bool), torch.randn(2, 16).bfloat16())
    assert model.understand(Batch(text_states=states)).dtype == torch.float32


@pytest.fixture
def aligned(tmp_path):
    """Return the folder of an aligned run whose pictures are twice as large as those that are drawn."""
    module, spec = models.load("clip"), SPEC.model_copy(update={"image_size": 2 * SPEC.image_size})
    settings = {**SMALL, **SMALL_CNN, "image_encoder": "resnet", "image_size": spec.image_size, "image_train": "all"}
    config = module.Config.parse({name: settings[name] for name in settings if name in module.Config.model_fields})
    torch.manual_seed(4)
    model = module.build(config, spec)
    record = {"system": "clip", "config": config.model_dump(mode="json"), "spec": spec.model_dump(mode="json")}
    save_model(tmp_path / "aligned", model, record)
    return tmp_path / "aligned", model.eval()


def test_an_onlooker_says_what_its_tower_makes_of_each_place(aligned):
    folder, model = aligned
    pictures = torch.rand(2, 3, 16, 16, requires_grad=True)
    seen = Onlooker(str(folder), width=64).see(pictures)
    tokens = model.image_tower(F.interpolate(pictures, size=(32, 32), mode="bilinear")).tokens
    wanted = F.layer_norm(tokens, tokens.shape[-1:]).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(seen, wanted)
    seen.square().sum().backward()
    assert bool((pictures.grad != 0).any())


def test_with_an_onlooker_critic_and_generator_learn_through_it_and_it_learns_nothing(aligned):
    folder, _ = aligned
    model, batch = make(onlooker=str(folder), onlooker_width=64).train(), make_batch()
    critic = slopes(model, batch, "critic")
    assert any(name.startswith("critic.other") for name in critic)
    assert "canvas" in {name.split(".")[0] for name in slopes(model, batch, "generator")}
    assert not any("onlooker" in name for name in model.state_dict())
    assert all(value.grad is None for value in model.onlooker._opened.parameters())


def test_who_learnt_with_an_onlooker_draws_without_it(aligned):
    folder, _ = aligned
    model = make(onlooker=str(folder), onlooker_width=64).train()
    model.loss(make_batch(), "critic")
    shutil.rmtree(folder)
    alone = make(onlooker=str(folder), onlooker_width=64).eval()
    alone.load_state_dict(model.state_dict())
    drawn = [one.eval().draw(make_batch(), torch.Generator().manual_seed(1)) for one in (model, alone)]
    torch.testing.assert_close(*drawn)


def test_an_onlooker_without_an_image_tower_is_refused(tmp_path):
    module = models.load("question_only")
    config = module.Config.parse({name: SMALL[name] for name in SMALL if name in module.Config.model_fields})
    record = {"system": "question_only", "config": config.model_dump(mode="json"), "spec": SPEC.model_dump(mode="json")}
    save_model(tmp_path, module.build(config, SPEC), record)
    with pytest.raises(UserError, match="no image tower"):
        make(onlooker=str(tmp_path)).loss(make_batch(), "critic")


def test_an_onlooker_of_another_width_is_refused_and_the_line_says_which(aligned):
    folder, _ = aligned
    with pytest.raises(UserError, match="give onlooker_width=64"):
        make(onlooker=str(folder), onlooker_width=6).loss(make_batch(), "critic")
