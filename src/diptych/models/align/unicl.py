"""UniCL: a dual encoder that learns from captions and class labels alike; whoever shares a label is a positive.

Each row belongs to a group: its label where it has one (>= 0), or else its caption, so that the same words under two
pictures are right for both. A caption whose very words tell a label elsewhere in the batch has that label. Captions
are compared by a hash of their tokens, the same on every process. Rows that show the same picture belong together
too, and groups that are joined so become one. Pictures that have a label and no caption are told in words by the data
(`prompts`), and their labels come with them. With a hierarchical image tower and two stages this is Florence: see the
recipes `florence` and `florence-high`.

Reference:
    Yang et al. 2022, arXiv 2204.03610. The paper adds the two directions; here they are averaged, so that the loss
    equals CLIP's where every row is a group of its own. Groups by caption are Florence's (Yuan et al. 2021, arXiv
    2111.11432, where a hash table gives each caption its label). Where a frozen text tower's outputs stand in for the
    tokens, captions are equal when these are.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.model import Loss
from diptych.core.runtime import gather, rank
from diptych.encoders.dual import CoupledEncoder, DualConfig
from diptych.encoders.towers import build_image, build_text
from diptych.objectives.contrastive import contrastive

# Odd, so that no token loses its weight however far it stands; otherwise arbitrary.
MULTIPLIER = 0x9E3779B97F4A7C15


class Config(DualConfig):
    """What a UniCL is made of: towers, readers and a scale, all inherited."""


class UniCL(CoupledEncoder):
    """Two towers under the contrastive loss with all rows of a group as positives."""

    def compare(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        """Return the symmetric contrastive loss over groups, in nats."""
        scale = self.scale()
        total = contrastive(image, text, scale, group=groups(batch))
        return Loss(total, {"contrastive": total.detach(), "scale": scale.detach()})


def groups(batch: Batch) -> Int[Tensor, " b"]:
    """Number the rows so that two share a number exactly when they are positives of each other, on every process."""
    if batch.text_states is not None and batch.tokens is None:
        bits = batch.text_states.summary.float().contiguous().view(torch.int32).long()
        texts = hashed(bits, torch.ones_like(bits, dtype=torch.bool))
    else:
        texts = hashed(batch.need("tokens"), batch.need("token_mask"))
    if batch.label is None and batch.pair_id is None:
        return texts
    names = gather(texts) if batch.label is None else named(gather(texts), gather(batch.label))
    joined = names if batch.pair_id is None else join(names, gather(batch.pair_id))
    return joined[rank() * len(texts) : (rank() + 1) * len(texts)]


def named(texts: Int[Tensor, " n"], label: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Name each row by its label; one without takes the label that its very words have elsewhere, or else its words.

    Args:
        texts: the hash of each row's words.
        label: below 0 where a row has none.
    """
    none = torch.iinfo(torch.long).max
    known, number = torch.unique(texts, return_inverse=True)
    labels = torch.where(label >= 0, label, none)
    smallest = torch.full_like(known, none).scatter_reduce(0, number, labels, "amin")[number]
    return torch.where(label >= 0, label, torch.where(smallest < none, smallest, texts))


def hashed(tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Hash each row's real tokens to 64 bits; padding changes nothing."""
    weights, power = [], 1
    for _ in range(tokens.shape[1]):
        power = power * MULTIPLIER % 2**64
        weights.append(power - 2**64 if power >= 2**63 else power)
    each = (tokens.long() + 1) * torch.tensor(weights, dtype=torch.long, device=tokens.device)
    return each.masked_fill(~mask, 0).sum(1)


def join(names: Int[Tensor, " n"], pictures: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Join groups that a picture connects: rows get one number if their name or their picture is the same, and so on.

    Args:
        names: of the groups as they are.
        pictures: what each row shows.

    Returns:
        For each row a number of its group, from 0.
    """
    links = [torch.unique(side, return_inverse=True)[1] for side in (names, pictures)]
    number = torch.arange(len(names), device=names.device)
    while True:
        before = number
        for link in links:
            smallest = number.scatter_reduce(0, link, number, "amin", include_self=False)
            number = smallest[link]
        if torch.equal(number, before):
            return number


def build(config: Config, spec: DataSpec) -> UniCL:
    """Build the towers the config names for the data the spec describes."""
    return UniCL(build_image(config, spec), build_text(config, spec), config)
