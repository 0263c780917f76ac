"""Beam search against transformers' generate, on the same weights."""

import pytest
import torch
from benchmarks.decode import LONGEST, MARKS, as_gpt2, generate
from torch import nn

from diptych.core.writing import Writing
from diptych.nn.decode import write
from diptych.nn.decoder import PlainLayer, WordDecoder

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(1)
    layers = [PlainLayer(32, 4, hidden=48) for _ in range(2)]
    positions = nn.Parameter(torch.randn(LONGEST, 32))
    decoder = WordDecoder(layers, 32, vocabulary=14, positions=positions, norm=True, tied=True).eval()
    nn.init.normal_(decoder.embedding.weight, std=0.3)
    for layer in layers:  # what is said, and when it ends, shall depend on what is looked at
        nn.init.normal_(layer.cross.out.weight, std=1.0)
    return decoder, as_gpt2(decoder)


def told(row):
    """Return a text up to its end; what fills the rest is each one's own affair, and no word here."""
    text = row.tolist()
    text = text[: text.index(MARKS.eos) + 1] if MARKS.eos in text else text
    return text + [MARKS.pad] * (LONGEST - len(text))


@pytest.mark.parametrize(("beams", "power"), [(1, 0.0), (2, 0.0), (5, 0.0), (5, 1.0), (4, 0.6), (4, -0.5)])
@pytest.mark.parametrize("shortest", [1, 6])
def test_the_texts_are_those_of_transformers(both, beams, power, shortest):
    decoder, model = both
    cells = torch.randn(24, 7, 32)
    writing = Writing(beams=beams, longest=LONGEST, shortest=shortest, length_power=power)
    ours = write(decoder.begin([cells]), 24, MARKS, writing)
    theirs = generate(model, cells, beams, shortest=shortest, power=power)
    assert [told(row) for row in ours.tokens[:, 0]] == [told(row) for row in theirs]
    assert len(set(ours.mask[:, 0].sum(1).tolist())) > 1, "texts should end at different places"
