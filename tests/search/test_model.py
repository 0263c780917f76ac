"""Any sequence of writes, read back, equals a dict of vectors searched by brute force."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from diptych.search.folder import FolderIndex

_KEYS = st.lists(st.sampled_from([f"k{i}" for i in range(12)]), max_size=6, unique=True)
_DIM = 3


class Model(RuleBasedStateMachine):
    """The index beside a plain dict (whose order is the order of insertion)."""

    @initialize()
    def start(self):
        self.place = Path(tempfile.mkdtemp())
        self.index = FolderIndex.create(self.place / "index", dim=_DIM, model="m")
        self.dict: dict[str, tuple[np.ndarray, int]] = {}

    def teardown(self):
        self.index.close()
        shutil.rmtree(self.place)

    def _store(self, keys: list[str], draw: int, *, new: bool) -> None:
        rng = np.random.default_rng(draw)
        vectors = rng.integers(-1, 2, (len(keys), _DIM)) + np.array([0, 0, 3.0])  # few values: many ties
        groups = rng.integers(0, 3, len(keys)).tolist()
        write = self.index.add if new else self.index.upsert
        write(keys, vectors, metadata=[{"group": group} for group in groups])
        for key, vector, group in zip(keys, vectors, groups, strict=True):
            self.dict.pop(key, None)
            self.dict[key] = ((vector / np.sqrt((vector**2).sum())).astype(np.float32), group)

    @rule(keys=_KEYS, draw=st.integers(0, 1000))
    def add(self, keys, draw):
        self._store([key for key in keys if key not in self.dict], draw, new=True)

    @rule(keys=_KEYS, draw=st.integers(0, 1000))
    def upsert(self, keys, draw):
        self._store(keys, draw, new=False)

    @rule(keys=_KEYS)
    def delete(self, keys):
        assert self.index.delete(keys) == len(set(keys) & set(self.dict))
        for key in keys:
            self.dict.pop(key, None)

    @rule()
    def vacuum(self):
        self.index.vacuum()

    @rule()
    def reopen(self):
        self.index.close()
        self.index = FolderIndex.open(self.place / "index", model="m")

    @rule(draw=st.integers(0, 1000), k=st.integers(1, 15), group=st.sampled_from([None, 0, 1, 2]))
    def search(self, draw, k, group):
        query = np.random.default_rng(draw).integers(-2, 3, (2, _DIM)) + np.array([0, 0, 0.5])
        groups = {its for _, its in self.dict.values()}
        where = {"group": group} if group in groups else None
        for one, hits in zip(query, self.index.search(query, k=k, where=where), strict=True):
            unit = (one / np.sqrt((one**2).sum())).astype(np.float32).astype(np.float64)
            scores = {
                key: np.float32((vector.astype(np.float64) * unit).sum())
                for key, (vector, its) in self.dict.items()
                if where is None or its == group
            }
            expected = sorted(scores, key=lambda key: -scores[key])[:k]
            assert [hit.score for hit in hits] == [scores[key] for key in expected]
            assert [hit.key for hit in hits] == expected

    @invariant()
    def same_items(self):
        if not hasattr(self, "dict"):
            return
        assert self.index.keys() == list(self.dict)
        assert len(self.index) == len(self.dict)
        for item, (key, (vector, group)) in zip(self.index.get(list(self.dict)), self.dict.items(), strict=True):
            assert (item.key, item.metadata) == (key, {"group": group})
            np.testing.assert_array_equal(item.vector, vector)


Model.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestModel = Model.TestCase
