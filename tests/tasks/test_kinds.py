import numpy as np
import pytest

from diptych import models, tasks
from diptych.core.errors import UserError
from diptych.data.sources import open_data
from diptych.tasks import pairs


def test_every_built_in_system_says_what_it_learns():
    for name in models.names():
        assert models.load(name).Config.learns in tasks.names(), name


def test_a_kind_is_found_by_its_name_or_refused_with_the_nearest():
    assert tasks.load("pairs").Settings is pairs.Settings
    with pytest.raises(UserError, match="pairs"):
        tasks.load("pair")
    with pytest.raises(UserError, match="needs learns"):
        tasks.load("")


def test_classes_are_read_where_they_are_asked_for():
    source = open_data("scenes:60")
    settings = pairs.Settings(labels=True, batch_size=8)
    config = models.load("clip").Config()
    tokenizer, spec = pairs.facts(source, config, settings)
    assert spec.classes == tuple(sorted(spec.classes))
    data = pairs.join(source, models.load("clip").build(config, spec), tokenizer, spec, settings)
    batch = next(data.training().epoch(0))
    named = [spec.classes[place] for place in batch.need("label").tolist()]
    assert named == [source.row(int(row)).fields["label"] for row in batch.need("pair_id")]
    assert pairs.facts(source, config, pairs.Settings())[1].classes == ()


def test_a_class_that_training_never_saw_has_no_number():
    source = open_data("scenes:60")
    config = models.load("clip").Config()
    settings = pairs.Settings(labels=True, batch_size=4)
    tokenizer, spec = pairs.facts(source, config, settings)
    fewer = spec.model_copy(update={"classes": spec.classes[:1]})
    data = pairs.join(source, models.load("clip").build(config, fewer), tokenizer, fewer, settings)
    labels = next(data.training().epoch(0)).need("label").numpy()
    assert set(np.unique(labels)) <= {-1, 0}
