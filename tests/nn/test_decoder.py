"""The word decoder: what was cached is what would be computed again, and words see only what they may."""

import pytest
import torch
from torch import nn

from diptych.core.errors import UserError
from diptych.core.writing import Writing
from diptych.models.caption.meshed_memory import MeshedLayer
from diptych.nn.attention import Attention
from diptych.nn.decode import Marks, write
from diptych.nn.decoder import PlainLayer, WordDecoder, sinusoids
from diptych.nn.looking import CrossAttention, SelfAttention
from diptych.nn.past import Past, Tree

DIM, WORDS, LONGEST = 16, 11, 9
MARKS = Marks(1, 2, 0, (0, 1))


def decoder(kind: str) -> WordDecoder:
    """Make a decoder that is sure enough of its words to write texts of different lengths."""
    layers = [
        PlainLayer(DIM, 4, hidden=32) if kind == "plain" else MeshedLayer(DIM, 4, levels=2, hidden=32) for _ in range(2)
    ]
    plain = kind == "plain"
    positions = nn.Parameter(torch.randn(LONGEST, DIM)) if plain else sinusoids(LONGEST, DIM)
    made = WordDecoder(layers, DIM, vocabulary=WORDS, positions=positions, norm=plain, tied=plain)
    nn.init.normal_(made.out.weight, std=1.0)
    return made.eval()


def encoding(items: int = 4, *, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    levels = tuple(torch.randn(items, 6, DIM, generator=random) for _ in range(2))
    return levels, torch.arange(6) < torch.tensor([6, 3, 5, 4])[:items, None]


def uncached(made: WordDecoder, levels, mask):
    """Answer by going through each row's whole text again, the encoding repeated for each row."""
    texts = None

    def ask(tokens, parents):
        nonlocal texts
        if texts is not None:
            before = texts.gather(1, parents.unsqueeze(-1).expand(-1, -1, texts.shape[2]))
            texts = torch.cat([before, tokens.unsqueeze(-1)], dim=2)
        else:
            texts = tokens.unsqueeze(-1)
        rows = texts.shape[1]
        wide = [level.repeat_interleave(rows, 0) for level in levels]
        hidden = made(texts.flatten(0, 1), wide, mask.repeat_interleave(rows, 0))
        return made.logits(hidden[:, -1]).view(len(texts), rows, -1)

    return ask


@pytest.mark.parametrize("kind", ["plain", "meshed"])
@pytest.mark.parametrize(
    "how", [{"beams": 4, "count": 3}, {"beams": 1}, {"nucleus": 1.0, "count": 3}, {"beams": 3, "length_power": 1.0}]
)
def test_cached_writing_is_uncached_writing(kind, how):
    made, (levels, mask), writing = decoder(kind), encoding(), Writing(longest=LONGEST, **how)
    torch.manual_seed(3)
    fast = write(made.begin(levels, mask), 4, MARKS, writing)
    torch.manual_seed(3)
    slow = write(uncached(made, levels, mask), 4, MARKS, writing)
    assert torch.equal(fast.tokens, slow.tokens)
    torch.testing.assert_close(fast.log_prob, slow.log_prob, rtol=1e-5, atol=1e-5)
    assert "length_power" in how or len(set(fast.mask.sum(2).flatten().tolist())) > 1


@pytest.mark.parametrize("kind", ["plain", "meshed"])
def test_company_and_padded_cells_change_no_text(kind):
    made, (levels, mask), writing = decoder(kind), encoding(), Writing(longest=LONGEST, beams=4, count=2)
    whole = write(made.begin(levels, mask), 4, MARKS, writing)
    filled = [torch.where(mask[..., None], level, 1e4) for level in levels]
    assert torch.equal(write(made.begin(filled, mask), 4, MARKS, writing).tokens, whole.tokens)
    order = torch.tensor([2, 0, 3, 1])
    turned = write(made.begin([level[order] for level in levels], mask[order]), 4, MARKS, writing)
    assert torch.equal(turned.tokens, whole.tokens[order])
    for item in range(4):
        real = int(mask[item].sum())
        alone = write(made.begin([level[item : item + 1, :real] for level in levels]), 1, MARKS, writing)
        text = whole.tokens[item, :, : alone.tokens.shape[2]]
        assert torch.equal(alone.tokens[0], text)
        torch.testing.assert_close(alone.log_prob[0], whole.log_prob[item], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "meshed"])
def test_later_words_change_nothing_before(kind):
    made, (levels, mask) = decoder(kind), encoding()
    tokens = torch.randint(3, WORDS, (4, 7))
    other = tokens.clone()
    other[:, 5:] = 3
    one, two = made(tokens, levels, mask), made(other, levels, mask)
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert not torch.allclose(one[:, 5:], two[:, 5:])


