"""Why a caption says what it says: for each of its words the parts of the picture without which it becomes unlikely."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diptych.core.batch import Batch
from diptych.data.tokenizer import Tokenizer
from diptych.explain.occlusion import without_parts
from diptych.explain.words import read_by, tokens_of_words
from diptych.models.captioning import CaptionModel


@torch.no_grad()
def maps_of_words(
    model: CaptionModel, tokenizer: Tokenizer, image: Shaped[Tensor, "c h w"], text: str, *, context: int
) -> tuple[Float[Tensor, "k i j"], float]:
    """Cover one part of a picture after another, and see which words of a text the model then doubts.

    Args:
        model: in evaluation mode.
        tokenizer: of its words.
        image: of the model's size, on its device.
        text: what it wrote, or any other.
        context: the most tokens that the model reads.

    Returns:
        For each word and each cell of a grid the fall of its log-probability, in nats, >= 0; zeros for a word that
        was cut off. And the log-probability of the whole text.
    """
    tokens, content = read_by(tokenizer, text, min(context, model.config.text_context))

    def words(images: Tensor) -> Tensor:
        levels, mask = model.look(Batch(image=images))
        told = tokens.to(images.device).expand(len(images), -1)
        return model.log_probs(told, torch.ones_like(told, dtype=torch.bool), levels, mask)

    falls = without_parts(words, image).cpu()
    falls = torch.cat([torch.zeros_like(falls[:1]), falls]) * content[:, None, None]  # the begin mark is given
    places = [own for _, own in tokens_of_words(tokenizer, text, len(tokens))]
    return torch.stack([falls[own].sum(0) for own in places]), float(words(image[None]).sum())
