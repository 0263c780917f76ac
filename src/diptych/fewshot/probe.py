"""Linear probe: logistic regression on the features, its strength chosen on validation; the names are not looked at.

Reference:
    Radford et al. 2021, arXiv 2103.00020, section 3.2 and appendix A.3: L-BFGS, strength by a sweep. They read the
    image tower before its projection; here the vectors of the joint space, as all other methods do. The sweep has
    fewer strengths, each fit begun from the one before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diptych.fewshot.shots import Classifier, Shots, choose

STRENGTHS = tuple(10.0**power for power in range(-2, 6))
"""C of the sweep: the weight of the data against that of small weights, as in scikit-learn."""

Line = tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]


def fit_logistic(
    image: Float[Tensor, "n d"],
    label: Int[Tensor, " n"],
    *,
    classes: int,
    strength: float,
    start: Line | None = None,
    steps: int = 1000,
    tolerance: float = 1e-6,
) -> Line:
    """Minimise C * sum of cross-entropies + |W|^2 / 2, the bias free, as scikit-learn's LogisticRegression does.

    Args:
        image: features; computed in their precision.
        label: classes, from 0.
        classes: how many there are.
        strength: C > 0; more follows the data closer.
        start: weights and bias to begin from; zero when None.
        steps: of L-BFGS at most.
        tolerance: it ends when no entry of the gradient, a picture, is larger.

    Returns:
        Weights and bias of each class.
    """
    weight = torch.zeros(classes, image.shape[1], dtype=image.dtype) if start is None else start[0].clone()
    bias = torch.zeros(classes, dtype=image.dtype) if start is None else start[1].clone()
    weight, bias = (value.to(image).requires_grad_() for value in (weight, bias))
    decay = 0.5 / (strength * len(image))
    bfgs = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        bfgs.zero_grad()
        loss = F.cross_entropy(image @ weight.T + bias, label) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    bfgs.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def linear_probe(shots: Shots, *, steps: int = 100) -> Classifier:
    """Fit a logistic regression for each strength of the sweep and keep the one that validation likes best.

    The weights of the best fit lie in the span of the pictures, so that fewer pictures than dimensions are fitted in
    a basis of that span: the same result from smaller matrices.
    """
    few = len(shots.image) < shots.image.shape[1]
    basis = torch.linalg.qr(shots.image.T).Q if few else None
    image = shots.image if basis is None else shots.image @ basis
    fits: list[tuple[float, Line]] = []
    for strength in STRENGTHS:
        start = fits[-1][1] if fits else None
        line = fit_logistic(
            image, shots.label, classes=len(shots.text), strength=strength, start=start, steps=steps, tolerance=1e-5
        )
        fits.append((strength, line))
    whole = [(strength, (line[0] if basis is None else line[0] @ basis.T, line[1])) for strength, line in fits]
    tried = ((fit, shots.valid_image @ fit[1][0].T + fit[1][1]) for fit in whole)
    strength, (weight, bias) = choose(tried, shots.valid_label, usual=whole[len(whole) // 2])
    return Classifier(lambda image: image @ weight.T + bias, {"C": strength})
