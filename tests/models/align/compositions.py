"""Pictures of two objects as their regions (place, colour, shape and noise), and sentences that tell who is where.

Each picture comes with its swaps: the objects change places, or colours. The sentence of a swap has the same words.
"""

import torch

from diptych import models
from diptych.core.batch import Batch, DataSpec, States

WORDS = ("pad", "begin", "end", "a", "red", "green", "blue", "pink", "circle", "square", "star", "heart")
WORDS += ("left", "right", "above", "below", "of")
WIDTH = 16
SPEC = DataSpec(image_size=16, vocabulary=len(WORDS), context=10, pad_id=0, bos_id=1, eos_id=2)
SMALL = {"image_patch": 8, "image_dim": WIDTH, "image_layers": 1, "image_heads": 2}
SMALL |= {"text_dim": 32, "text_layers": 2, "text_heads": 2, "text_context": 10, "dim": 32}
ACROSS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}


def make(system, **settings):
    module = models.load(system)
    values = {name: value for name, value in SMALL.items() if name in module.Config.model_fields}
    return module.build(module.Config.parse(values | settings), SPEC)


def draw(count, *, seed):
    """Draw `count` scenes with their three swaps: rows 4i to 4i + 3 are as drawn, places swapped, colours, both."""
    random = torch.Generator().manual_seed(seed)
    regions, texts = [], []
    for _ in range(count):
        colours = torch.randperm(4, generator=random)[:2].tolist()
        shapes = torch.randperm(4, generator=random)[:2].tolist()
        relation = list(ACROSS)[int(torch.randint(4, (1,), generator=random))]
        along = torch.tensor(ACROSS[relation])
        middle = torch.rand(2, generator=random) - 0.5
        gap = 0.3 + 0.5 * torch.rand(1, generator=random)
        for painted in (colours, colours[::-1]):
            for side in (1.0, -1.0):
                places = (middle + side * gap * along, middle - side * gap * along)
                regions.append(torch.stack([_region(*it, random) for it in zip(places, painted, shapes, strict=True)]))
                order = (0, 1) if side > 0 else (1, 0)
                texts.append(_sentence(relation, *((painted[i], shapes[i]) for i in order)))
    tokens = torch.tensor(texts)
    stacked = torch.stack(regions)
    return Batch(
        image_states=States(stacked, torch.ones(stacked.shape[:2], dtype=torch.bool), stacked.mean(1)),
        tokens=tokens,
        token_mask=tokens != 0,
        pair_id=torch.arange(len(tokens)),
    )


def _region(place, colour, shape, random):
    hot = torch.zeros(WIDTH)
    hot[:2] = place
    hot[2 + colour] = hot[6 + shape] = 1
    return hot + 0.05 * torch.randn(WIDTH, generator=random)


def _sentence(relation, one, other):
    said = [WORDS.index("a"), 4 + one[0], 8 + one[1], WORDS.index(relation)]
    said += [WORDS.index("of")] if relation in ("left", "right") else []
    said += [WORDS.index("a"), 4 + other[0], 8 + other[1]]
    padding = [0] * (SPEC.context - len(said) - 2)
    return [SPEC.bos_id, *said, SPEC.eos_id, *padding]


def bag(batch):
    """Take the words without their order: each is only itself."""
    hot = torch.nn.functional.one_hot(batch.tokens, SMALL["text_dim"]).float()
    return Batch(
        image_states=batch.image_states,
        text_states=States(hot, batch.token_mask, hot.mean(1)),
        pair_id=batch.pair_id,
    )


def learn(model, *, steps, change=lambda batch: batch):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        optimizer.zero_grad()
        model.loss(change(draw(16, seed=step + 1))).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.after_step()
    return model.eval()


@torch.no_grad()
def told_apart(score):
    """Return how often a picture prefers its own sentence to that of its swap, places and then colours; ties half."""
    own, places, colours = (score[torch.arange(len(score)), torch.arange(len(score)) ^ turn] for turn in (0, 1, 2))
    return [
        ((own > other + 1e-5).double() + 0.5 * ((own - other).abs() <= 1e-5).double()).mean().item()
        for other in (places, colours)
    ]
