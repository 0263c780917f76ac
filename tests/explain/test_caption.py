import pytest
import torch

from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.data.tokenizer import Tokenizer
from diptych.explain.caption import maps_of_words
from diptych.explain.explanation import explain
from diptych.explain.occlusion import CELLS
from diptych.explain.words import tokens_of_words
from diptych.models.caption import cnn_captioner
from tests.models.systems import SMALL_CNN, SPEC

TEXT = "a red circle"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a red circle", "a blue square"] * 2, vocabulary=400)


@pytest.fixture(scope="module")
def spec(tokenizer):
    return SPEC.model_copy(update={"vocabulary": tokenizer.vocabulary, "context": 32})


@pytest.fixture(scope="module")
def model(spec):
    torch.manual_seed(1)
    settings = {name: value for name, value in SMALL_CNN.items() if name != "encoder_layers"}
    made = cnn_captioner.build(cnn_captioner.Config(**settings, dim=12, text_context=12), spec)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return made.eval().requires_grad_(False)


def picture():
    return torch.randint(0, 255, (3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def log_probs(model, tokenizer, image):
    levels, mask = model.look(Batch(image=image[None]))
    tokens, real = tokenizer([TEXT], 12)
    return model.log_probs(tokens, real, levels, mask)[0]


def test_each_word_has_the_falls_of_its_tokens(model, tokenizer):
    image = picture()
    maps, score = maps_of_words(model, tokenizer, image, TEXT, context=32)
    assert maps.shape == (3, CELLS, CELLS)
    whole = log_probs(model, tokenizer, image)
    assert score == pytest.approx(float(whole.sum()), abs=1e-4)
    blank = image.flatten(1).median(1).values[:, None, None]
    falls = torch.zeros(CELLS, CELLS, 3)
    for row in range(CELLS):
        for column in range(CELLS):
            covered = image.clone()
            top, left = 2 * max(0, row - 1), 2 * max(0, column - 1)
            covered[:, top : 2 * (row + 2), left : 2 * (column + 2)] = blank
            falls[row, column] = (whole - log_probs(model, tokenizer, covered))[:-1]  # the last is the end mark
    corner, middle = falls[:2, :2].mean((0, 1)), falls[3:6, 4:7].mean((0, 1))  # the covers that hide a cell
    assert torch.allclose(maps[:, 0, 0], corner.clamp(min=0), atol=1e-4)
    assert torch.allclose(maps[:, 4, 5], middle.clamp(min=0), atol=1e-4)
    assert maps.max() > 0.01


def test_an_explanation_of_a_caption_has_a_map_for_each_word(model, tokenizer, spec):
    found = explain(model, tokenizer, spec, picture(), TEXT)
    assert found.by_word is not None
    assert found.by_word.shape == (3, 16, 16)
    assert 0 <= found.by_word.min() <= found.by_word.max() <= 1
    assert [word for word, _ in found.words] == ["a", "red", "circle"]
    assert max(weight for _, weight in found.words) == pytest.approx(1)
    assert found.unit == "log-probability"
    assert found.score < 0


def test_a_word_that_the_model_never_read_has_an_empty_map(model, tokenizer, spec):
    found = explain(model, tokenizer, spec, picture(), " ".join(["red"] * 14))
    assert found.by_word is not None
    assert len(found.by_word) == 14
    assert found.by_word[:10].any()
    assert not found.by_word[10:].any()


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_the_gradient_to_the_cells_gives_each_word_a_map_too(model, tokenizer, method):
    image = picture()
    maps, score = maps_of_words(model, tokenizer, image, TEXT, context=32, method=method)
    states = model.image_tower(image[None])
    cells = states.tokens.detach().requires_grad_()
    tokens, real = tokenizer([TEXT], 12)
    levels, mask = model.look(Batch(image_states=States(cells, states.mask, states.summary)))
    logs = model.log_probs(tokens, real, levels, mask)[0]
    assert score == pytest.approx(float(logs.detach().sum()), abs=1e-4)
    side, own = round(cells.shape[1] ** 0.5), [place for _, place in tokens_of_words(tokenizer, TEXT, len(tokens[0]))]
    for number, places in enumerate(own):
        wanted = torch.zeros(cells.shape[1])
        for place in places:
            (slope,) = torch.autograd.grad(logs[place - 1], cells, retain_graph=True)
            slope = slope[0].mean(0, keepdim=True) if method == "gradcam" else slope[0]
            wanted += (cells[0].detach() * slope).sum(1).clamp(min=0)
        assert torch.allclose(maps[number].flatten(), wanted, atol=1e-5)
        assert maps[number].shape == (side, side)
    assert maps.any()


def test_methods_that_need_two_towers_are_refused(model, tokenizer, spec):
    with pytest.raises(UserError, match=r"rollout follows attention inside two towers.*method=occlusion"):
        explain(model, tokenizer, spec, picture(), TEXT, method="rollout")
    with pytest.raises(UserError, match=r"CNNCaptioner has no two streams that look at each other.*method=occlusion"):
        explain(model, tokenizer, spec, picture(), TEXT, method="relevance")
    with pytest.raises(UserError, match=r"unknown method 'occlusoin'.*occlusion"):
        explain(model, tokenizer, spec, picture(), TEXT, method="occlusoin")
    with pytest.raises(UserError, match="against"):
        explain(model, tokenizer, spec, picture(), TEXT, against=["a blue square"])
    with pytest.raises(UserError, match="an answer is explained of a system that answers"):
        explain(model, tokenizer, spec, picture(), TEXT, answer="red")
