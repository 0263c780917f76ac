import math

import torch
import torch.nn.functional as F

from diptych.nn.recurrent import Writer


def make():
    mask = torch.arange(6) < torch.tensor([[6], [4], [0]])
    return Writer(20, 8), torch.randint(0, 20, (3, 6)), mask, torch.randn(3, 5, 8), torch.ones(3, 5).bool()


def test_each_word_is_foretold_from_those_before_it():
    writer, tokens, _, regions, seen = make()
    logits = writer(tokens, regions, seen)
    changed = tokens.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % 20
    torch.testing.assert_close(writer(changed, regions, seen)[:, :3], logits[:, :3], rtol=0, atol=0)
    assert not torch.allclose(writer(changed, regions, seen)[:, 3:], logits[:, 3:])


def test_the_mean_over_real_words_by_hand():
    writer, tokens, mask, regions, seen = make()
    found = writer.double().nll(tokens, mask, regions.double(), seen)
    log_p = F.log_softmax(writer(tokens, regions.double(), seen), dim=2)
    wanted = -sum(log_p[1, place, tokens[1, place + 1]] for place in range(3)) / 3
    torch.testing.assert_close(found[1], wanted, rtol=1e-10, atol=1e-10)
    assert found[2] == 0
    torch.nn.init.zeros_(writer.out.weight)
    torch.nn.init.zeros_(writer.out.bias)
    assert abs(writer.nll(tokens, mask, regions.double(), seen)[0].item() - math.log(20)) < 1e-12
