"""What the API answers: the same as the Predictor, in the types it promises."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import picture


def test_about_says_what_there_is(client):
    found = client.get("/api/about").json()
    assert found["system"] == "clip"
    assert found["offers"] == ["search", "tags", "similarity", "explain"]
    assert found["pictures"] == 60
    assert 0 < len(found["sample"]) <= 24
    assert found["limits"]["results"] == 200


def test_without_an_index_there_is_no_search(make):
    client = make(index=False)
    assert "search" not in client.get("/api/about").json()["offers"]
    answer = client.post("/api/search/text", json={"text": "a red circle"})
    assert answer.status_code == 404
    assert "no index" in answer.json()["error"]


def test_search_by_text_is_the_predictors(client, predictor, index_folder):
    answer = client.post("/api/search/text", json={"text": "a red circle", "k": 5}).json()
    wanted = predictor.search("a red circle", index_folder, k=5)
    assert [found["id"] for found in answer["results"]] == [hit.key for hit in wanted]
    np.testing.assert_allclose(
        [found["score"] for found in answer["results"]], [hit.score for hit in wanted], atol=1e-5
    )
    first = answer["results"][0]
    assert (first["width"], first["height"]) == (64, 64)
    assert first["text"] == wanted[0].text
    assert not any(name.startswith("_") for name in first["metadata"])
    assert client.get(first["picture"]).headers["content-type"] == "image/jpeg"


def test_search_by_picture_finds_the_picture_itself(client, table):
    data = (table.parent / "photos" / "007.png").read_bytes()
    answer = client.post("/api/search/picture", files={"picture": data}, data={"k": 3, "where": '{"split": "train"}'})
    results = answer.json()["results"]
    assert results[0]["id"] == "photos/007.png"
    assert results[0]["score"] == pytest.approx(1, abs=1e-5)
    assert {found["metadata"]["split"] for found in results} == {"train"}


def test_more_like_this_leaves_the_picture_itself_out(client):
    results = client.post("/api/search/id", json={"id": "photos/007.png", "k": 60}).json()["results"]
    assert len(results) == 59
    assert "photos/007.png" not in {found["id"] for found in results}
    assert client.post("/api/search/id", json={"id": "photos/777.png"}).status_code == 404


def test_a_filter_is_met_and_a_wrong_one_refused(client):
    def ask(where):
        return client.post("/api/search/text", json={"text": "a star", "k": 60, "where": where})

    assert {found["metadata"]["split"] for found in ask({"split": ["dev", "test"]}).json()["results"]} == {
        "dev",
        "test",
    }
    assert ask({"split": "none"}).json()["results"] == []
    assert ask({"_data": "x"}).status_code == 422
    assert ask({"split": {"like": 3}}).status_code == 422
    assert "double quote" in ask({'a"b': 3}).json()["error"]


def test_tags_and_similarity_are_the_predictors(client, predictor):
    labels, data = ["red circle", "green star", "blue moon"], picture("green")
    tags = client.post("/api/tags", files={"picture": data}, data={"labels": labels}).json()["tags"]
    (wanted,) = predictor.classify(data, labels)
    assert [tag["label"] for tag in tags] == [label for label, _ in wanted]
    np.testing.assert_allclose([tag["probability"] for tag in tags], [chance for _, chance in wanted], atol=1e-5)
    files = [("pictures", data), ("pictures", picture("blue", kind="JPEG"))]
    cosines = client.post("/api/similarity", files=files, data={"texts": labels}).json()["cosines"]
    wanted = predictor.similarity([data, picture("blue", kind="JPEG")], labels)
    np.testing.assert_allclose(cosines, wanted, atol=1e-5)


def test_tags_of_a_picture_of_the_index(client, predictor, table):
    tags = client.post("/api/tags", data={"id": "photos/003.png", "labels": ["circle", "star"]}).json()["tags"]
    (wanted,) = predictor.classify(table.parent / "photos" / "003.png", ["circle", "star"])
    np.testing.assert_allclose([tag["probability"] for tag in tags], [chance for _, chance in wanted], atol=1e-5)


def test_explain_gives_a_map_to_lay_over_the_picture(client, predictor):
    data = picture("green", size=(80, 40))
    why = client.post(
        "/api/explain", files={"picture": data}, data={"text": "a green star", "method": "gradcam"}
    ).json()
    wanted = predictor.explain(data, "a green star", method="gradcam")
    assert why["score"] == pytest.approx(wanted.score, abs=1e-5)
    assert [word["word"] for word in why["words"]] == ["a", "green", "star"]
    assert why["area"] == {"left": 0, "top": 0, "width": 1, "height": 1}
    kind, _, coded = why["heat"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(coded))).size == (64, 64)
    wrong = client.post("/api/explain", files={"picture": data}, data={"text": "a star", "method": "grad"})
    assert wrong.status_code == 422
    assert "gradcam" in wrong.json()["error"]


def test_what_the_model_does_not_offer_says_so(client):
    answer = client.post("/api/caption", files={"picture": picture()})
    assert answer.status_code == 404
    assert "clip does not offer that" in answer.json()["error"]


def test_pictures_are_sent_small_and_bare(client):
    answer = client.get("/api/picture", params={"id": "photos/003.png", "side": 100})
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    assert "private" in answer.headers["cache-control"]
    assert client.get("/api/picture", params={"id": "photos/003.png", "side": 5000}).status_code == 422


def test_health_and_metrics(client):
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    client.post("/api/search/text", json={"text": "a star"})
    page = client.get("/metrics").text
    assert 'diptych_requests_total{method="POST",path="/api/search/text",status="200"} 1.0' in page
    assert "diptych_index_pictures 60.0" in page
    assert 'diptych_batch_items_count{kind="texts"} 1.0' in page


def test_the_document_of_the_api_is_whole(client):
    document = client.get("/openapi.json").json()
    assert {"/api/search/text", "/api/search/picture", "/api/search/id", "/api/explain"} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method in methods.values():
            assert method["description"], path
            named = [one["content"] for one in method["responses"].values() if "content" in one]
            assert all("HTTPValidationError" not in str(content) for content in named), path
