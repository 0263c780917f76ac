"""Predictor: what a system that looks at picture and text together gives beside its vectors."""

import numpy as np
import pytest
import torch

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.data.scenes import open_scenes
from diptych.data.tokenizer import Tokenizer
from diptych.predictor import Predictor
from diptych.search.folder import FolderIndex
from tests.models.systems import SMALL

TEXT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def source():
    return open_scenes("scenes:20?size=16")


def make(source, system):
    tokenizer = Tokenizer.train(source.texts(np.arange(20)), vocabulary=300)
    spec = DataSpec(image_size=16, vocabulary=tokenizer.vocabulary, context=8)
    module = models.load(system)
    values = {name: value for name, value in SMALL.items() if name in module.Config.model_fields}
    torch.manual_seed(0)
    return Predictor(module.build(module.Config.parse(values), spec), tokenizer, spec, identity="m", system=system)


@pytest.fixture
def index(source, tmp_path):
    with FolderIndex.create(tmp_path / "index", dim=SMALL["dim"], model="m") as made:
        vectors = make(source, "sgraf").embed_image([source.picture(row) for row in range(20)])
        made.add([str(row) for row in range(20)], vectors)
        yield made


def test_the_nearest_are_put_in_the_order_of_their_scores(source, index):
    predictor = make(source, "sgraf")
    scores = predictor.scores([source.picture(row) for row in range(20)], TEXT)[:, 0]
    looked: list[str] = []

    def picture_of(hit):
        looked.append(hit.key)
        return source.picture(int(hit.key))

    hits = predictor.search(TEXT, index, k=5, picture_of=picture_of)
    assert [int(hit.key) for hit in hits] == np.argsort(-scores, kind="stable")[:5].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:5], rtol=1e-5, atol=1e-6)
    assert len(looked) == 20
    looked.clear()
    near = predictor.search(TEXT, index, k=5)
    few = predictor.search(TEXT, index, k=2, picture_of=picture_of, candidates=5)
    assert looked == [hit.key for hit in near]
    assert {hit.key for hit in few} <= set(looked)
    assert len(few) == 2


def test_a_picture_finds_pictures_by_vectors_alone(source, index):
    hits = make(source, "sgraf").search(source.picture(3), index, k=3, picture_of=lambda hit: source.picture(0))
    assert hits[0].key == "3"
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_system_of_vectors_alone_has_no_scores(source):
    with pytest.raises(UserError, match="clip compares vectors alone; use similarity, or train sgraf"):
        make(source, "clip").scores(source.picture(0), TEXT)
