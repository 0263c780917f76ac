import torch

from diptych.data.tokenizer import Tokenizer
from diptych.explain.words import by_word, read_by

TEXTS = ["a large red circle", "a small blue square", "the crescent", "一个红色的圆"]


def tokenizer():
    return Tokenizer.train(TEXTS, vocabulary=300)


def test_a_word_of_several_tokens_has_the_weight_of_the_largest():
    made = tokenizer()
    tokens, content = read_by(made, "a crescents", 32)
    assert not content[0]
    assert not content[-1]
    assert int(content.sum()) == len(tokens) - 2
    weights = torch.zeros(len(tokens))
    weights[1], weights[-2] = 0.2, 0.8
    assert by_word(made, "a crescents", weights) == [("a", 0.25), ("crescents", 1.0)]


def test_words_keep_their_letters_and_marks():
    made = tokenizer()
    text = "A  Red circle, café!"
    tokens, _ = read_by(made, text, 32)
    assert [word for word, _ in by_word(made, text, torch.ones(len(tokens)))] == ["A", "Red", "circle,", "café!"]


def test_each_chinese_sign_is_a_word():
    made = tokenizer()
    tokens, _ = read_by(made, "红色的圆", 32)
    weights = torch.arange(len(tokens)).float()
    words = by_word(made, "红色的圆", weights)
    assert [word for word, _ in words] == ["红", "色", "的", "圆"]
    assert [weight for _, weight in words] == sorted(weight for _, weight in words)


def test_a_word_that_was_cut_off_has_no_weight():
    made = tokenizer()
    text = "red circle a small blue square"
    tokens, content = read_by(made, text, 4)
    assert len(tokens) == 4
    words = by_word(made, text, content.float())
    assert words[0][1] == 1.0
    assert [weight for _, weight in words[2:]] == [0.0] * 4


def test_without_any_weight_all_are_zero():
    made = tokenizer()
    tokens, _ = read_by(made, TEXTS[0], 32)
    assert {weight for _, weight in by_word(made, TEXTS[0], torch.zeros(len(tokens)))} == {0.0}
