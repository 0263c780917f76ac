"""What a student must share with the run that teaches it: the tokenizer, the size of pictures, the length of texts."""

from __future__ import annotations

from pathlib import Path

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.saved import read_record
from diptych.data.tokenizer import Tokenizer


def spec_of(run: str) -> DataSpec:
    """Return the facts that a teacher was built for.

    Raises:
        UserError: when the folder is no run.
    """
    return DataSpec.parse(read_record(Path(run).expanduser())["spec"])


def tokenizer_of(run: str, own: Tokenizer | None = None) -> Tokenizer:
    """Return the teacher's tokenizer.

    Args:
        run: the teacher's folder.
        own: of a pretrained text tower of the student, which can read no other; None takes any.

    Raises:
        UserError: when the student's tower has another.
    """
    found = Tokenizer.load(Path(run).expanduser(), spec_of(run))
    if own is not None and own.fingerprint() != found.fingerprint():
        raise UserError(
            f"the teacher in {run} reads other tokens than the student's text tower: give the student the teacher's "
            "text_encoder, or text_encoder=transformer, which learns the teacher's tokens"
        )
    return found


def image_size_of(run: str, own: int | None) -> int:
    """Return the size of pictures that student and teacher read.

    Args:
        run: the teacher's folder.
        own: what the student asks for; None takes the teacher's.

    Raises:
        UserError: when the student asks for another size than the teacher's.
    """
    size = spec_of(run).image_size
    if own not in (None, size):
        raise UserError(
            f"the teacher in {run} reads pictures of {size} pixels, the student asks for {own}: both see the same "
            f"batch; give image_size={size}"
        )
    return size


def context_of(run: str, own: int | None) -> int:
    """Return how many tokens a text has for the student, at most as many as the teacher reads."""
    context = spec_of(run).context
    return context if own is None else min(own, context)
