import json
import shutil
from dataclasses import replace

import pytest
import torch

from diptych import models
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.data.scenes import open_scenes
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.taught import tokenizer_of
from diptych.encoders.towers import context_for, image_size_for, tokenizer_for
from diptych.models.saved import open_model
from diptych.train.checkpoint import read_record, save_model
from diptych.train.experiment import load_run, prepare, run
from diptych.train.gradients import Arithmetic, add_gradients
from diptych.train.plan import make_plan
from diptych.train.replica import Replica
from tests.models.align.fixture import SMALL, SPEC, make, pairs

SAME = {"contrastive_weight": 0, "vectors_weight": 0}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return the folder of a CLIP as `diptych train` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    torch.manual_seed(3)
    model = make("clip")
    record = {"system": "clip", "config": model_config("clip"), "spec": SPEC.model_dump(mode="json")}
    save_model(folder, model, record)
    return folder


def model_config(system, **settings):
    kind = models.load(system).Config
    values = {name: value for name, value in (SMALL | settings).items() if name in kind.model_fields}
    return kind.parse(values).model_dump(mode="json")


def taught(teacher, **settings):
    return make("distill", variant="similarity", teacher=str(teacher), **settings)


def gradients(model, batch):
    model.zero_grad(set_to_none=True)
    model.loss(batch).total.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_without_soft_targets_it_is_clip():
    clip, batch = make("clip").eval(), replace(pairs(6), pair_id=torch.tensor([0, 1, 1, 3, 4, 5]))
    student = make("distill", alpha=0).eval()
    student.load_state_dict(clip.state_dict(), strict=False)
    torch.testing.assert_close(student.loss(batch).total, clip.loss(batch).total, rtol=1e-6, atol=1e-6)
    ours, theirs = gradients(student, batch), gradients(clip, batch)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_a_student_that_believes_itself_is_at_rest():
    student = make("distill", alpha=1, alpha_steps=0).eval()  # the average begins as the encoder
    batch, alone = pairs(), make("distill", alpha=0).eval()
    most = max(value.abs().max() for value in gradients(alone, batch).values())
    # Without gradient the towers add in another order: float32, times the scale of 14.
    assert max(value.abs().max() for value in gradients(student, batch).values()) < 1e-4 * most


def test_the_share_of_soft_targets_rises_over_the_steps_and_is_saved():
    student = make("distill", alpha=0.4, alpha_steps=4)
    shares = []
    for _ in range(6):
        shares.append(student.loss(pairs()).parts["alpha"].item())
        student.after_step()
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])
    again = make("distill", alpha=0.4, alpha_steps=4)
    again.load_state_dict(student.state_dict())
    assert again.slow.alpha() == pytest.approx(0.4)


def test_the_average_follows_and_what_is_frozen_is_shared():
    student = make("distill", momentum=0.9, text_train="frozen", image_encoder="resnet", image_width=8).train()
    assert student.slow.encoder.text_tower is student.text_tower
    assert student.slow.encoder.image_tower is not student.image_tower
    weight, slow = student.read_image.head.straight.weight, student.slow.encoder.read_image.head.straight.weight
    with torch.no_grad():
        weight.fill_(1.0)
    student.after_step()
    assert (slow == 1).all()  # after the first step it is the encoder, whatever that began with
    with torch.no_grad():
        weight.fill_(2.0)
    student.loss(pairs())
    student.after_step()
    torch.testing.assert_close(slow, torch.full_like(slow, 1.1))
    mine, theirs = dict(student.slow.encoder.named_buffers()), dict(student.named_buffers())
    assert any("running_mean" in name for name in mine)
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert not any(module.training for module in student.slow.encoder.modules())
    assert not any(value.requires_grad for value in student.slow.parameters())


def test_the_queue_holds_the_latest_rows_once_the_average_is_right():
    student = make("distill", queue=10).train()
    batches = [replace(pairs(), pair_id=torch.arange(4) + 4 * step) for step in range(4)]
    found = []
    for batch in batches:
        student.loss(batch)
        with torch.no_grad():
            student.loss(batch)
        student.eval().loss(batch)
        student.train().after_step()
        found.append(student.slow.queue_group.tolist()[: int(student.slow.waiting)])
    assert found == [[], [4, 5, 6, 7], [8, 9, 10, 11, 4, 5, 6, 7], [12, 13, 14, 15, 8, 9, 10, 11, 4, 5]]
    torch.testing.assert_close(student.slow.queue_image.norm(dim=1), torch.ones(10))
    unnamed = replace(pairs(), pair_id=None)
    student.loss(unnamed)
    student.after_step()
    assert student.slow.queue_group.tolist()[:4] == [-1] * 4


