"""Class vectors from prompts: what turns an aligned pair of encoders into a classifier without training.

Reference:
    Radford et al. 2021, arXiv 2103.00020, section 3.1.4: prompts are averaged as vectors, not as probabilities.
"""

from __future__ import annotations

from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize


def zero_shot_weights(prompts: Float[Tensor, "c p d"]) -> Float32[Tensor, "c d"]:
    """Make one unit vector per class: normalise the vector of each prompt, average, normalise again.

    Args:
        prompts: the text vectors of p prompts ("a photo of a {}.", ...) filled with each of c class names.

    Returns:
        Unit vectors; `images @ weights.T` are cosine similarities, to be judged by `diptych.metrics.classes`.
    """
    return normalize(normalize(prompts.float(), dim=-1).mean(1), dim=-1)
