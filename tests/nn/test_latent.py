import torch

from diptych.nn.latent import Unfold


def test_every_place_gets_the_vector_and_its_own_position():
    made = Unfold(6, 5, places=4, width=8, layers=2, heads=2)
    out = made(torch.randn(3, 6))
    assert out.shape == (3, 4, 5)
    assert (out[:, 0] - out[:, 1]).abs().max() > 0.1
    with torch.no_grad():
        made.positions.zero_()
    out = made(torch.randn(3, 6))
    torch.testing.assert_close(out, out[:, :1].expand_as(out))


def test_without_blocks_it_is_a_map_of_each_place():
    made = Unfold(6, 5, places=4, width=8, layers=0, heads=2)
    vector = torch.randn(2, 6)
    wanted = made.leave(made.norm(made.enter(vector)[:, None] + made.positions))
    torch.testing.assert_close(made(vector), wanted)
