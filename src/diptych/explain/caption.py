"""Why a caption says what it says: for each of its words the parts of the picture that it comes from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diptych.core.batch import Batch
from diptych.data.tokenizer import Tokenizer
from diptych.explain.told import Told, maps_of
from diptych.explain.words import read_by, tokens_of_words
from diptych.models.captioning import CaptionModel


def maps_of_words(
    model: CaptionModel,
    tokenizer: Tokenizer,
    image: Shaped[Tensor, "c h w"],
    text: str,
    *,
    context: int,
    method: str = "auto",
) -> tuple[Float[Tensor, "k i j"], float]:
    """Say where in a picture each word of a text comes from.

    Args:
        model: in evaluation mode.
        tokenizer: of its words.
        image: of the model's size, on its device.
        text: what it wrote, or any other.
        context: the most tokens that the model reads.
        method: as `maps_of` takes it.

    Returns:
        For each word evidence in each cell of a grid, >= 0; zeros for a word that was cut off. And the log-probability
        of the whole text in nats.

    Raises:
        UserError: for a method that cannot see into this model.
    """
    words = words_told(model, tokenizer, text, context=context)
    found = maps_of(words, model, image, method=method)
    falls = torch.cat([torch.zeros_like(found[:1]), found])  # the begin mark is given
    places = [own for _, own in tokens_of_words(tokenizer, text, len(falls))]
    with torch.no_grad():
        score = float(words(Batch(image=image[None])).sum())
    return torch.stack([falls[own].sum(0) for own in places]), score


def words_told(model: CaptionModel, tokenizer: Tokenizer, text: str, *, context: int) -> Told:
    """Return what gives the log-probability of each token of a text but the first, in nats."""
    tokens, _ = read_by(tokenizer, text, min(context, model.config.text_context))

    def told(pictures: Batch) -> Tensor:
        levels, mask = model.look(pictures)
        texts = tokens.to(levels[0].device).expand(len(pictures), -1)
        return model.log_probs(texts, torch.ones_like(texts, dtype=torch.bool), levels, mask)

    return told
