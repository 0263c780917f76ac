"""Prompted: pictures that have a class but no caption get sentences with the name of the class as their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diptych.core.errors import UserError
from diptych.data.source import Row, Source
from diptych.data.view import View

PROMPTS = ("{}", "a photo of a {}.", "a picture of a {}.", "a photo of the {}.", "there is a {}.")
"""Sentences that a class name is put into (after Radford et al. 2021, arXiv 2103.00020, section 3.1.4)."""


class Prompted(View):
    """A source in which no picture that has a class is without words.

    In training such a picture has every prompt as a caption, so that each epoch draws one; in dev and test it has the
    first prompt alone. A picture whose only caption is its class, as in a folder of class folders, is one of them.

    Args:
        source: with a `label` in some rows.
        prompts: sentences with `{}` for the class.

    Raises:
        UserError: for a prompt without `{}`.

    Reference:
        Yang et al. 2022, arXiv 2204.03610 (UniCL), section 3: image-label pairs become image-text pairs by prompts.
    """

    def __init__(self, source: Source, prompts: Sequence[str] = PROMPTS) -> None:
        for prompt in prompts:
            if "{}" not in prompt:
                raise UserError(f"prompt {prompt!r} has no {{}} for the label to stand in; as in 'a photo of a {{}}.'")
        self.prompts = tuple(prompts)
        super().__init__(source, how=f"a label without a caption is told as {' | '.join(prompts)}")
        self.name = source.name  # in most data no row is changed

    def change(self, row: Row, place: int) -> Row:
        """Give prompts to a row that needs them."""
        label = label_alone(row)
        if label is None:
            return row
        prompts = self.prompts if row.split == "train" else self.prompts[:1]
        return replace(row, captions=tuple(prompt.replace("{}", label.replace("_", " ")) for prompt in prompts))

    def classes(self) -> tuple[str, ...]:
        """Return the labels of the training rows that have nothing else, sorted."""
        rows = (self.source.row(int(place)) for place in self.kept[self.splits() == 0])
        return tuple(sorted({label for label in map(label_alone, rows) if label is not None}))


def label_alone(row: Row) -> str | None:
    """Return the label of a row that has no caption, or none but its label; None for any other row."""
    label = row.fields.get("label")
    if not isinstance(label, str | int) or isinstance(label, bool) or str(label) == "":
        return None
    return str(label) if row.captions in ((), (str(label),)) else None
