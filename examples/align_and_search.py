"""Train a small CLIP from Python, index pictures with it and search them: `python examples/align_and_search.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diptych.data.sources import open_data
from diptych.indexing import add_pictures, open_for
from diptych.predictor import load
from diptych.train.experiment import prepare, run
from diptych.train.plan import make_plan


def main() -> None:
    """Do it all in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        out, place = Path(folder) / "run", Path(folder) / "index"
        source = open_data("scenes:1200")
        plan = make_plan("clip", settings={"image_encoder": "resnet", "epochs": 2, "batch_size": 64, "lr": 2e-3})
        experiment = prepare(plan, source, out=out, named="scenes:1200")
        result, scores = run(experiment, out=out)
        if scores is not None:
            print(f"{result.steps} steps; image-to-text R@10 on test: {scores['image_to_text/r@10']:.2f}")
        model = load(out)
        with open_for(model, out, place) as index:
            add_pictures(index, model, source, source.rows("test"))
            for hit in model.search("a red circle", index, k=3):
                print(f"{hit.score:.3f}", (hit.text or "").splitlines()[0])


if __name__ == "__main__":
    main()
