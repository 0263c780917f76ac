"""Generative adversarial losses: a critic tells real pictures from drawn ones, and right texts from wrong ones.

Everything is a function of logits: a picture counts as real with probability sigmoid(logit).

Reference: Goodfellow et al. 2014, arXiv 1406.2661 (the game, and its non-saturating form); Reed et al. 2016, arXiv
1605.05396 (matching-aware critic, GAN-CLS); Lim and Ye 2017, arXiv 1705.02894 (hinge).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import unknown


def value(real: Float[Tensor, " b"], drawn: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the value of the game, which the critic raises and the generator lowers.

    Returns:
        E log D(real) + E log(1 - D(drawn)) in nats: -2 ln 2 for a critic that cannot tell, at most 0.
    """
    return F.logsigmoid(real).mean() + F.logsigmoid(-drawn).mean()


def as_real(logits: Float[Tensor, " b"], *, game: str = "logistic") -> Float[Tensor, " b"]:
    """Return what each logit costs a critic that should have called it real.

    Args:
        logits: of pictures with their texts.
        game: "logistic" (nats) or "hinge" (up to a margin of 1).

    Raises:
        UserError: for another game.
    """
    if game == "hinge":
        return F.relu(1 - logits)
    if game != "logistic":
        raise unknown("game", game, ("logistic", "hinge"))
    return F.softplus(-logits)


def as_false(logits: Float[Tensor, " b"], *, game: str = "logistic") -> Float[Tensor, " b"]:
    """Return what each logit costs a critic that should not have called it real; as `as_real` of the opposite."""
    return as_real(-logits, game=game)


def critic_loss(
    real: Float[Tensor, ""], wrong: Float[Tensor, ""], drawn: Float[Tensor, ""], *, cls_weight: float
) -> Float[Tensor, ""]:
    """Weigh the three errors of a matching-aware critic.

    Args:
        real: cost of real pictures with their own texts.
        wrong: cost of real pictures with texts of others.
        drawn: cost of drawn pictures with the texts that they were drawn for.
        cls_weight: share of `wrong` among what is false, in [0, 1): 0 is the plain conditional GAN; at 1 the critic
            would never see a drawn picture.

    Returns:
        Their sum, in which real and false weigh the same.
    """
    return real + cls_weight * wrong + (1 - cls_weight) * drawn


def generator_loss(
    drawn: Float[Tensor, " b"], *, game: str = "logistic", saturating: bool = False
) -> Float[Tensor, ""]:
    """Return the loss of a generator from the critic's logits of what it drew.

    Args:
        drawn: logits.
        game: "logistic" or "hinge".
        saturating: the game's own log(1 - D), whose gradient -sigmoid(logit) vanishes where the critic is sure; else
            -log D, whose gradient -(1 - sigmoid(logit)) does not. Both have the gradient -1/2 at D = 1/2.

    Returns:
        The mean over the rows, in nats for the logistic game.
    """
    if game == "hinge":
        return -drawn.mean()
    if saturating:
        return F.logsigmoid(-drawn).mean()
    return as_real(drawn, game=game).mean()


def mixed(one: Float[Tensor, "b d"], other: Float[Tensor, "b d"], *, share: float) -> Float[Tensor, "b d"]:
    """Return texts between two texts: `share` of the first and the rest of the other (GAN-INT)."""
    return torch.lerp(other, one, share)
