import io

import pytest
from rich.console import Console

from diptych.train.progress import Bar, Lines, Silent, choose


def shown(display, text):
    display.begin("training", 10, 40)
    display.step(11, loss=2.5, rate=1234.5)
    display.score("r@1 0.2500")
    display.say("three pictures [were] left out")
    display.step(40, loss=1.25, rate=999.0)
    display.end()
    return text.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    text = io.StringIO()
    told = shown(Lines(Console(file=text, width=40), every=1000), text).splitlines()
    assert told == [
        "r@1 0.2500",
        "three pictures [were] left out",
        "training 40/40  999 examples/s  0:00 left  loss 1.2500",
    ]


def test_a_bar_on_a_terminal_with_rate_time_left_loss_and_score():
    text = io.StringIO()
    bar = Bar(Console(file=text, force_terminal=True, width=120))
    told = shown(bar, text)
    for part in ("training", "40/40", "999/s", "0:00:00", "loss 1.2500", "r@1 0.2500", "[were]"):
        assert part in told
    bar.begin("second stage", 0, 5)  # takes the place of the first
    bar.end()


@pytest.mark.parametrize("quiet", [True, False])
def test_what_suits_the_process(quiet):
    assert isinstance(choose(quiet=quiet), Silent if quiet else (Lines, Bar))
    shown(Silent(), io.StringIO())
