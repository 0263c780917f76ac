"""Batching changes when things are computed, never what comes out."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diptych.serve.batching import Batcher
from tests.serve.conftest import picture


def run(batcher_of, asking):
    sizes = []

    async def main():
        with ThreadPoolExecutor(1) as worker:
            batcher = batcher_of(worker, sizes)
            batcher.start()
            try:
                return await asking(batcher)
            finally:
                await batcher.stop()

    return asyncio.run(main()), sizes


def doubling(worker, sizes, *, most=4, wait=0.01):
    return Batcher(lambda items: [2 * item for item in items], worker, most=most, wait=wait, counted=sizes.append)


def test_what_comes_together_is_computed_together_and_goes_back_to_whom_it_is_for():
    async def ask(batcher):
        return await asyncio.gather(*(batcher([number]) for number in range(10)))

    found, sizes = run(doubling, ask)
    assert found == [[2 * number] for number in range(10)]
    assert sizes == [4, 4, 2]


def test_ragged_jobs_keep_their_items_and_no_batch_is_over_the_most():
    jobs = [[1, 2, 3], [4, 5], [], list(range(11)), [6]]

    async def ask(batcher):
        return await asyncio.gather(*(batcher(job) for job in jobs))

    found, sizes = run(doubling, ask)
    assert found == [[2 * item for item in job] for job in jobs]
    assert sum(sizes) == sum(map(len, jobs))
    assert max(sizes) <= 4


def test_a_failure_is_its_owners_alone():
    def compute(items):
        return [ValueError("odd") if item % 2 else item for item in items]

    async def ask(batcher):
        return await asyncio.gather(*(batcher([number]) for number in range(4)), return_exceptions=True)

    found, sizes = run(lambda worker, sizes: Batcher(compute, worker, most=9, wait=0.01, counted=sizes.append), ask)
    assert sizes == [4]
    assert found[0] == [0]
    assert found[2] == [2]
    assert all(isinstance(found[place], ValueError) for place in (1, 3))


def test_a_batch_that_fails_fails_whom_it_was_for_and_the_next_is_served():
    async def ask(batcher):
        with pytest.raises(ZeroDivisionError):
            await batcher([0])
        return await batcher([2])

    found, _ = run(lambda worker, sizes: Batcher(lambda items: [4 // i for i in items], worker, most=4, wait=0), ask)
    assert found == [2]


def test_nothing_is_computed_for_who_gave_up():
    hold = threading.Event()
    seen = []

    def compute(items):
        hold.wait(5)
        seen.extend(items)
        return items

    async def ask(batcher):
        first = asyncio.create_task(batcher([1]))
        await asyncio.sleep(0.05)
        second, third = asyncio.create_task(batcher([2])), asyncio.create_task(batcher([3]))
        await asyncio.sleep(0.05)
        second.cancel()
        hold.set()
        return await first, await third

    found, _ = run(lambda worker, _: Batcher(compute, worker, most=4, wait=0), ask)
    assert found == ([1], [3])
    assert seen == [1, 3]


def test_many_requests_at_once_get_what_each_alone_would(make, predictor):
    client = make(max_batch=8)
    texts = [f"{'a very long way of saying ' * (number % 3)}a {number} star" for number in range(20)]
    data = [picture(colour, kind=kind) for colour in ("red", "green", "blue") for kind in ("PNG", "JPEG")]
    engine = client.app.state.engine

    async def ask():
        vectors = asyncio.gather(*(engine.text_vectors([text]) for text in texts))
        images = asyncio.gather(*(engine.picture_vectors([one]) for one in data))
        return await vectors, await images

    found_texts, found_pictures = client.portal.call(ask)
    for text, (vector,) in zip(texts, found_texts, strict=True):
        np.testing.assert_allclose(vector, predictor.embed_text(text)[0], atol=1e-5)  # sums in another order
    for one, (vector,) in zip(data, found_pictures, strict=True):
        np.testing.assert_allclose(vector, predictor.embed_image(one)[0], atol=1e-5)
    page = client.get("/metrics").text
    batches = float(page.split('diptych_batch_items_count{kind="texts"} ')[1].splitlines()[0])
    assert 3 <= batches < 20


def test_searches_with_different_filters_are_told_apart(make):
    client = make()
    engine = client.app.state.engine

    async def ask():
        (vector,) = await engine.text_vectors(["a star"])
        wanted = [("train", 3), ("dev", 20), ("test", 1), ("train", 7)]
        return await asyncio.gather(*(engine.search(vector, k=k, where={"split": split}) for split, k in wanted))

    found = client.portal.call(ask)
    assert [len(hits) for hits in found] == [3, 10, 1, 7]
    assert [{hit.metadata["split"] for hit in hits} for hits in found] == [{"train"}, {"dev"}, {"test"}, {"train"}]
    assert [hit.key for hit in found[0]] == [hit.key for hit in found[3][:3]]
