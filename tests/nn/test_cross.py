import torch

from diptych.nn.cross import CrossBlock


def test_a_causal_block_looks_back_on_its_own_and_at_all_of_the_context():
    block = CrossBlock(8, 2, context=5, causal=True).eval()
    x, context = torch.randn(2, 4, 8), torch.randn(2, 3, 5)
    later, other = x.clone(), context.clone()
    later[:, 2:] = torch.randn(2, 2, 8)
    other[:, 2] = torch.randn(2, 5)
    whole = block(x, context)
    torch.testing.assert_close(block(later, context)[:, :2], whole[:, :2])
    assert (block(x, other) - whole).abs().amax((0, 2)).min() > 0


def test_what_is_not_real_is_not_seen():
    block = CrossBlock(8, 2, context=5).eval()
    x, context = torch.randn(1, 4, 8), torch.randn(1, 3, 5)
    mask, context_mask = torch.tensor([[True, True, True, False]]), torch.tensor([[True, False, False]])
    wanted = block(x[:, :3], context[:, :1])
    torch.testing.assert_close(block(x, context, mask, context_mask)[:, :3], wanted)


def test_without_a_context_only_the_rest_remains():
    block = CrossBlock(8, 2, context=5).double()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    blind = block(x, torch.randn(2, 3, 5, dtype=torch.float64), None, torch.zeros(2, 3, dtype=torch.bool))
    y = x + block.attention(block.attention_norm(x))
    torch.testing.assert_close(blind, y + block.mlp(block.mlp_norm(y)), rtol=1e-12, atol=1e-12)
