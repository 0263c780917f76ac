"""Look at the built-in data: a sheet with pictures of every style, and what is known about one of them.

python examples/scenes.py scenes.png
"""

from __future__ import annotations

import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

from diptych.data.scene_graph import STYLES
from diptych.data.scene_truth import truth
from diptych.data.scenes import Scenes

SIDE, MARGIN, TEXT = 176, 14, 58
COLUMNS = 6


def sheet() -> Image.Image:
    """Draw six scenes in each of the five styles, every picture over its first caption."""
    width = MARGIN + COLUMNS * (SIDE + MARGIN)
    height = MARGIN + len(STYLES) * (SIDE + TEXT + MARGIN)
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for line, style in enumerate(STYLES):
        source = Scenes(pictures=100, size=SIDE, styles=(style,))
        for column in range(COLUMNS):
            index = line * COLUMNS + column
            left, top = MARGIN + column * (SIDE + MARGIN), MARGIN + line * (SIDE + TEXT + MARGIN)
            page.paste(Image.fromarray(source.picture(index)), (left, top))
            caption = textwrap.fill(source.row(index).captions[0], 34)
            pen.text((left, top + SIDE + 4), caption, "#333333", font)
    return page


def main() -> None:
    """Save the sheet and print all that the source tells about one picture."""
    path = sys.argv[1] if len(sys.argv) > 1 else "scenes.png"
    sheet().save(path)
    source = Scenes(pictures=100, language="both")
    print(source.name)
    row = source.row(7)
    print(f"\n{row.key}: {row.fields['label']}")
    for thing in row.fields["objects"]:
        print("  object  ", thing)
    for i, relation, j in row.fields["relations"]:
        print(f"  relation  {i} {relation} {j}")
    for caption in row.captions:
        print("  caption  ", caption)
    for asked in row.fields["questions"]:
        print(f"  question  {asked['question']} {asked['answer']}")
    for caption in (row.captions[0], "a picture of a green star", "图中有三个图形"):
        print(f"  {'true ' if truth(caption, row.fields) else 'false'}     {caption}")
    print(f"\nsaved {path}")


if __name__ == "__main__":
    main()
