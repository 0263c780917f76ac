import pytest
import torch

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.data.tokenizer import Tokenizer
from diptych.explain.answer import evidence_of
from diptych.explain.explanation import ANSWERS, explain
from diptych.explain.occlusion import CELLS
from diptych.explain.words import read_by
from diptych.models.answer import attention_vqa, question_only
from tests.models.systems import SMALL_ASK, SPEC

QUESTION = "what colour is the circle?"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([QUESTION, "how many rings are there?"] * 2, vocabulary=400)


@pytest.fixture(scope="module")
def spec(tokenizer):
    named = {"vocabulary": tokenizer.vocabulary, "answers": ("red", "blue", "two", "圆")}
    return SPEC.model_copy(update=named)


def made(spec, module=attention_vqa, **settings):
    torch.manual_seed(1)
    config = {"text_dim": 16, "text_layers": 1, "text_heads": 2, "dim": 12, **settings}
    model = module.build(module.Config(**config), spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(spec):
    return made(spec, **SMALL_ASK)


def picture():
    return torch.randint(0, 255, (3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def log_probs(model, image, tokens):
    batch = Batch(image=image[None], tokens=tokens[None], token_mask=torch.ones_like(tokens[None], dtype=torch.bool))
    return model.answer(batch)[0].log()


def test_maps_are_falls_of_the_log_probability_and_words_too(model, tokenizer, spec):
    image, (tokens, content) = picture(), read_by(tokenizer, QUESTION, spec.context)
    found = evidence_of(model, image, tokens, content, torch.tensor([2, 0]), method="occlusion")
    assert found.maps.shape == (2, CELLS, CELLS)
    whole = log_probs(model, image, tokens)
    blank = image.flatten(1).median(1).values[:, None, None]
    falls = torch.zeros(CELLS, CELLS, 2)
    for row in range(CELLS):
        for column in range(CELLS):
            covered = image.clone()
            top, left = 2 * max(0, row - 1), 2 * max(0, column - 1)
            covered[:, top : 2 * (row + 2), left : 2 * (column + 2)] = blank
            falls[row, column] = (whole - log_probs(model, covered, tokens))[[2, 0]]
    assert torch.allclose(found.maps[:, 0, 0], falls[:2, :2].mean((0, 1)).clamp(min=0), atol=1e-4)
    assert torch.allclose(found.maps[:, 4, 5], falls[3:6, 4:7].mean((0, 1)).clamp(min=0), atol=1e-4)
    for place in range(len(tokens)):
        left = torch.cat([tokens[:place], tokens[place + 1 :]])
        fall = (whole - log_probs(model, image, left))[2].clamp(min=0) * content[place]
        assert found.tokens[place] == pytest.approx(float(fall), abs=1e-4)
    assert found.maps.max() > 1e-3
    assert found.tokens.max() > 1e-3


@pytest.mark.parametrize("fusion", ["attention", "cross_attention", "sum"])
@pytest.mark.parametrize("method", ["auto", "occlusion", "gradcam", "hirescam", "random"])
def test_the_likeliest_answer_is_explained_by_every_method_that_can(tokenizer, spec, fusion, method):
    model = made(spec, **SMALL_ASK, fusion=fusion)
    found = explain(model, tokenizer, spec, picture(), QUESTION, method=method)
    chances = [chance for _, chance in found.answers]
    assert len(chances) == ANSWERS
    assert chances == sorted(chances, reverse=True)
    assert found.score == pytest.approx(torch.tensor(chances[0]).log().item(), abs=1e-5)
    assert found.by_answer.shape == (ANSWERS, 16, 16)
    assert (found.heat == found.by_answer[0]).all()
    assert [word for word, _ in found.words] == QUESTION.split()
    assert [name for name, _ in found.parts()] == [f"{name}: {100 * chance:.0f} %" for name, chance in found.answers]


@pytest.mark.parametrize("layers", [1, 2])
def test_relevance_goes_through_what_the_words_saw_of_the_cells(tokenizer, spec, layers):
    model, image = made(spec, **SMALL_ASK, fusion="attention", layers=layers), picture()
    tokens, content = read_by(tokenizer, QUESTION, spec.context)
    found = evidence_of(model, image, tokens, content, torch.tensor([1]), method="relevance").maps[0]
    states, seen = model.image_tower(image[None]), []
    for layer in model.streams.words:
        layer.cross.watch = lambda weights: seen.append(weights) or weights
    cells = states.tokens.detach().requires_grad_()
    real = torch.ones_like(tokens[None], dtype=torch.bool)
    batch = Batch(image_states=States(cells, states.mask, states.summary), tokens=tokens[None], token_mask=real)
    value = model.logits(batch)[0].log_softmax(0)[1]
    slopes = torch.autograd.grad(value, seen)
    wanted = sum((weights * slope).clamp(min=0)[0].mean(0).mean(0) for weights, slope in zip(seen, slopes, strict=True))
    assert len(seen) == layers
    assert torch.allclose(found.flatten(), wanted.detach()[1:], atol=1e-6)  # the first is the picture's summary
    assert found.any()
    for layer in model.streams.words:
        layer.cross.watch = None
    explain(model, tokenizer, spec, image, QUESTION, method="relevance")
    assert all(layer.cross.watch is None for layer in (*model.streams.words, *model.streams.cells))
    with pytest.raises(UserError, match=r"AttentionVQA has no two streams.*fusion=attention and"):
        explain(made(spec, **SMALL_ASK, fusion="sum"), tokenizer, spec, image, QUESTION, method="relevance")


@pytest.mark.parametrize(
    ("fusion", "meant"), [("attention", "relevance"), ("cross_attention", "relevance"), ("gated", "occlusion")]
)
def test_auto_is_relevance_where_words_look_at_cells(tokenizer, spec, fusion, meant):
    model = made(spec, **SMALL_ASK, fusion=fusion)
    found = explain(model, tokenizer, spec, picture(), QUESTION)
    assert found.method == meant
    assert (found.heat == explain(model, tokenizer, spec, picture(), QUESTION, method=meant).heat).all()


def test_relevance_of_a_reader_follows_words_to_words_and_words_to_cells(tokenizer, spec):
    model, image = made(spec, **SMALL_ASK, fusion="cross_attention", layers=1, encoder_layers=1), picture()
    tokens, content = read_by(tokenizer, QUESTION, spec.context)
    found = evidence_of(model, image, tokens, content, torch.tensor([1]), method="relevance").maps[0]
    states, seen, block = model.image_tower(image[None]), [], model.reader.blocks[0]
    for attention in (block.attention, block.cross):
        attention.watch = lambda weights: seen.append(weights.detach().requires_grad_()) or seen[-1]
    real = torch.ones_like(tokens[None], dtype=torch.bool)
    cells = States(states.tokens.detach().requires_grad_(), states.mask, states.summary)
    value = model.logits(Batch(image_states=cells, tokens=tokens[None], token_mask=real))[0].log_softmax(0)[1]
    told, saw = (
        (weights * slope).clamp(min=0)[0].mean(0)
        for weights, slope in zip(seen, torch.autograd.grad(value, seen), strict=True)
    )
    heard = told / told.sum(1, keepdim=True).clamp(min=1e-9) + torch.eye(len(tokens))
    wanted = (heard.T @ saw).mean(0)[1:].detach()
    assert torch.allclose(found.flatten(), wanted, atol=1e-6)
    assert found.any()
    assert block.cross.watch is not None, "this test's own"


def test_another_answer_can_be_asked_about(model, tokenizer, spec):
    likeliest = explain(model, tokenizer, spec, picture(), QUESTION).answers
    last = next(name for name in spec.answers if name not in dict(likeliest))
    found = explain(model, tokenizer, spec, picture(), QUESTION, answer=last)
    assert [name for name, _ in found.answers] == [last, *(name for name, _ in likeliest[:2])]
    with pytest.raises(UserError, match=r"unknown answer 'bleu'.*blue"):
        explain(model, tokenizer, spec, picture(), QUESTION, answer="bleu")


def test_who_never_looks_has_an_empty_map_and_says_so_for_gradients(tokenizer, spec):
    model = made(spec, question_only, hidden=24)
    found = explain(model, tokenizer, spec, picture(), QUESTION)
    assert not found.heat.any()
    assert max(weight for _, weight in found.words) == pytest.approx(1)
    with pytest.raises(UserError, match=r"QuestionOnly has no image tower for gradcam.*method=occlusion"):
        explain(model, tokenizer, spec, picture(), QUESTION, method="gradcam")
    with pytest.raises(UserError, match=r"rollout follows attention inside two towers"):
        explain(model, tokenizer, spec, picture(), QUESTION, method="rollout")
