"""Alignment by distillation: features of a teacher, its similarities, or those of a moving average of the student.

No gradient ever reaches the teacher's side. Alignment by distillation needs a teacher whose space means something: a
pre-trained text tower, or a larger model of the same kind.

Reference: Hinton et al. 2015, arXiv 1503.02531; Gupta et al. 2015, arXiv 1507.00448 (across modalities); Li et al.
2021, arXiv 2107.07651 (ALBEF, momentum targets and their queue); Yang et al. 2023, arXiv 2307.12732 (CLIP-KD).
open_clip minimises the cross-entropy where this returns the KL: the gradients are equal. Unlike `contrastive`, these
hold the whole matrix of the local rows' similarities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import UserError, unknown
from diptych.core.runtime import gather, rank

MEASURES = ("cosine", "squared")


def feature_distance(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"], *, measure: str = "cosine"
) -> Float[Tensor, ""]:
    """Return how far the student's vectors are from the teacher's, row by row.

    Args:
        student: what learns.
        teacher: what is copied; no gradient.
        measure: "cosine" (1 - cosine, in [0, 2]) or "squared" (squared Euclidean distance).

    Returns:
        The mean over rows.

    Raises:
        UserError: for another measure.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    teacher = teacher.detach()
    if measure == "cosine":
        return (1 - F.cosine_similarity(student, teacher, dim=1, eps=1e-8)).mean()
    return (student - teacher).square().sum(1).mean()


def prediction_kl(
    student: Float[Tensor, "b k"], teacher: Float[Tensor, "b k"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Compare what two networks predict for each row; called both ways round it is mutual learning.

    Args:
        student: logits of what learns.
        teacher: logits of what is copied; no gradient.
        temperature: both logits are divided by it, and the loss multiplied by its square so that it keeps its weight
            beside a loss on hard labels; > 0.

    Returns:
        The mean of temperature^2 KL(teacher || student) over rows in nats; 0 when they agree.

    Raises:
        UserError: for a temperature that is not positive.

    Reference:
        Hinton et al. 2015, arXiv 1503.02531; Zhang et al. 2017, arXiv 1706.00384 (mutual).
    """
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}, allowed are positive numbers; 1 leaves the logits as they are")
    mine, theirs = (student / temperature).log_softmax(1), (teacher.detach() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def similarity_kl(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    teacher_image: Float[Tensor, "b e"],
    teacher_text: Float[Tensor, "b e"],
    *,
    teacher_scale: float,
) -> Float[Tensor, ""]:
    """Compare how teacher and student spread each row over all partners, both ways; rows of every process count.

    Args:
        image: vectors of the student.
        text: vectors of the student.
        scale: inverse temperature of the student; > 0.
        teacher_image: vectors of the teacher, of any width.
        teacher_text: vectors of the teacher.
        teacher_scale: inverse temperature of the teacher; > 0.

    Returns:
        The mean of KL(teacher || student) over rows and directions in nats; 0 when they agree.
    """
    loss = image.new_zeros(())
    teachers = _both_ways(teacher_image.detach(), teacher_text.detach(), teacher_scale)
    for mine, theirs in zip(_both_ways(image, text, scale), teachers, strict=True):
        target = theirs.log_softmax(1)
        loss = loss + F.kl_div(mine.log_softmax(1), target, reduction="batchmean", log_target=True) / 2
    return loss


@dataclass(frozen=True, slots=True)
class Queue:
    """What slow copies of the towers made of earlier batches, the same on every process; more wrong partners.

    Args:
        image: vectors of pictures.
        text: vectors of texts; row i belongs to row i of `image`.
        group: as in `momentum_contrastive`; a number that no row of the batch has makes a row wrong for all of them.
    """

    image: Float[Tensor, "q d"]
    text: Float[Tensor, "q d"]
    group: Int[Tensor, " q"]


def momentum_contrastive(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    slow_image: Float[Tensor, "b d"],
    slow_text: Float[Tensor, "b d"],
    *,
    alpha: float,
    group: Int[Tensor, " b"] | None = None,
    queue: Queue | None = None,
) -> Float[Tensor, ""]:
    """Contrast with targets that are partly what slow copies of the towers believe; rows of every process count.

    Args:
        image: vectors of the towers that learn.
        text: vectors of the towers that learn.
        scale: inverse temperature; > 0; its gradient comes from the fast side alone.
        slow_image: the same pictures from a moving average of the towers.
        slow_text: the same texts from it.
        alpha: share of the soft targets, in [0, 1]; ALBEF raises it from 0 to 0.4 over the first epoch.
        group: rows that share a number are positives of each other (captions of one picture); None: only row i is.
        queue: slow vectors of earlier batches, compared with beside those of this one.

    Returns:
        The mean cross-entropy of both directions in nats; the contrastive loss when alpha is 0 and nothing waits.

    Raises:
        UserError: for an alpha outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}, allowed is a share from 0 to 1; ALBEF ends at 0.4")
    fixed = scale.detach() if isinstance(scale, Tensor) else scale
    loss = image.new_zeros(())
    right = _right(image, group, queue)
    slow = _both_ways(slow_image.detach(), slow_text.detach(), fixed, queue)
    for fast, soft in zip(_both_ways(image, text, scale, queue), slow, strict=True):
        target = (1 - alpha) * right.to(fast.dtype) + alpha * soft.softmax(1)
        loss = loss - (target * fast.log_softmax(1)).sum(1).mean() / 2
    return loss


def _right(image: Float[Tensor, "b d"], group: Int[Tensor, " b"] | None, queue: Queue | None) -> Float[Tensor, "b n"]:
    """Return for each local row the share of the target that each partner has, the queue's behind the batch's."""
    waiting = 0 if queue is None else len(queue.group)
    if group is None:
        here = torch.arange(len(image), device=image.device)
        names = gather(here + rank() * len(image))
        mine, everybody = names[here + rank() * len(image)], F.pad(names, (0, waiting), value=-1)
    else:
        names = gather(group)
        mine, everybody = group, names if queue is None else torch.cat([names, queue.group])
    same = (mine[:, None] == everybody).to(torch.promote_types(image.dtype, torch.float32))
    return same / same.sum(1, keepdim=True)


def _both_ways(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    queue: Queue | None = None,
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Return the logits of local pictures against everybody's texts and the queue's, and of local texts likewise.

    Logits are float32 also where layers round to bfloat16: near a scale of 100 an error there is one of nats.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, text = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (image, text))
        texts, images = gather(text), gather(image)
        if queue is not None:
            texts, images = torch.cat([texts, queue.text]), torch.cat([images, queue.image])
        return scale * image @ texts.T, scale * text @ images.T
