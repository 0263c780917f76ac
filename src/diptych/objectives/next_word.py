"""The loss of writing word by word: cross-entropy of each next word, in nats a text."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def next_word(
    logits: Float[Tensor, "n v"], target: Int[Tensor, " n"], *, texts: int, smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Add up the cross-entropies of the words of some texts.

    A mean over texts, not over words, so that it is the same however a batch is cut into parts or processes.

    Args:
        logits: of each next word, the real ones of all texts in a row.
        target: the words that came.
        texts: how many texts they are of.
        smoothing: share of the target in [0, 1) that is spread evenly over all words.

    Returns:
        Nats a text, and for the log nats a word without smoothing, detached. Logits that are all the same cost ln(v) a
        word, with and without smoothing.
    """
    log_prob = logits.float().log_softmax(-1)
    right = -log_prob.gather(1, target.unsqueeze(1)).sum()
    total = right
    if smoothing > 0:
        total = (1 - smoothing) * right - smoothing * log_prob.mean(1).sum()
    return total / max(1, texts), right.detach() / max(1, len(target))
