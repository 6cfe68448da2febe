import numpy as np
import pytest
import torch

from kinglet.data.batches import gather
from kinglet.data.views import MIXUP, Views

CPU = torch.device("cpu")
PACKED = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
ROWS = np.arange(5, 35)


def show(views, positions, view):
    same = torch.full((len(positions),), view)
    return views.show(PACKED, ROWS, np.array(positions), same, CPU)


def test_view_of_an_image_is_the_same_in_any_batch_and_with_any_number_of_views():
    names = ["flip", "crop", "color", "erase", MIXUP]
    few, many = Views(names, 30, 4, seed=1), Views(names, 30, 16, seed=1)
    together, _ = show(few, [3, 7, 21], 2)
    alone, _ = show(many, [7], 2)
    torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=0)
    other, _ = show(Views(names, 30, 4, seed=2), [7], 2)
    assert not torch.allclose(other, alone, atol=1)
    assert not torch.allclose(show(many, [7], 3)[0], alone, atol=1)


def test_two_views_of_a_mirrored_image_are_itself_and_its_mirror_image():
    views, positions = Views(["flip"], 30, 2, seed=3), list(range(30))
    first, second = show(views, positions, 0)[0], show(views, positions, 1)[0]
    plain = gather(PACKED, ROWS)
    for one, other, image in zip(first, second, plain, strict=True):
        shown = sorted((one, other), key=lambda picture: not torch.equal(picture, image))
        assert torch.equal(shown[0], image)
        assert torch.equal(shown[1], image.flip(2))


def test_epochs_show_all_views_of_an_image_in_turn_and_different_ones_side_by_side():
    views = Views(["flip"], 30, 4, seed=0)
    seen = torch.stack([views.of_epoch(epoch) for epoch in range(8)])
    assert all(sorted(of_image) == [0, 0, 1, 1, 2, 2, 3, 3] for of_image in seen.t().tolist())
    assert all(set(of_epoch) == {0, 1, 2, 3} for of_epoch in seen.tolist())


def test_views_fill_the_range_of_every_random_number_evenly():
    views = Views(["crop", "flip"], 30, 16, seed=0)
    numbers = (views._moves[:, None] + views._points[None]) % 1
    assert numbers.shape == (30, 16, 5)
    counts = torch.stack([((numbers >= low) & (numbers < low + 0.25)).sum(1) for low in (0.0, 0.25, 0.5, 0.75)])
    assert (counts - 4).abs().max() <= 1


def test_without_names_an_image_is_shown_as_it_is():
    pixels, shown = show(Views([], 30, 1, seed=0), [4, 9], 0)
    assert torch.equal(pixels, gather(PACKED, ROWS[[4, 9]]))
    assert shown.positions.tolist() == shown.partners.tolist() == [4, 9]
    assert shown.views.tolist() == [0, 0]
    assert shown.shares.tolist() == [1, 1]


def test_mixup_shows_half_of_the_images_with_another_one_shining_through():
    positions = list(range(30))
    pixels, shares, partners = [], [], []
    for view in range(16):
        picture, shown = show(Views([MIXUP], 30, 16, seed=0), positions, view)
        pixels.append(picture)
        shares.append(shown.shares)
        partners.append(shown.partners)
    plain = gather(PACKED, ROWS)
    for picture, share, partner in zip(pixels, shares, partners, strict=True):
        own = share.view(-1, 1, 1, 1)
        torch.testing.assert_close(picture, own * plain + (1 - own) * plain[partner], atol=1e-3, rtol=0)
    shares, partners = torch.cat(shares), torch.cat(partners)
    assert 0.4 < (shares < 1).float().mean() < 0.6
    assert 0.5 <= shares.min() < 0.55
    assert set(partners.tolist()) == set(range(30))


@pytest.mark.parametrize("names", [["flip"], ["erase", "shift", MIXUP]])
def test_teacher_at_another_resolution_sees_the_same_view(names):
    edge = 24
    smooth = np.repeat(np.repeat(PACKED[:, :6, :6], 4, 1), 4, 2)
    halved = smooth.reshape(40, 12, 2, 12, 2, 3).mean((2, 4)).astype(np.uint8)
    assert smooth.shape[1] == edge
    views, positions, view = Views(names, 30, 8, seed=0), np.arange(30), torch.arange(30) % 8
    large, shown = views.show(smooth, ROWS, positions, view, CPU)
    small, shown_small = views.show(halved, ROWS, positions, view, CPU)
    difference = (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean()
    plain = torch.from_numpy(halved[ROWS]).permute(0, 3, 1, 2)
    assert difference < 0.35 * (small - plain).abs().mean()
    assert torch.equal(shown.partners, shown_small.partners)
    assert torch.equal(shown.shares, shown_small.shares)
