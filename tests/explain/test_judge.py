import pytest

from diptych.core.errors import UserError
from diptych.data.scenes import Scenes
from diptych.explain.judge import asked, judge
from tests.serve.telling import COLOURED, answerer, writer


@pytest.fixture(scope="module")
def source():
    return Scenes(pictures=400, size=32, distinct=False)


def test_a_case_names_one_thing_and_where_it_is(source):
    cases = list(asked(source, 12, questions=True))
    assert len(cases) == 12
    for case in cases:
        left, top, right, bottom = case.box
        assert 0 <= left < right <= 32
        assert 0 <= top < bottom <= 32
        size, colour, shape = case.text.split()[1:]
        assert size in ("small", "large")
        assert (case.question, case.answer) == (f"what colour is the {shape}?", colour)
    shapes = [case.question == "" for case in asked(source, 12)]
    assert any(shapes), "a thing whose shape is there twice has no question"
    with pytest.raises(UserError, match="no test picture"):
        next(asked(Scenes(pictures=3, size=32, distinct=False), 1))


@pytest.mark.parametrize(("held", "questions"), [(writer, False), (lambda: answerer(COLOURED), True)])
@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_what_a_model_tells_is_judged_by_log_probabilities(source, held, questions, method):
    predictor, cases = held(), list(asked(source, 3, questions=questions))
    found = judge(predictor.model, predictor.tokenizer, predictor.spec, cases, method=method, against=())
    assert set(found) == {"pointing", "inside", "deletion", "insertion", "words"}
    assert 0 <= found["pointing"] <= 1
    assert 0 <= found["inside"] <= 1
    assert found["deletion"] < 0
    assert found["insertion"] < 0
    assert 0 <= found["words"] <= 1
