"""Protocol: every method on the same draws, the same features and the same test pictures, several seeds.

Settings are chosen on validation shots, which are drawn from the same rows as the shots, never from those that are
tested; the test pictures are scored once by each method and choose nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.data.source import Source
from diptych.fewshot.coop import ContextEncoder, coop, lay_out
from diptych.fewshot.keep import Elsewhere, Tuner
from diptych.fewshot.pictures import Progress
from diptych.fewshot.probe import linear_probe
from diptych.fewshot.prototype import prototype, prototype_text
from diptych.fewshot.shots import Classifier, Draw, Shots
from diptych.fewshot.study import FewShotConfig, Kept, Score, Study, open_study
from diptych.fewshot.tip_adapter import tip_adapter, tip_adapter_f
from diptych.fewshot.zero_shot import zero_shot
from diptych.metrics.classes import accuracy
from diptych.predictor import Predictor

ON_FEATURES: dict[str, Callable[[Shots, int], Classifier]] = {
    "zero-shot": lambda shots, seed: zero_shot(shots),
    "prototype": lambda shots, seed: prototype(shots),
    "prototype-text": lambda shots, seed: prototype_text(shots),
    "probe": lambda shots, seed: linear_probe(shots),
    "tip-adapter": lambda shots, seed: tip_adapter(shots),
    "tip-adapter-f": lambda shots, seed: tip_adapter_f(shots, seed=seed),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Class scores of the test pictures, what validation chose, and what was kept of another task."""

    scores: Float[Tensor, "m c"]
    chosen: dict[str, float]
    kept: Kept | None = None


def few_shot(
    predictor: Predictor,
    source: Source,
    config: FewShotConfig | None = None,
    *,
    column: str | None = None,
    elsewhere: Source | None = None,
    progress: Progress | None = None,
) -> Study:
    """Compare few-shot methods on one aligned model.

    Args:
        predictor: what `diptych.load` opened.
        source: pictures with a class, as `diptych.data.sources.open_data` opens them.
        config: methods, shots, seeds; all methods, 1 to 16 shots and 5 seeds when None.
        column: with the classes; guessed when None.
        elsewhere: pictures with captions: retrieval on their test split is what fine-tuning shall not forget. The
            half of the classes that was not tuned on when None.
        progress: told how far the features are.

    Returns:
        The study with its `scores`, `left_out` and `results()`.

    Raises:
        UserError: for unknown methods, missing columns or splits, or a model without a space for both.
    """
    study = open_study(predictor, source, config or FewShotConfig(), column=column, progress=progress)
    for _ in run(study, elsewhere=elsewhere):
        pass
    return study


def run(study: Study, *, elsewhere: Source | None = None) -> Iterator[Score]:
    """Give the scores one by one, seed by seed; they are in `study.scores` too, also when it is cut off."""
    methods = _usable(study, elsewhere)
    image, label = study.test()
    for seed in range(study.config.seeds):
        for shots in study.config.shots:
            drawn = study.draw(shots=shots, seed=seed)
            seen = study.shots(drawn)
            for name, method in methods.items():
                begun = time.perf_counter()
                outcome = method(seen, drawn, seed, image)
                found = accuracy(outcome.scores, label, ks=(1,))
                seconds = time.perf_counter() - begun
                values = (found["top1"], found["mean_per_class"], seconds)
                study.scores.append(Score(name, shots, seed, *values, outcome.chosen, outcome.kept))
                yield study.scores[-1]


Method = Callable[[Shots, Draw, int, Float[Tensor, "m d"]], Outcome]


def _usable(study: Study, elsewhere: Source | None) -> dict[str, Method]:
    """Make the methods; one that this model does not offer is left out with its reason."""
    methods: dict[str, Method] = {}
    for name in study.config.methods:
        try:
            if name == "coop":
                methods[name] = _coop(study)
            elif name == "wise-ft":
                methods[name] = _wise_ft(study, elsewhere)
            else:
                methods[name] = _on_features(ON_FEATURES[name])
        except UserError as error:
            study.left_out[name] = str(error)
    if not methods:
        raise UserError(f"no method is left: {'; '.join(study.left_out.values())}")
    return methods


def _on_features(make: Callable[[Shots, int], Classifier]) -> Method:
    def method(shots: Shots, drawn: Draw, seed: int, image: Tensor) -> Outcome:
        made = make(shots, seed)
        return Outcome(made.score(image), made.chosen)

    return method


def _coop(study: Study) -> Method:
    predictor, config = study.predictor, study.config.coop
    prompts = lay_out(study.labelled.names, predictor.tokenizer, config, longest=predictor.spec.context)
    encoder = ContextEncoder(predictor.model, prompts)

    def method(shots: Shots, drawn: Draw, seed: int, image: Tensor) -> Outcome:
        made = coop(shots, encoder, config, seed=seed)
        return Outcome(made.score(image), made.chosen)

    return method


def _wise_ft(study: Study, elsewhere: Source | None) -> Method:
    tuner = Tuner(study, None if elsewhere is None else Elsewhere(study.predictor, elsewhere))

    def method(shots: Shots, drawn: Draw, seed: int, image: Tensor) -> Outcome:
        scores, chosen, kept = tuner(drawn, seed)
        return Outcome(scores, chosen, kept)

    return method
