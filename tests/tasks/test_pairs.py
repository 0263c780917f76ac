"""Pairs: which captions a batch draws, what a gallery holds, and how it is scored."""

import numpy as np
import pytest
import torch

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Loss, Model, PairEncoder
from diptych.data.scenes import open_scenes
from diptych.data.tokenizer import Tokenizer
from diptych.models import load
from diptych.tasks.pair_data import PairData, PairSettings
from diptych.tasks.retrieval import retrieve

SPEC = DataSpec(image_size=16, vocabulary=300, context=100)


@pytest.fixture(scope="module")
def source():
    return open_scenes("scenes:300")


@pytest.fixture(scope="module")
def tokenizer(source):
    return Tokenizer.train(source.texts(source.rows("train")), vocabulary=300)


def make(source, tokenizer, **settings) -> PairData:
    return PairData(source, tokenizer, SPEC, PairSettings(**{"batch_size": 24, **settings}))


def test_each_epoch_draws_other_captions_and_the_same_epoch_the_same(source, tokenizer):
    loader = make(source, tokenizer).training()
    first, again, second = (next(loader.epoch(epoch)) for epoch in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.pair_id, second.pair_id)
    assert len(set(first.pair_id.tolist())) == 24


def test_several_captions_of_a_picture_stand_together_and_differ(source, tokenizer):
    batch = next(make(source, tokenizer, captions=3).training().epoch(0))
    assert len(batch) == 24
    ids = batch.pair_id.view(8, 3)
    assert (ids == ids[:, :1]).all()
    assert len(set(ids[:, 0].tolist())) == 8
    assert torch.equal(batch.image[0], batch.image[2])
    for example, rows in zip(ids[:, 0].tolist(), batch.tokens.view(8, 3, -1), strict=True):
        different = len(set(source.row(example).captions))
        assert len({tuple(row) for row in rows.tolist()}) >= min(3, different - 2)


def test_a_batch_that_cannot_be_shared_says_what_fits(source, tokenizer):
    with pytest.raises(UserError, match="not a multiple of 1 processes with 5 captions a picture; use 20"):
        make(source, tokenizer, captions=5).training()


def test_a_gallery_has_every_picture_and_every_caption_once(source, tokenizer):
    gallery = make(source, tokenizer).gallery("test")
    rows = source.rows("test")
    images = [batch for batch in gallery.epoch() if batch.tokens is None]
    texts = [batch for batch in gallery.epoch() if batch.tokens is not None]
    assert torch.equal(torch.cat([batch.pair_id for batch in images]), torch.from_numpy(rows))
    wanted = np.repeat(rows, [len(source.row(int(row)).captions) for row in rows])
    assert torch.equal(torch.cat([batch.pair_id for batch in texts]), torch.from_numpy(wanted))
    assert len(images) + len(texts) == len(gallery)
    late = list(gallery.epoch(0, 1))
    assert len(late) == len(gallery) - 1
    assert torch.equal(late[-1].tokens, texts[-1].tokens)


def test_equal_sentences_of_two_pictures_are_both_right():
    class Given(Model, PairEncoder):
        """Vectors stand in the tokens and pixels."""

        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(()))

        def loss(self, batch, phase="main"):
            return Loss(self.one)

        def encode_image(self, batch):
            return batch.image[:, :, 0, 0].float()

        def encode_text(self, batch):
            return torch.nn.functional.one_hot(batch.tokens[:, 0], 3).float()

        def scale(self):
            return self.one

    eye = torch.eye(3)[:, :, None, None]
    images = Batch(image=eye, pair_id=torch.tensor([10, 20, 30]))
    # the third picture's text is the sentence of the first one: each of the two pictures is right for it
    texts = Batch(
        tokens=torch.tensor([[0], [1], [0]]), token_mask=torch.ones(3, 1).bool(), pair_id=torch.tensor([10, 20, 30])
    )
    scores = retrieve(Given(), [images, texts])
    assert scores["text_to_image"]["r@1"] == 1.0
    assert scores["image_to_text"]["r@1"] == pytest.approx(2 / 3)


def test_a_system_without_a_common_space_has_no_retrieval():
    module = load("mae")
    built = module.build(module.Config.parse({}), SPEC.model_copy(update={"image_size": 32}))
    with pytest.raises(UserError, match="in one space"):
        retrieve(built, [])
