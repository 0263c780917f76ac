"""data2vec: the paper's formulas by hand, the teacher, what is hidden, parity with transformers, and the watch."""

import math

import pytest
import torch
from torch.nn import functional as F

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.models.selfsup import data2vec
from diptych.nn.hiding import hidden_blocks, hidden_spans
from diptych.objectives.regress import averaged_layers, regress, spread
from tests.models.systems import SPEC, make_batch

PICTURES = {"image_patch": 4, "image_dim": 16, "image_layers": 3, "image_heads": 2}
TEXTS = {"modality": "text", "text_dim": 16, "text_layers": 3, "text_heads": 2}


def build(seed: int = 0, **settings):
    torch.manual_seed(seed)
    return data2vec.build(data2vec.Config.parse(settings), SPEC)


BOTH = pytest.mark.parametrize("settings", [PICTURES, TEXTS], ids=["image", "text"])


@BOTH
@pytest.mark.parametrize("over", ["width", "tokens"])
def test_the_loss_is_that_of_the_paper(settings, over):
    """Transcribe it with plain forward passes: no hook, no shared code but the blocks."""
    model, batch = build(**settings, top=2, beta=0.5, normalise=over).double().eval(), make_batch()
    hidden, (blocks, norm) = model.hide(batch), model.stack()
    with torch.no_grad():
        teacher, found = model.teacher.blocks, []
        x, real = model.place(model.inputs(batch), batch)
        for block in teacher.blocks:
            x = x + block.attention(block.attention_norm(x), mask=real)
            added = block.mlp(block.mlp_norm(x))
            found.append(added[:, model.lead :])
            x = x + added
    real = torch.ones(hidden.shape, dtype=torch.bool) if real is None else real
    target = torch.zeros_like(found[0])
    for layer in found[-2:]:
        for row in range(len(layer)):
            own = layer[row][real[row]]
            axis, eps = (-1, 1e-5) if over == "width" else (0, 1e-5)
            normal = (own - own.mean(axis, keepdim=True)) / (own.var(axis, keepdim=True, unbiased=False) + eps).sqrt()
            target[row][real[row]] += normal.float().double() / 2 if over == "tokens" else normal / 2
    inputs = torch.where(hidden[..., None], model.mask_token, model.inputs(batch))
    guess = model.head(norm(blocks(*model.place(inputs, batch)))[:, model.lead :])
    errors = (guess - target).abs()[hidden]
    each = torch.where(errors <= 0.5, 0.5 * errors**2 / 0.5, errors - 0.25)
    assert model.loss(batch).total.item() == pytest.approx(each.mean().item(), abs=1e-10 if over == "width" else 1e-6)


def test_the_error_is_quadratic_and_then_linear_without_a_step():
    hidden = torch.ones(1, 3, dtype=torch.bool)
    guess = torch.tensor([[[1.0], [2.0], [3.0]]])
    each = [regress(guess[:, i : i + 1], torch.zeros(1, 1, 1), hidden[:, :1], beta=2.0).item() for i in range(3)]
    assert each == pytest.approx([0.25, 1.0, 2.0])  # where the surveyed formula without its half jumps: 0.5, 2, 2
    wanted = F.smooth_l1_loss(guess, torch.zeros_like(guess), beta=2.0)
    assert regress(guess, torch.zeros_like(guess), hidden, beta=2.0).item() == pytest.approx(wanted.item())


