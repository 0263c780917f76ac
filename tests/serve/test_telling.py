"""What a server of a captioner and of an answerer says: the predictor's words, and a map for each of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from diptych.core.errors import UserError
from diptych.core.writing import Writing
from diptych.serve.app import make_app
from diptych.serve.collection import Collection
from diptych.serve.settings import ServeSettings
from tests.serve.conftest import picture
from tests.serve.telling import answerer, drawer, writer

QUESTION = "what colour is the circle?"


@pytest.fixture(scope="module")
def told():
    held = writer()
    with TestClient(make_app(held, None, ServeSettings.parse({}))) as client:
        yield held, client


@pytest.fixture(scope="module")
def asked():
    held = answerer()
    with TestClient(make_app(held, None, ServeSettings.parse({}))) as client:
        yield held, client


def test_captions_are_the_predictors(told):
    held, client = told
    assert client.get("/api/about").json()["offers"] == ["caption", "explain"]
    data = picture("green")
    found = client.post("/api/caption", files={"picture": data}, data={"count": 3}).json()["captions"]
    (wanted,) = held.caption(data, Writing(count=3))
    assert [one["text"] for one in found] == [text for text, _ in wanted]
    np.testing.assert_allclose([one["log_prob"] for one in found], [log for _, log in wanted], atol=1e-4)


def test_each_word_of_a_caption_has_a_map(told):
    held, client = told
    data, text = picture("green"), "a small green star"
    why = client.post("/api/explain", files={"picture": data}, data={"text": text}).json()
    wanted = held.explain(data, text)
    assert why["unit"] == "log-probability"
    assert why["score"] == pytest.approx(wanted.score, abs=1e-4)
    assert [part["name"] for part in why["parts"]] == text.split() == [word["word"] for word in why["words"]]
    sizes = {Image.open(io.BytesIO(base64.b64decode(part["heat"].partition(",")[2]))).size for part in why["parts"]}
    assert sizes == {(32, 32)}
    assert why["answers"] == []
    refused = client.post("/api/explain", files={"picture": data}, data={"text": text, "answer": "red"})
    assert (refused.status_code, "answers questions" in refused.json()["error"]) == (422, True)


def test_answers_are_the_predictors_and_explained(asked):
    held, client = asked
    assert client.get("/api/about").json()["offers"] == ["ask", "explain"]
    data = picture("red")
    found = client.post("/api/ask", files={"picture": data}, data={"question": QUESTION, "count": 4}).json()["answers"]
    (wanted,) = held.ask(data, QUESTION, count=4)
    assert [one["answer"] for one in found] == [answer for answer, _ in wanted]
    np.testing.assert_allclose([one["probability"] for one in found], [chance for _, chance in wanted], atol=1e-5)
    why = client.post("/api/explain", files={"picture": data}, data={"text": QUESTION, "answer": "two"}).json()
    assert why["answers"][0]["answer"] == "two"
    assert len(why["parts"]) == len(why["answers"]) == 3
    assert [word["word"] for word in why["words"]] == QUESTION.split()
    wrong = client.post("/api/explain", files={"picture": data}, data={"text": QUESTION, "answer": "grue"})
    assert (wrong.status_code, "unknown answer 'grue'" in wrong.json()["error"]) == (422, True)
    assert client.post("/api/ask", files={"picture": data}, data={"question": " "}).status_code == 422
    assert client.post("/api/tags", files={"picture": data}, data={"labels": "x"}).status_code == 404


def test_pictures_are_the_predictors_and_come_again_with_the_seed():
    held, wish = drawer(), {"text": "a red circle", "count": 3, "seed": 5}
    with TestClient(make_app(held, None, ServeSettings.parse({}))) as client:
        assert client.get("/api/about").json()["offers"] == ["generate"]
        found = client.post("/api/generate", json=wish).json()["pictures"]
        (wanted,) = held.generate("a red circle", count=3, seed=5)
        for address, picture_ in zip(found, wanted, strict=True):
            got = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
            np.testing.assert_array_equal(np.asarray(got), np.asarray(picture_))
        assert client.post("/api/generate", json=wish).json()["pictures"] == found
        assert client.post("/api/generate", json={**wish, "seed": 6}).json()["pictures"] != found
        for wrong in ({"text": " "}, {"count": 0}, {"count": 17}, {"seed": -1}, {"seed": 2**40}, {"size": 3}):
            assert client.post("/api/generate", json=wish | wrong).status_code == 422
        assert client.post("/api/caption", files={"picture": picture()}).status_code == 404


def test_an_index_beside_a_run_that_cannot_search_is_refused(index_folder, predictor):
    collection = Collection.open(index_folder, predictor)
    with pytest.raises(UserError, match="cnn_captioner has no space for both pictures and texts to search in"):
        make_app(writer(), collection, ServeSettings.parse({}))
