"""What a model offers is told by its interfaces alone, and everything that is offered can be asked for."""

from __future__ import annotations

from diptych.cli.main import app
from diptych.core.abilities import ABILITIES, abilities, cannot
from diptych.core.model import Captioner, Model, PairEncoder
from diptych.predictor import Predictor
from tests.models.systems import CASES


def built(system: str) -> Model:
    return next(case for case in CASES if case.system == system).build()


def test_each_system_offers_what_its_interfaces_say():
    model = built("clip")
    assert [ability.offered for ability in abilities(model)] == [PairEncoder]


def test_a_refusal_names_a_system_that_can():
    for ability in ABILITIES:
        assert isinstance(built(ability.refusal.split("; ")[1].split()[0]), ability.offered)


def test_examples_call_what_there_is():
    verbs = {command.callback.__name__ for command in app.registered_commands}
    for ability in ABILITIES:
        assert callable(getattr(Predictor, ability.python.removeprefix("model.").split("(")[0]))
        assert ability.command.format(run="RUN").split()[1] in verbs


def test_the_refusal_tells_the_system():
    model = built("clip")
    assert str(cannot(model, Captioner)) == "CLIP does not write captions; meshed_memory does"
    assert str(cannot(model, Captioner, system="my.clip")).startswith("my.clip does not")
