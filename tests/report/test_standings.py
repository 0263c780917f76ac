"""Tables of a comparison: what is bold, what is left out, and how numbers are written."""

import json

from diptych.metrics.spread import Difference, Spread
from diptych.report.standings import cell, markdown, standings, title, versus
from diptych.train.contest import Contestant
from diptych.train.outcome import Outcome


def outcome(seed, r1, rank, **more):
    scores = {"image_to_text/r@1": r1, "image_to_text/mean_rank": rank, "mean_r@1": r1, "texts": 20.0}
    return Outcome(seed, scores, split="test", monitor="mean_r@1", parameters=1_500_000, seconds=2.0, steps=4, **more)


def made():
    clip, good, broken = Contestant("clip", "clip"), Contestant("good", "clip", {"dim": "3"}), Contestant("bad", "mae")
    return standings(
        [
            (broken, [Outcome(0, failed="boom"), Outcome(1, failed="boom")], 1),
            (clip, [outcome(0, 0.2, 9), outcome(1, 0.22, 10), outcome(2, 0.24, 11)], 0),
            (good, [outcome(0, 0.3, 5), outcome(1, 0.33, 6.5), outcome(2, 0.34, 7)], 0),
        ],
        data="some data",
        protocol=["Scored once."],
        notes=["not alike"],
    )


def test_scores_first_those_that_chose_and_no_counts():
    assert made().names() == ["mean_r@1", "image_to_text/r@1", "image_to_text/mean_rank"]


def test_the_reference_is_the_first_with_scores():
    found = made()
    assert found.reference().name == "clip"
    assert [entry.name for entry in found.others()] == ["good"]
    assert found.entries[2].against["mean_r@1"].count == 3


def test_bold_where_it_is_better_whichever_way_that_is():
    found = made()
    assert found.best("mean_r@1") == "good"
    assert found.best("image_to_text/mean_rank") == "good"
    text = markdown(found)
    assert "| good (n = 3) | **32.3 ± 2.1 %** |" in text
    assert "| clip (n = 3) | 22.0 ± 2.0 % |" in text
    assert "| bad (n = 0, 1 to come) | – |" in text
    assert "Failed: bad, seeds 0, 1: boom" in text
    assert "- not alike" in text


def test_pairs_are_of_the_same_seed():
    clip, other = Contestant("a", "clip"), Contestant("b", "clip")
    found = standings(
        [(clip, [outcome(0, 0.2, 9), outcome(1, 0.9, 9)], 0), (other, [outcome(1, 0.8, 9), outcome(2, 0.1, 9)], 0)],
        data="",
    )
    against = found.entries[1].against["mean_r@1"]
    assert (against.count, round(against.mean, 6)) == (1, -0.1)


def test_numbers_for_people():
    assert title("image_to_text/median_rank") == "image to text median rank"
    assert cell("mean_r@1", Spread(0.1234, 0.01, 3)) == "12.3 ± 1.0 %"
    assert cell("mean_rank", Spread(12.34, None, 1)) == "12.3"
    assert cell("loss", Spread(1.23456, 0.1, 2)) == "1.235 ± 0.100"
    assert cell("loss", None) == "–"
    assert versus("r@1", Difference(0.02, -0.01, 0.05, 3)) == "+2.0 [-1.0, +5.0]"
    assert versus("r@1", Difference(0.02, None, None, 1)) == "+2.0"
    assert versus("mean_rank", Difference(-0.01, None, None, 1)) == "+0.0"


def test_everything_is_plain_json():
    record = json.loads(json.dumps(made().record()))
    good = record["contestants"][2]
    assert good["settings"] == {"dim": "3"}
    assert good["scores"]["mean_r@1"]["count"] == 3
    assert good["costs"]["parameters"]["mean"] == 1_500_000
    assert "memory" not in good["costs"]
    assert record["contestants"][0]["runs"][0]["failed"] == "boom"
