"""Tip-Adapter: the shots are a memory of keys and labels whose answer is added to the zero-shot scores.

Reference:
    Zhang et al. 2021, arXiv 2111.03930: scores = s f W + alpha exp(-beta (1 - f F)) L; without training, or the keys F
    learnt (-F). Their released code chooses the epoch of -F on the test set; here validation chooses epoch, alpha and
    beta. Keys are features of the pictures as they are, where they average over ten random crops. They learn from
    crops, which never equal a key; here a picture does not see its own key while F is learnt. Alpha counts in
    hundredths of the model's scale, since the paper's belong to a scale of 100.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diptych.fewshot.shots import Classifier, Shots, choose

ALPHA, BETA = 1.0, 5.5
"""Where the paper begins, for a scale of 100."""

ALPHAS = (0.0, *(0.01 * 2.0**step for step in range(17)))
BETAS = tuple(0.25 * 2.0 ** (step / 2) for step in range(17))


def remembered(
    image: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], values: Float[Tensor, "n c"], *, beta: float
) -> Float[Tensor, "b c"]:
    """Return what the memory says: for each class the sum of exp(-beta (1 - cosine)) over its keys."""
    return torch.exp(beta * (image @ keys.T - 1)) @ values


def tip_adapter(shots: Shots) -> Classifier:
    """Add the memory's answer to the zero-shot scores, without any training; validation chooses alpha and beta.

    Returns:
        A classifier that is the zero-shot one when the chosen alpha is 0.
    """
    values = _one_hot(shots)
    return _classifier(shots, shots.image, values, *_search(shots, shots.image, values))


def tip_adapter_f(
    shots: Shots, *, seed: int = 0, epochs: int = 20, lr: float = 1e-3, batch_size: int = 256
) -> Classifier:
    """Learn the keys by cross-entropy, with the alpha and beta that suit them as they were drawn.

    Validation chooses the epoch, alpha and beta for its keys, and whether they are better than those that were drawn.

    Args:
        shots: what to learn from.
        seed: of the order.
        epochs: over the shots; with 0 of them chosen, the keys stay as they were drawn.
        lr: of AdamW, falling along a cosine.
        batch_size: pictures a step.
    """
    values = _one_hot(shots)
    alpha, beta = _search(shots, shots.image, values)
    alpha = alpha if alpha > 0 else ALPHA * shots.scale / 100  # at 0 nothing would be learnt
    keys = shots.image.clone().requires_grad_()
    optimizer = torch.optim.AdamW([keys], lr=lr, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * -(-len(keys) // batch_size)))
    generator = torch.Generator().manual_seed(seed)
    tried = [(0, shots.image)]
    for epoch in range(1, epochs + 1):
        for rows in torch.split(torch.randperm(len(keys), generator=generator).to(keys.device), batch_size):
            scores = _scores_of_others(shots, keys, values, rows, alpha=alpha, beta=beta)
            loss = F.cross_entropy(scores, shots.label[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        tried.append((epoch, keys.detach().clone()))
    rated = ((each, _classifier(shots, each[1], values, alpha, beta).score(shots.valid_image)) for each in tried)
    best = choose(rated, shots.valid_label, usual=tried[-1])
    made = [(epoch, _classifier(shots, own, values, *_search(shots, own, values))) for epoch, own in (tried[0], best)]
    final = ((each, each[1].score(shots.valid_image)) for each in made)
    epoch, chosen = choose(final, shots.valid_label, usual=made[-1])
    return Classifier(chosen.score, {"epoch": float(epoch), **chosen.chosen})


def _scores_of_others(
    shots: Shots,
    keys: Float[Tensor, "n d"],
    values: Float[Tensor, "n c"],
    rows: Int[Tensor, " b"],
    *,
    alpha: float,
    beta: float,
) -> Float[Tensor, "b c"]:
    """Score some shots by the names and by every key but their own, which would find itself."""
    image = shots.image[rows]
    near = torch.exp(beta * (image @ keys.T - 1))
    near = near.scatter(1, rows[:, None], 0.0)
    return shots.scale * image @ shots.text.T + alpha * near @ values


def _search(shots: Shots, keys: Float[Tensor, "n d"], values: Float[Tensor, "n c"]) -> tuple[float, float]:
    """Choose alpha and beta on validation; among equals the smallest alpha."""
    names = shots.scale * shots.valid_image @ shots.text.T
    said = {beta: remembered(shots.valid_image, keys, values, beta=beta) for beta in BETAS}
    unit = shots.scale / 100
    tried = (((unit * alpha, beta), names + unit * alpha * said[beta]) for alpha in ALPHAS for beta in BETAS)
    return choose(tried, shots.valid_label, usual=(unit * ALPHA, BETA))


def _classifier(
    shots: Shots, keys: Float[Tensor, "n d"], values: Float[Tensor, "n c"], alpha: float, beta: float
) -> Classifier:
    def score(image: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        return shots.scale * image @ shots.text.T + alpha * remembered(image, keys, values, beta=beta)

    return Classifier(score, {"alpha": alpha, "beta": beta})


def _one_hot(shots: Shots) -> Float[Tensor, "n c"]:
    return F.one_hot(shots.label, len(shots.text)).to(shots.image.dtype)
