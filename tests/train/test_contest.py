"""Contestants: how they are typed, and what each gets of what all share."""

import shlex
from pathlib import Path

import pytest

from diptych.core.errors import UserError
from diptych.train.contest import command_for, make_contest, parse_contestant, parse_contestants
from diptych.train.plan import Recipe, make_plan

TOWERS = {"text_encoder": "transformer", "image_encoder": "vit"}


def test_a_contestant_as_typed():
    one = parse_contestant("big=clip:dim=512,image_blocks=2,2,2,head=mlp")
    assert (one.name, one.system) == ("big", "clip")
    assert one.own == {"dim": "512", "image_blocks": "2,2,2", "head": "mlp"}
    assert parse_contestant(f"big=clip:{one.settings}") == one
    assert parse_contestant("clip").name == "clip"
    assert parse_contestant("clip:scale=20").name == "clip-scale=20"
    assert parse_contestant("my_package.mine").system == "my_package.mine"
    assert parse_contestant("clip:image_encoder=config:/x/y").own == {"image_encoder": "config:/x/y"}
    assert "/" not in parse_contestant("clip:image_encoder=config:/x/y").name


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("clip:dim", "NAME=SYSTEM"),
        ("clip:", "NAME=SYSTEM"),
        ("=clip", "a name has letters"),
        ("a/b=clip", "a name has letters"),
        ("..=clip", "a name has letters"),
        ("clip:dim=3,dim=4", "dim twice"),
        ("clip:seed=3", "--seeds"),
    ],
)
def test_what_cannot_be_read(word, match):
    with pytest.raises(UserError, match=match):
        parse_contestant(word)


def test_names_must_differ():
    with pytest.raises(UserError, match="two contestants are called 'clip'"):
        parse_contestants(["clip", "clip"])
    assert len(parse_contestants(["clip", "clip:dim=3", "clip:dim=4"])) == 3


def test_own_settings_go_over_shared_ones_and_these_over_the_recipe():
    recipe = Recipe("", {"model": {"dim": 10, "dropout": 0.5}, "train": {"epochs": 3, "seed": 4}})
    both = parse_contestants(["clip", "own=clip:model.dim=30"])
    contest = make_contest(both, recipe=recipe, settings={"dim": "20"})
    assert (contest.plans["clip"].model.dim, contest.plans["own"].model.dim) == (20, 30)
    assert contest.plans["own"].model.dropout == 0.5
    assert contest.seed == 4
    assert contest.plan("own", 7).train.seed == 7
    assert make_contest(both, settings={"train.seed": "9"}).seed == 9


def test_what_only_some_know_is_told_and_what_nobody_knows_refused():
    both = parse_contestants(["clip", "mapper"])
    contest = make_contest(both, settings={"margin": "0.5", **TOWERS})
    assert contest.plans["mapper"].model.margin == 0.5
    assert "margin is not a setting of clip, and so not given there" in contest.notes
    sections = {"model": {"hardest_after": 5}}
    told = make_contest(both, recipe=Recipe("", sections), settings=TOWERS)
    assert told.plans["mapper"].model.hardest_after == 5
    with pytest.raises(UserError, match="unknown setting 'margn'; did you mean 'margin'"):
        make_contest(both, settings={"margn": "0.5"})
    with pytest.raises(UserError, match="'hardest_aftr'; did you mean 'hardest_after'"):
        make_contest(both, recipe=Recipe("", {"model": {"hardest_aftr": 5}}))
    with pytest.raises(UserError, match=r"own: unknown setting 'margin'"):
        make_contest(parse_contestants(["own=clip:margin=3", "mapper"]))
    with pytest.raises(UserError, match=r"clip: setting dim='-1'"):
        make_contest(both, settings={"dim": "-1"})


def test_other_towers_or_budgets_are_told():
    two = parse_contestants(["clip", "long=clip:epochs=20", "mapper"])
    notes = make_contest(two).notes
    assert "not the same budget: epochs is 10.0 for clip and mapper, 20.0 for long" in notes
    assert any(note.startswith("not the same towers: image_encoder is vit for clip and long") for note in notes)
    assert make_contest(parse_contestants(["clip", "siglip"])).notes == ()


def test_the_command_of_a_run_makes_the_same_plan():
    contest = make_contest(
        parse_contestants(["clip:image_blocks=2,2,2"]),
        recipe=Recipe("", {"model": {"mirror": True}, "train": {"betas": [0.9, 0.95]}}),
        settings={"lr": "3e-4", "batch_size": "8"},
    )
    (name,) = contest.plans
    plan = contest.plan(name, 5)
    words = shlex.split(command_for(plan, data="a b.csv", out=Path("cmp/x"), options={"--caption-column": "t"}))
    assert words[:6] == ["diptych", "train", "clip", "a b.csv", "--out", "cmp/x"]
    assert words[6:8] == ["--caption-column", "t"]
    typed = dict(word.split("=", 1) for word in words[9::2])
    assert make_plan("clip", settings=typed) == plan