@pytest.mark.parametrize("kind", ["plain", "meshed"])
def test_texts_in_a_row_share_an_item(kind):
    made, (levels, mask) = decoder(kind), encoding()
    tokens = torch.randint(3, WORDS, (12, 5))
    wide = [level.repeat_interleave(3, 0) for level in levels]
    torch.testing.assert_close(made(tokens, levels, mask), made(tokens, wide, mask.repeat_interleave(3, 0)))


def test_a_text_that_is_too_long_is_refused():
    levels, mask = encoding()
    with pytest.raises(UserError, match=r"writes at most 9 tokens, got 10"):
        decoder("plain")(torch.ones(4, 10, dtype=torch.long), levels, mask)


def test_attention_is_the_plain_one():
    """The same weights, split as `Attention` has them, give the same."""
    for causal in (True, False):
        ours, plain = (SelfAttention if causal else CrossAttention)(DIM, 4).double(), Attention(DIM, 4, causal=causal)
        plain = plain.double()
        maps = [plain.query, plain.key, plain.value] if causal else [plain.key, plain.value]
        with torch.no_grad():
            for linear, weight, bias in zip(
                maps, ours.inward.weight.chunk(len(maps)), torch.randn(len(maps), DIM).double(), strict=True
            ):
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)
            ours.inward.bias.copy_(torch.cat([linear.bias for linear in maps]))
            plain.out.load_state_dict(ours.out.state_dict())
        x, cells = torch.randn(2, 5, DIM).double(), torch.randn(2, 7, DIM).double()
        mask = torch.arange(7) < torch.tensor([[7], [4]])
        if causal:
            found, wanted = ours(x), plain(x)
        else:
            plain.query.load_state_dict(ours.query.state_dict())
            wanted = plain(x, cells, mask)
            for turned in (False, True):  # as in training, and as in writing
                found = ours(x, ours.look([cells], turned=turned), mask[:, None, None])[0]
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match=r"multiple of the heads, got dim=16 and heads=3"):
        SelfAttention(16, 3)


def test_the_tree_shows_each_row_its_ancestors_and_nobody_else():
    tree = Tree()
    assert tree.grow(torch.zeros(1, 1).long()) is None  # one row has nobody to be kept from
    assert tree.grow(torch.tensor([[0, 0, 0]])).shape == (1, 1, 3, 4)
    seen = (~tree.grow(torch.tensor([[2, 0, 2]])))[0, 0].int().tolist()
    # slots: the root; rows 0 to 2 of the second step; rows 0 to 2 of the third
    assert seen == [[1, 0, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0, 1]]


def test_the_past_keeps_all_in_order_however_often_it_grows():
    past, given = Past(), torch.randn(2, 3, 50, 4)
    sizes, start = [1, 5, 5, 3, 20, 16], 0
    for size in sizes:
        piece = given[:, :, start : start + size]
        keys, values = past.add(piece.transpose(2, 3), -piece)
        start += size
        assert torch.equal(keys.transpose(2, 3), given[:, :, :start])
        assert torch.equal(values, -given[:, :, :start])


def test_sinusoids_are_their_formula():
    found = sinusoids(5, 6)
    for place in range(5):
        for column in range(6):
            angle = torch.tensor(place * 10000 ** (-2 * (column // 2) / 6), dtype=torch.float64)
            wanted = angle.sin() if column % 2 == 0 else angle.cos()
            assert abs(found[place, column].item() - wanted.item()) < 1e-6
    with pytest.raises(UserError, match="even width, got 7"):
        sinusoids(3, 7)


@pytest.mark.parametrize("kind", ["plain", "meshed"])
@pytest.mark.parametrize("shared", [1, 3])
def test_packed_texts_are_padded_texts_without_padding(kind, shared):
    made, (levels, mask) = decoder(kind), encoding()
    tokens = torch.randint(0, WORDS, (4 * shared, 7), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 1, 4, 6, 2, 3, 7, 5, 1, 2, 6, 4])[: len(tokens), None]
    real = torch.arange(7) < lengths
    levels = tuple(level.requires_grad_() for level in levels)
    whole = made(tokens, levels, mask)[real]
    packed = made.packed(tokens, real, levels, mask)
    torch.testing.assert_close(packed, whole, rtol=1e-5, atol=1e-5)  # sums over rows in another order
    weights = torch.randn_like(whole)
    wanted = [levels[-1], *made.parameters()]
    grads = [torch.autograd.grad((weights * found).sum(), wanted, allow_unused=True) for found in (whole, packed)]
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_packed_texts_that_are_too_long_are_refused():
    made, (levels, mask) = decoder("plain"), encoding()
    tokens = torch.ones(4, LONGEST + 1, dtype=torch.long)
    with pytest.raises(UserError, match=f"at most {LONGEST} tokens, got {LONGEST + 1}"):
        made.packed(tokens, tokens > 0, levels, mask)
