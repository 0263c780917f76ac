import json

import pytest

from diptych.core.errors import UserError
from diptych.models.align.clip import Config
from diptych.tasks.pairs import Settings
from diptych.train.config import TrainConfig
from diptych.train.folder import where_to_start


@pytest.fixture
def begun(tmp_path):
    """A run folder with a state, as an older diptych left it: it did not know every setting of today."""
    record = {
        "system": "clip",
        "config": Config().model_dump(mode="json"),
        "spec": {"vocabulary": 300},
        "data": {"named": "x"} | Settings().model_dump(mode="json", exclude={"workers"}),
    }
    old = json.loads(json.dumps(record | {"train": TrainConfig().model_dump(mode="json")}))
    for part, name in (("config", "mirror"), ("data", "labels"), ("train", "ema")):
        del old[part][name]
    state = tmp_path / "resume" / "000000000010"
    state.mkdir(parents=True)
    (state / "state.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps(old))
    return tmp_path, record


def test_a_setting_that_came_later_has_its_default_in_an_old_run(begun, monkeypatch):
    folder, record = begun
    monkeypatch.setattr("diptych.train.folder.latest", lambda out: out / "resume")
    assert where_to_start(folder, record, TrainConfig()) == folder / "resume"


@pytest.mark.parametrize(("part", "name", "value"), [("config", "mirror", True), ("data", "labels", True)])
def test_but_another_value_of_it_is_another_run(begun, monkeypatch, part, name, value):
    folder, record = begun
    monkeypatch.setattr("diptych.train.folder.latest", lambda out: out / "resume")
    with pytest.raises(UserError, match=f"{part}.{name} was False and is now True"):
        where_to_start(folder, {**record, part: {**record[part], name: value}}, TrainConfig())
