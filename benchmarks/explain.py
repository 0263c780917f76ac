"""How good explanations are, by numbers, on the built-in scenes.

    python -m benchmarks.explain RUN [--count 200] [--json PATH]

For pictures of several things and the name of one of them: does the hottest pixel lie in its box (the pointing game),
how much of the heat does, and how fast does the cosine fall when the hottest pixels go first (deletion) or rise when
they come first (insertion), beside a random map. The rows that say "against" ask what speaks for the name rather than
for the names of 16 other things. Words: how often a word that names a thing outweighs one that does not. Chance of the
pointing game is the share of the picture that the box covers, of words one half.

A captioner is asked for the map of the name, an answerer for that of the right answer to "what colour is the circle?";
their curves are log-probabilities.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import torch

from diptych.core.errors import UserError
from diptych.core.model import Answerer, PairEncoder
from diptych.data.scenes import Scenes
from diptych.explain.judge import OTHERS, asked, judge
from diptych.predictor import load

METHODS = ("auto", "gradcam", "hirescam", "relevance", "rollout", "occlusion", "random")


def measure(run: Path, count: int, methods: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Judge every method that can see into the model."""
    predictor = load(run, device="cpu")
    size = predictor.spec.image_size
    pairs, answers = isinstance(predictor.model, PairEncoder), isinstance(predictor.model, Answerer)
    cases = list(asked(Scenes(pictures=20_000, size=size, distinct=False), count, questions=answers))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (case.box for case in cases)]
    results = {"chance": {"pointing": mean(areas) / size**2, "inside": mean(areas) / size**2, "words": 0.5}}
    for method in methods:
        for name, against in (("", ()), (", against", OTHERS))[: 2 if pairs else 1]:
            torch.manual_seed(0)
            start = time.process_time()
            try:
                scores = judge(
                    predictor.model, predictor.tokenizer, predictor.spec, cases, method=method, against=against
                )
            except UserError as error:
                print(f"{method}: {error}")
                break
            results[f"{method}{name}"] = {**scores, "ms": 1000 * (time.process_time() - start) / len(cases)}
    return results


def _shown(score: float | None, column: str) -> str:
    if score is None:
        return " " * 11
    return f"{score:11.0f}" if column == "ms" else f"{score:11.3f}"


def main() -> None:
    """Print the table, and write it as JSON where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a system with pictures and texts in one space, trained on scenes")
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas between")
    parser.add_argument("--json", type=Path, help="write the results to this file as well")
    arguments = parser.parse_args()
    results = measure(arguments.run, arguments.count, tuple(arguments.methods.split(",")))
    columns = ("pointing", "inside", "deletion", "insertion", "words", "ms")
    print(f"{'':22}" + "".join(f"{column:>11}" for column in columns))
    for name, scores in results.items():
        print(f"{name:22}" + "".join(_shown(scores.get(column), column) for column in columns))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