def test_targets_are_normalised_and_one_layer_is_the_last():
    layers = [torch.randn(2, 5, 8, dtype=torch.float64) * 3 + 1 for _ in range(3)]
    one = averaged_layers(layers[-1:])
    torch.testing.assert_close(one.mean(-1), torch.zeros(2, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(one.var(-1, unbiased=False), torch.ones(2, 5, dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(one, F.layer_norm(layers[-1], (8,)))
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    over = averaged_layers(layers[-1:], real, over="tokens")
    torch.testing.assert_close(over[1, :3].mean(0), torch.zeros(8), rtol=0, atol=1e-6)
    torch.testing.assert_close(over[1, :3].var(0, unbiased=False), torch.ones(8), rtol=1e-4, atol=0)
    assert (over[1, 3:] == 0).all()


@BOTH
def test_one_layer_on_top_is_the_last_one(settings):
    model, batch = build(**settings, top=1).eval(), make_batch()
    seen = []
    hook = model.teacher.blocks.blocks[-1].mlp.register_forward_hook(lambda _, __, made: seen.append(made))
    target = model.targets(batch)
    hook.remove()
    torch.testing.assert_close(target, F.layer_norm(seen[0][:, model.lead :], (16,)))


@BOTH
def test_the_teacher_sees_everything_gets_no_gradient_and_no_dropout(settings):
    model, batch = build(**settings, tower_dropout=0.5).train(), make_batch()
    target = model.targets(batch)
    with torch.no_grad():
        model.mask_token.add_(7.0)
    torch.testing.assert_close(
        model.targets(batch), target, rtol=0, atol=0
    )  # neither noise nor the token for the hidden
    assert not target.requires_grad
    model.loss(batch).total.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in model.teacher.parameters())
    assert not any(part.training for part in model.teacher.blocks.modules())


@BOTH
def test_the_average_after_some_steps_is_one_minus_tau_to_their_number(settings):
    model = build(**settings, momentum=0.9, momentum_end=0.9)
    with torch.no_grad():
        for weight in model.teacher.parameters():
            weight.zero_()
        for weight in model.stack()[0].parameters():
            weight.fill_(1.0)
    for steps in range(1, 6):
        model.after_step()
        for weight in model.teacher.parameters():
            torch.testing.assert_close(weight, torch.full_like(weight, 1 - 0.9**steps))


def test_momentum_rises_evenly_and_stays():
    model, found = build(**PICTURES, momentum=0.9, momentum_end=0.99, momentum_steps=3), []
    for _ in range(5):
        found.append(model.momentum())
        model.after_step()
    assert found == pytest.approx([0.9, 0.93, 0.96, 0.99, 0.99])


@BOTH
def test_a_tower_with_other_weights_gets_its_own_teacher_at_the_first_step(settings):
    model, other = build(**settings).train(), build(seed=3, **settings)
    name = "text_tower" if settings is TEXTS else "image_tower"
    getattr(model, name).load_state_dict(getattr(other, name).state_dict())
    model.loss(make_batch())
    for slow, live in zip(model.teacher.parameters(), model.stack()[0].parameters(), strict=True):
        torch.testing.assert_close(slow, live, rtol=0, atol=0)


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize(("side", "share", "count"), [(8, 0.6, 38), (4, 0.6, 10), (2, 0.6, 2), (2, 0.99, 3)])
def test_blocks_hide_exactly_their_share_of_each_picture(side, share, count, still):
    torch.manual_seed(0)
    hidden = hidden_blocks(50, side, share, device=torch.device("cpu"), still=still)
    assert (hidden.sum(1) == count).all()
    assert (hidden == hidden[0]).all() == still


def test_blocks_hang_together():
    torch.manual_seed(0)
    grid = hidden_blocks(200, 8, 0.6, device=torch.device("cpu")).view(-1, 8, 8)
    same = (grid[:, 1:] == grid[:, :-1]).float().mean() + (grid[:, :, 1:] == grid[:, :, :-1]).float().mean()
    assert same / 2 > 0.7  # single patches drawn at random: 0.6^2 + 0.4^2 = 0.52
    assert 0.1 < grid.float().mean(0).min() < grid.float().mean(0).max() < 0.95  # the edge less, as in BEiT


@pytest.mark.parametrize("still", [False, True])
def test_spans_hide_their_share_and_no_mark(still):
    torch.manual_seed(0)
    lengths = torch.tensor([0, 1, 2, 10, 20])
    words = (torch.arange(24) >= 1) & (torch.arange(24) <= lengths[:, None])
    hidden = hidden_spans(words, 0.35, length=4, still=still)
    assert hidden.sum(1).tolist() == [0, 1, 1, 4, 7]
    assert not (hidden & ~words).any()


def test_spans_are_as_long_as_asked_and_begin_anywhere():
    torch.manual_seed(0)
    words = torch.ones(400, 40, dtype=torch.bool)
    hidden = hidden_spans(words, 0.3, length=4)
    runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0]
    assert 2 <= runs.float().mean() <= 4.5  # twelve words in spans of four, some of which touch or are cut at the ends
    assert (hidden.float().mean(0) - 0.3).abs().max() < 0.12


def test_spread_is_nought_for_targets_that_only_know_their_place():
    hidden = torch.tensor([[True, True], [True, False], [True, True]])
    place = torch.randn(2, 4).expand(3, -1, -1)
    assert spread(place, hidden).item() == 0
    states = torch.tensor([[[1.0], [5.0]], [[2.0], [9.0]], [[6.0], [7.0]]])
    by_hand = ((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2 + (5 - 6) ** 2 + (7 - 6) ** 2) / 5
    assert spread(states, hidden).item() == pytest.approx(by_hand)


@BOTH
def test_a_collapse_is_told_and_a_spread_is_not(settings):
    model, batch = build(**settings), make_batch()
    assert model.trouble({"target_variance": 0.2, "prediction_variance": 0.0}) == ""
    with torch.no_grad():
        for block in model.teacher.blocks.blocks:
            block.mlp.down.weight.zero_()
            block.mlp.down.bias.normal_()
    parts = {name: value.item() for name, value in model.eval().loss(batch).parts.items()}
    assert parts["target_variance"] < 1e-6
    assert "the targets have collapsed: their variance over examples is 0.0000" in model.trouble(parts)


def test_a_tower_that_does_not_fit_is_refused_in_one_line():
    with pytest.raises(UserError, match="top=4 layers make the targets, but the tower has 3"):
        build(**PICTURES, top=4)
    with pytest.raises(UserError, match="looks both ways: leave out text_encoder='transformer', text_pool='last'"):
        build(**TEXTS, text_pool="last")
    with pytest.raises(UserError, match="got image_encoder='resnet'"):
        build(image_encoder="resnet")


@pytest.mark.parity
def test_pictures_pass_as_through_transformers():
    """Weights go over to Data2VecVision, whose keys have no bias and whose class token has a position."""
    transformers = pytest.importorskip("transformers")
    spec = DataSpec(image_size=32)
    torch.manual_seed(0)
    model = data2vec.build(
        data2vec.Config(image_patch=8, image_dim=32, image_layers=3, image_heads=4, top=2), spec
    ).eval()
    peer = transformers.Data2VecVisionModel(
        transformers.Data2VecVisionConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-5,
            image_size=32,
            patch_size=8,
            use_mask_token=True,
            use_absolute_position_embeddings=True,
            use_relative_position_bias=False,
            layer_scale_init_value=0.0,
            drop_path_rate=0.0,
            use_mean_pooling=False,
        ),
        add_pooling_layer=False,
    ).eval()
    tower, state = model.image_tower, peer.state_dict()
    with torch.no_grad():
        for block in (*tower.transformer.blocks, *model.teacher.blocks.blocks):
            block.attention.key.bias.zero_()
    for name, value in given(model, tower).items():
        assert state[name].shape == value.shape, name
        state[name] = value
    assert state.keys() == given(model, tower).keys()
    peer.load_state_dict(state)
    image = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    batch, pixels = make_batch(3).__class__(image=image), tower.normalise(image)
    hidden = model.hide(batch)
    with torch.no_grad():
        theirs = peer(pixels, bool_masked_pos=hidden).last_hidden_state
        x = torch.where(hidden[..., None], model.mask_token, model.inputs(batch))
        ours = tower.norm_after(tower.transformer(*model.place(x, batch)))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        added = []
        hooks = [
            layer.output.register_forward_hook(lambda _, __, made: added.append(made))
            for layer in peer.encoder.layer[-2:]
        ]
        peer(pixels)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(
            model.targets(batch), averaged_layers([each[:, 1:] for each in added]), rtol=1e-5, atol=1e-5
        )


def given(model, tower) -> dict[str, torch.Tensor]:
    """Name our weights as transformers does."""
    position = torch.cat([torch.zeros(1, tower.dim), tower.positions])
    named = {
        "embeddings.cls_token": tower.class_token.view(1, 1, -1),
        "embeddings.mask_token": model.mask_token.view(1, 1, -1),
        "embeddings.position_embeddings": position[None],
        "embeddings.patch_embeddings.projection.weight": tower.patches.projection.weight,
        "embeddings.patch_embeddings.projection.bias": tower.patches.projection.bias,
        "layernorm.weight": tower.norm_after.weight,
        "layernorm.bias": tower.norm_after.bias,
    }
    parts = {
        "attention.attention.query": "attention.query",
        "attention.attention.key": "attention.key",
        "attention.attention.value": "attention.value",
        "attention.output.dense": "attention.out",
        "intermediate.dense": "mlp.up",
        "output.dense": "mlp.down",
        "layernorm_before": "attention_norm",
        "layernorm_after": "mlp_norm",
    }
    for number, block in enumerate(tower.transformer.blocks):
        for theirs, ours in parts.items():
            part = block.get_submodule(ours)
            named[f"encoder.layer.{number}.{theirs}.weight"] = part.weight
            if theirs != "attention.attention.key":
                named[f"encoder.layer.{number}.{theirs}.bias"] = part.bias
    return {name: value.detach() for name, value in named.items()}


def test_everything_hidden_or_nothing_to_hide_is_finite():
    model, batch = build(**TEXTS).train(), make_batch()
    empty = batch.token_mask.clone()
    empty[:] = False
    loss = model.loss(batch.__class__(tokens=batch.tokens, token_mask=empty))
    assert loss.total.item() == 0
    assert all(math.isfinite(part.item()) for part in loss.parts.values())
