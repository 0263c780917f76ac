"""AdamW with parameter groups, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.optim import AdamW

from diptych.core.model import Model, Pretrained
from diptych.encoders.base import Tower
from diptych.encoders.plan import depths
from diptych.train.config import TrainConfig


def pretrained_parameters(model: Model) -> set[nn.Parameter]:
    """Find the weights that came from elsewhere: those every `Pretrained` part of the model names."""
    return {
        parameter
        for module in model.modules()
        if isinstance(module, Pretrained)
        for parameter in module.pretrained_parameters()
    }


def layer_factors(model: Model, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor on the rate of every weight of the towers: `decay` for each block that lies above it.

    Returns:
        Nothing where `decay` is 1; else `decay` to the power of `encoders.plan.depths`.

    Raises:
        UserError: for a tower whose blocks cannot be told apart.

    Reference:
        Bao et al. 2021, arXiv 2106.08254 (BEiT); He et al. 2021, arXiv 2111.06377.
    """
    if decay == 1:
        return {}
    towers = [part for part in model.modules() if isinstance(part, Tower) and not part.frozen]
    below = [(dict(tower.named_parameters()), depths(tower)) for tower in towers]
    return {weights[name]: decay**depth for weights, found in below for name, depth in found.items()}


def decays(parameter: nn.Parameter) -> bool:
    """Tell a matrix or a kernel, which weight decay may shrink, from a bias, a gain or a temperature."""
    return sum(size > 1 for size in parameter.shape) >= 2


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    pretrained: set[nn.Parameter],
    config: TrainConfig,
    *,
    phase: str = "main",
    factors: Mapping[nn.Parameter, float] | None = None,
) -> AdamW:
    """Make AdamW over the parameters of one phase, in at most four groups for each factor.

    Args:
        parameters: those that the phase moves.
        pretrained: those that learn at `tower_lr` times the rate.
        config: rates and decay.
        phase: its name, for `phase_lr`.
        factors: on the rate of single weights; 1 where nothing is said.

    Returns:
        An optimizer whose groups carry `factor`, which `set_lr` multiplies with the rate of the step.
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        own = 1.0 if factors is None else factors.get(parameter, 1.0)
        groups.setdefault((parameter in pretrained, decays(parameter), own), []).append(parameter)
    scale = config.phase_lr.get(phase, 1.0)
    settings = [
        {
            "params": members,
            "weight_decay": config.weight_decay if decay else 0.0,
            "factor": scale * own * (config.tower_lr if tower else 1.0),
        }
        for (tower, decay, own), members in groups.items()
    ]
    first = next((member for members in groups.values() for member in members), None)
    fused = first is not None and first.device.type in ("cpu", "cuda", "mps")
    return AdamW(settings, lr=config.lr, betas=config.betas, fused=fused)


def rate(step: int, total: int, config: TrainConfig) -> float:
    """Return the learning rate of a step.

    Args:
        step: 0 for the first of `total`.
        total: steps of this stage.
        config: its `lr`, `warmup` and `schedule`.

    Returns:
        A linear rise to `lr` over the warm-up, then `lr`, or half a cosine that reaches 0 after the last step.
    """
    warm = round(config.warmup * total if config.warmup < 1 else config.warmup)
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "constant":
        return config.lr
    progress = (step - warm) / max(1, total - warm)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