def test_parts_of_a_batch_give_the_gradient_of_the_whole_and_one_queue():
    found = []
    for parts in (1, 3):
        torch.manual_seed(5)
        student = make("distill", queue=12).train()
        for seed in range(3):
            torch.manual_seed(seed)
            batch = pairs(6)
            student.zero_grad()
            loss = add_gradients(
                Replica(student, sharding="none"), batch, Arithmetic(torch.device("cpu"), bf16=False), parts=parts
            )
            student.after_step()
        found.append((loss.total, student.read_image.head.straight.weight.grad, student.slow.queue_image))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_student_like_its_teacher_costs_nothing(teacher):
    student = taught(teacher, **SAME).eval()
    student.load_state_dict(open_model(teacher, read_record(teacher)).state_dict())
    assert student.loss(pairs()).total.item() == pytest.approx(0, abs=1e-6)
    assert all(value.abs().max() < 1e-5 for value in gradients(student, pairs()).values())
    all_three = taught(teacher).eval()
    all_three.load_state_dict(student.state_dict())
    parts = all_three.loss(pairs()).parts
    assert parts["vectors"].item() == pytest.approx(0, abs=1e-6)
    assert all_three.loss(pairs()).total.item() > 0.1  # the contrastive loss is there


def test_the_parts_add_up(teacher):
    student, batch = taught(teacher, vectors_weight=3, contrastive_weight=0.5).eval(), pairs()
    loss = student.loss(batch)
    wanted = loss.parts["similarity"] + 3 * loss.parts["vectors"] + 0.5 * loss.parts["contrastive"]
    torch.testing.assert_close(loss.total.detach(), wanted)
    clip = make("clip").eval()
    clip.load_state_dict(student.state_dict())
    torch.testing.assert_close(loss.parts["contrastive"], clip.loss(batch).total.detach())


def test_nothing_reaches_the_teacher_and_it_is_not_saved(teacher):
    student, batch = taught(teacher).train(), pairs()
    assert gradients(student, batch).keys() == dict(student.named_parameters()).keys()
    shown = student.teacher.open(torch.device("cpu"))
    assert not shown.training
    assert all(value.grad is None and not value.requires_grad for value in shown.parameters())
    assert student.state_dict().keys() == make("clip").state_dict().keys()


def test_opening_the_teacher_draws_no_random_numbers(teacher):
    student = taught(teacher).eval()
    batch, before = pairs(), torch.random.get_rng_state()
    student.loss(batch)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_student_opens_where_its_teacher_is_gone(teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "teacher")
    student = taught(moved).eval()
    record = {"system": "distill", "spec": SPEC.model_dump(mode="json")}
    record["config"] = model_config("distill", variant="similarity", teacher=str(moved))
    save_model(tmp_path / "student", student, record)
    wanted = student.encode_image(pairs())
    shutil.rmtree(moved)
    torch.manual_seed(0)
    again = open_model(tmp_path / "student", read_record(tmp_path / "student"))
    batch = pairs()
    torch.testing.assert_close(again.encode_image(batch), student.encode_image(batch), rtol=0, atol=0)
    assert wanted.shape == (4, 8)
    with pytest.raises(UserError, match="there is no such folder"):
        again.loss(batch)


