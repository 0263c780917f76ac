"""What every system must hold to, whatever it is; `pytest -k NAME` runs it on one."""

import dataclasses
import math

import pytest
import torch

from diptych import models
from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Coupled, PairEncoder, Phased
from diptych.train.checkpoint import load_weights, save_model
from tests.models.systems import CASES, SPEC, Case, make_batch

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def phases(model):
    if isinstance(model, Phased):
        return model.phases()
    return {"main": [p for p in model.parameters() if p.requires_grad]}


def permuted(batch: Batch, order: torch.Tensor) -> Batch:
    return batch.part(order)


def test_a_system_says_what_it_is_and_where_it_comes_from(case: Case):
    module = models.load(case.system)
    assert module.__doc__, "a system's file begins with what it is"
    assert "Reference:" in module.__doc__, "a system names its paper and what differs"
    assert issubclass(module.Config, Config)


def test_loss_is_a_finite_number_with_finite_parts(case: Case):
    model = case.build()
    for phase in phases(model):
        loss = model.loss(make_batch(), phase)
        assert loss.total.ndim == 0
        assert math.isfinite(loss.total.item())
        assert loss.parts
        assert all(math.isfinite(part.item()) and not part.requires_grad for part in loss.parts.values())


def test_every_parameter_of_a_phase_gets_a_gradient_and_is_saved(case: Case):
    model = case.build().train()
    saved = {value.data_ptr() for value in model.state_dict(keep_vars=True).values()}
    covered: set[int] = set()
    for phase, parameters in phases(model).items():
        model.zero_grad(set_to_none=True)
        model.loss(make_batch(), phase).total.backward()
        for parameter in parameters:
            name = next(n for n, p in model.named_parameters() if p is parameter)
            assert parameter.data_ptr() in saved, f"{name} is not in the checkpoint"
            assert parameter.grad is not None, f"{name} gets no gradient in phase {phase}"
            assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"
        covered |= {id(parameter) for parameter in parameters}
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or id(parameter) in covered, f"no phase moves {name}"


def test_order_of_the_batch_changes_nothing(case: Case):
    model, batch = case.build().eval(), make_batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for phase in phases(model):
        torch.testing.assert_close(
            model.loss(batch, phase).total, model.loss(permuted(batch, order), phase).total, rtol=1e-5, atol=1e-6
        )


def test_padding_changes_nothing(case: Case):
    model, batch = case.build().eval(), make_batch()
    lengths = batch.need("token_mask").sum(1)
    short = batch.part((lengths < 8).nonzero()[:, 0])
    longest = int(short.need("token_mask").sum(1).max())
    cut = dataclasses.replace(
        short, tokens=short.need("tokens")[:, :longest], token_mask=short.need("token_mask")[:, :longest]
    )
    scribbled = dataclasses.replace(short, tokens=torch.where(short.need("token_mask"), short.need("tokens"), 7))
    for phase in phases(model):
        wanted = model.loss(short, phase).total
        torch.testing.assert_close(model.loss(cut, phase).total, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.loss(scribbled, phase).total, wanted, rtol=1e-5, atol=1e-6)


def test_a_text_of_padding_alone_gives_no_nan(case: Case):
    model, batch = case.build(), make_batch()
    mask = batch.need("token_mask").clone()
    mask[2] = False
    for phase in phases(model):
        loss = model.loss(dataclasses.replace(batch, token_mask=mask), phase)
        loss.total.backward()
        assert math.isfinite(loss.total.item())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_learns_one_batch(case: Case):
    model, batch = case.build().train(), make_batch()
    if isinstance(model, Phased):
        pytest.skip("phases play against each other; the system's own test judges what they learn")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    first = model.loss(batch).total.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(batch).total
        loss.backward()
        optimizer.step()
        if isinstance(model, AfterStep):
            model.after_step()
    assert loss.item() < 0.6 * first


def test_weights_come_back_from_disk_and_another_shape_is_refused(case: Case, tmp_path):
    model, batch = case.build(seed=1).eval(), make_batch()
    save_model(tmp_path, model, {"system": case.system, "config": {}, "spec": {}})
    again = case.build(seed=2).eval()
    load_weights(again, tmp_path)
    torch.testing.assert_close(again.loss(batch).total, model.loss(batch).total, rtol=0, atol=0)
    wider = SPEC.model_copy(update={"vocabulary": SPEC.vocabulary + 1, "classes": (*SPEC.classes, "four")})
    config = case.config()  # a system that reads no words has another width instead
    config = config.model_copy(update={"image_dim": 32} if "image_dim" in type(config).model_fields else {})
    other = models.load(case.system).build(config, wider)
    with pytest.raises(UserError, match="vocabulary"):
        load_weights(other, tmp_path)


def test_a_missing_field_is_named(case: Case):
    model = case.build()
    with pytest.raises(UserError, match=r"this model needs '.*', but the data gives only"):
        model.loss(Batch(label=torch.zeros(3).long()))


def test_an_unknown_setting_is_refused_with_the_nearest(case: Case):
    kind = models.load(case.system).Config
    name = next(iter(kind.model_fields))
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        kind.parse({f"{name}x": 1})


def test_coupled_loss_is_embed_then_couple(case: Case):
    model, batch = case.build().eval(), make_batch()
    if not isinstance(model, Coupled):
        pytest.skip("its loss does not couple the examples of a batch")
    joined = tuple(
        torch.cat(parts) for parts in zip(*(model.embed(batch.part(slice(i, i + 2))) for i in (0, 2, 4)), strict=True)
    )
    torch.testing.assert_close(model.couple(joined, batch).total, model.loss(batch).total, rtol=1e-5, atol=1e-6)


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(case: Case):
    model, batch = case.build().eval(), make_batch()
    if not isinstance(model, PairEncoder):
        pytest.skip("it has no space for both")
    for encode in (model.encode_image, model.encode_text):
        whole = encode(batch)
        torch.testing.assert_close(whole.norm(dim=1), torch.ones(6), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(encode(batch.part(slice(2, 3))), whole[2:3], rtol=1e-5, atol=1e-6)
    assert model.scale().item() > 0


def test_half_precision_gives_nearly_the_same(case: Case):
    model, batch = case.build().eval(), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(batch).total
    torch.testing.assert_close(half.float(), model.loss(batch).total, rtol=0.05, atol=0.05)
