import pytest
import torch

from diptych.core.batch import DataSpec, States
from diptych.core.errors import UserError
from diptych.encoders.masked import MaskedViT, PixelDecoder, masked_vit, patch_noise, patches_kept, reconstruct
from diptych.encoders.towers import TowerConfig
from diptych.nn.patches import patchify

TOWER = {"image_size": 16, "patch": 4, "dim": 16, "layers": 2, "heads": 2}


def parts():
    tower = MaskedViT(**TOWER)
    return tower, PixelDecoder(tower, dim=8, layers=1, heads=2), torch.rand(3, 3, 16, 16), torch.rand(3, 16)


def test_as_many_patches_are_kept_as_was_said():
    assert patches_kept(196, 0.75) == 49
    assert patches_kept(10, 0.9) == 1  # in floating point 10 * (1 - 0.9) is below 1
    assert patches_kept(4, 0.99) == 1
    with pytest.raises(UserError, match=r"mask=0.1 hides none of the 4 patches"):
        patches_kept(4, 0.1)


def test_the_smallest_noise_is_kept_in_place():
    tower, decoder, image, noise = parts()
    made = reconstruct(tower, decoder, image, noise, keep=4)
    assert made.hidden.sum(1).tolist() == [12, 12, 12]
    assert (noise.masked_fill(made.hidden, -1).amax(1) < noise.masked_fill(~made.hidden, 2).amin(1)).all()
    assert made.read.shape == (3, 5, 16)
    whole = reconstruct(tower, decoder, image, noise, keep=16)
    by_place = tower.encode(tower.normalise(image)).tokens.gather(1, noise.argsort(1)[..., None].expand(-1, -1, 16))
    torch.testing.assert_close(whole.read[:, 1:], by_place, rtol=1e-5, atol=1e-5)


def test_what_is_hidden_is_not_read():
    tower, decoder, image, noise = parts()
    first = reconstruct(tower, decoder, image, noise, keep=4)
    pixels = first.hidden.view(3, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = reconstruct(tower, decoder, torch.where(pixels, torch.rand_like(image), image), noise, keep=4)
    torch.testing.assert_close(other.read, first.read, rtol=0, atol=0)
    torch.testing.assert_close(other.predicted, first.predicted, rtol=0, atol=0)
    assert not torch.equal(other.patches, first.patches)


def test_words_stand_beside_the_patches():
    tower, _, image, noise = parts()
    decoder = PixelDecoder(tower, dim=8, layers=1, heads=2, words=6)
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    words = States(torch.randn(3, 3, 6), mask, torch.randn(3, 6))
    told = reconstruct(tower, decoder, image, noise, keep=4, text=words)
    untold = reconstruct(tower, decoder, image, noise, keep=4)
    assert told.predicted.shape == untold.predicted.shape
    same = (told.predicted - untold.predicted).abs().amax((1, 2)) < 1e-5
    assert same.tolist() == [False, False, True]  # the last text has no word
    told.predicted[0].sum().backward()
    assert decoder.enter_words.weight.grad.abs().sum() > 0


def test_evaluation_hides_the_same_spread_patches_of_every_picture():
    noise = patch_noise(5, 64, training=False, device=torch.device("cpu"))
    assert len(noise.unique(dim=0)) == 1
    assert len(noise[0].unique()) == 64
    kept = noise[0].argsort()[:16]
    assert {int(place) // 8 for place in kept} == set(range(8))  # of each row of patches some
    drawn = patch_noise(5, 64, training=True, device=torch.device("cpu"))
    assert len(drawn.unique(dim=0)) == 5


def test_summaries_are_the_class_token_or_the_mean_of_what_was_read():
    image = torch.rand(2, 3, 16, 16)
    for pool in ("class", "mean"):
        tower = MaskedViT(**TOWER, pool=pool)
        every = torch.arange(tower.side**2).expand(len(image), -1)
        read = tower.read(patchify(tower.normalise(image), tower.patch), every)
        wanted = read[:, 0] if pool == "class" else read[:, 1:].mean(1)
        torch.testing.assert_close(tower(image).summary, wanted)
        assert tower(image).tokens.shape == (2, 16, 16)
    with pytest.raises(UserError, match="unknown image pool 'last'"):
        MaskedViT(**TOWER, pool="last")
    with pytest.raises(UserError, match="patch=5 does not divide image_size=16"):
        MaskedViT(image_size=16, patch=5)


@pytest.mark.parametrize("settings", [{"image_encoder": "resnet"}, {"image_train": "frozen"}])
def test_only_a_vit_of_its_own_can_leave_patches_out(settings):
    with pytest.raises(UserError, match="trains a vit of its own, got image_encoder="):
        masked_vit(TowerConfig(**settings), DataSpec())