def test_outputs_of_frozen_towers_are_read_by_a_teacher_that_has_the_same(teacher):
    student = taught(teacher, image_train="frozen", text_train="frozen").eval()
    student.load_state_dict(open_model(teacher, read_record(teacher)).state_dict())
    batch = pairs()
    kept = Batch(
        image_states=student.image_tower(batch.image),
        text_states=student.text_tower(batch.tokens, batch.token_mask),
        pair_id=batch.pair_id,
    )
    torch.testing.assert_close(student.loss(kept).total, student.loss(batch).total)
    other = taught(teacher, image_train="frozen", text_train="frozen").eval()
    both = replace(kept, image=batch.image, tokens=batch.tokens, token_mask=batch.token_mask)
    for ours, theirs in zip(other.teacher.embed(both, other), other.teacher.embed(batch, other), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(UserError, match="cannot read what is kept of the student's frozen image tower; give cache=fal"):
        other.loss(kept)


def test_the_student_takes_its_teachers_tokens_size_and_length(teacher, tmp_path):
    folder = shutil.copytree(teacher, tmp_path / "teacher")
    tokens = Tokenizer.train(["a red circle", "a blue square"] * 3, vocabulary=300)
    tokens.save(folder)
    spec = SPEC.model_copy(update={"vocabulary": tokens.vocabulary, "context": 6})
    (folder / "config.json").write_text(
        json.dumps({"system": "clip", "config": model_config("clip"), "spec": spec.model_dump(mode="json")})
    )
    kind = models.load("distill").Config
    config = kind.parse({"variant": "similarity", "teacher": str(folder)})
    assert tokenizer_for(config, ["other words"]).fingerprint() == tokens.fingerprint()
    assert (image_size_for(config), context_for(config)) == (16, 6)
    assert context_for(config.model_copy(update={"text_context": 5})) == 5
    assert context_for(config.model_copy(update={"text_context": 9})) == 6
    with pytest.raises(UserError, match=r"reads pictures of 16 pixels, the student asks for 32: .* give image_size=16"):
        image_size_for(config.model_copy(update={"image_size": 32}))
    other = Tokenizer.train(["quite other words"] * 3, vocabulary=300)
    assert tokenizer_of(str(folder), Tokenizer.load(folder)).fingerprint() == tokens.fingerprint()
    with pytest.raises(UserError, match="reads other tokens than the student's text tower: give the student"):
        tokenizer_of(str(folder), other)
    with pytest.raises(UserError, match=r"no run in .*: there is no such folder"):
        tokenizer_for(config.model_copy(update={"teacher": str(tmp_path / "gone")}), [])


def test_a_picture_is_sent_where_its_frozen_words_are():
    student, batch = make("distill", variant="feature", text_train="frozen", dim=5).eval(), pairs()
    words = student.text_tower(batch.tokens, batch.token_mask).summary
    torch.testing.assert_close(student.encode_text(batch), torch.nn.functional.normalize(words, dim=1))
    cosine = torch.nn.functional.cosine_similarity(student.encode_image(batch), words)
    torch.testing.assert_close(student.loss(batch).total, (1 - cosine).mean())
    assert all(name.startswith(("image_tower", "read_image")) for name in gradients(student, batch))
    squared = make("distill", variant="feature", text_train="frozen", distance="squared").eval()
    squared.load_state_dict(student.state_dict())
    raw = squared.read_image(squared.image_tower(batch.image))
    torch.testing.assert_close(squared.loss(batch).total, (raw - words).square().sum(1).mean())


def test_what_does_not_fit_is_told(teacher):
    with pytest.raises(UserError, match="variant=similarity with teacher='': give the folder of a run as teacher"):
        make("distill", variant="similarity")
    with pytest.raises(UserError, match="variant=momentum with teacher='x': give the folder"):
        make("distill", teacher="x")
    with pytest.raises(UserError, match="copies a frozen text tower, but text_encoder='transformer' is trained"):
        make("distill", variant="feature")
    with pytest.raises(UserError, match="teacher's vectors of 8 numbers, the student's have 6: give dim=8, or vectors"):
        taught(teacher, dim=6).loss(pairs())
    taught(teacher, dim=6, vectors_weight=0).loss(pairs())


def test_a_teacher_without_a_common_space_is_refused(tmp_path):
    record = {"system": "mae", "config": model_config("mae"), "spec": SPEC.model_dump(mode="json")}
    save_model(tmp_path, make("mae"), record)
    with pytest.raises(UserError, match="is a 'mae', which has no space for pictures and texts"):
        taught(tmp_path).loss(pairs())


@pytest.mark.slow
@pytest.mark.training
def test_a_small_student_learns_more_from_a_teacher_than_alone(tmp_path):
    """A ResNet of half the width, with fewer epochs, comes to 0.8 of the recall of the one that teaches it."""
    settings = {"image_encoder": "resnet", "image_size": 32, "text_dim": 64, "text_layers": 1, "text_pool": "mean"}
    settings |= {"dim": 64, "batch_size": 64, "lr": 3e-3, "warmup": 0.1, "evaluate_every": 0, "device": "cpu"}
    lesson = {"variant": "similarity", "teacher": str(tmp_path / "teacher")}
    found = {}
    for name, system, more in (
        ("teacher", "clip", {"image_width": 16, "epochs": 6}),
        ("alone", "clip", {"image_width": 8, "epochs": 4}),
        ("student", "distill", {"image_width": 8, "epochs": 4, **lesson}),
    ):
        source = open_scenes("scenes?pictures=2500&size=32&captions=1&objects=1-2")
        plan = make_plan(system, settings=settings | more)
        experiment = prepare(plan, source, out=tmp_path / name, named="scenes")
        found[name] = run(experiment, out=tmp_path / name)[1]["mean_r@1"]
    assert found["student"] > found["alone"]
    assert found["student"] >= 0.8 * found["teacher"]
    shutil.rmtree(tmp_path / "teacher")
    assert load_run(tmp_path / "student").system == "distill"
