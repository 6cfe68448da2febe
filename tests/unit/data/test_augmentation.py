import numpy as np
import pytest
import torch
from torch.nn import functional

from kinglet.data.augmentation import (
    AUGMENTATIONS,
    augment,
    color,
    crop,
    erase,
    flip,
    flip_vertically,
    n_random,
    rotate,
    shift,
)

ALL = list(AUGMENTATIONS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(n, name, seed=0):
    return torch.rand(n, AUGMENTATIONS[name].n_random, generator=generator(seed))


def noise(n=32, channels=3, height=12, width=12):
    return torch.rand(n, channels, height, width, generator=generator(99)) * 255


def ramps(n, size):
    """Images whose two channels are their own coordinates, from -1 to 1 over the pixels' centres."""
    centres = 2 * (torch.arange(size) + 0.5) / size - 1
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([columns, rows])[None].repeat(n, 1, 1, 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_keeps_shape_and_range_and_follows_its_numbers(name, channels):
    pixels = noise(channels=channels)
    before = pixels.clone()
    found = augment(pixels, [name], random(32, name, 1))
    assert found.shape == pixels.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 255
    assert torch.equal(pixels, before)
    assert torch.equal(found, augment(pixels, [name], random(32, name, 1)))
    assert not torch.equal(found, augment(pixels, [name], random(32, name, 2)))


@pytest.mark.parametrize("name", [name for name in ALL if name != "color"])
def test_same_numbers_show_an_image_alike_at_another_resolution(name):
    # Smooth pictures: halving them loses nothing that the comparison would see.
    coarse = torch.rand(60, 1, 3, 3, generator=generator(5)) * 255
    large = functional.interpolate(coarse, size=(48, 48), mode="bicubic", align_corners=True).clamp(0, 255)
    numbers = random(60, name, 7)
    halved_before = augment(functional.avg_pool2d(large, 2), [name], numbers)
    halved_after = functional.avg_pool2d(augment(large, [name], numbers), 2)
    different = (halved_before - large[:, :, ::2, ::2]).abs().mean()
    assert (halved_before - halved_after).abs().mean() < 0.35 * different


def test_no_names_change_nothing():
    pixels = noise()
    assert torch.equal(augment(pixels, [], torch.empty(32, 0)), pixels)


def test_names_are_applied_in_the_tables_order_each_with_its_own_numbers():
    pixels = noise()
    numbers = torch.rand(32, n_random(ALL), generator=generator(3))
    assert n_random(ALL) == 17
    assert torch.equal(augment(pixels, ALL, numbers), augment(pixels, ALL[::-1], numbers))
    by_hand = erase(color(crop(pixels, numbers[:, :4]), numbers[:, 4:7]), numbers[:, 7:12])
    assert torch.equal(by_hand, augment(pixels, {"erase", "crop", "color"}, numbers[:, :12]))


@pytest.mark.parametrize(("function", "name", "axis"), [(flip, "flip", 2), (flip_vertically, "flip_vertically", 1)])
def test_flips_mirror_half_of_the_images(function, name, axis):
    pixels = noise(400, 1)
    found = function(pixels, random(400, name))
    turned = [torch.equal(image, original.flip(axis)) for image, original in zip(found, pixels, strict=True)]
    kept = [torch.equal(image, original) for image, original in zip(found, pixels, strict=True)]
    assert 150 < sum(turned) < 250
    assert sum(turned) + sum(kept) == 400


@pytest.mark.parametrize(("height", "width", "share", "reach"), [(12, 12, 0.2, 2), (4, 4, 0.07, 1), (10, 20, 0.1, 2)])
def test_shifted_image_is_the_image_moved_over_black(height, width, share, reach):
    pixels = noise(100, 2, height, width) + 1  # no pixel of the images is black
    offsets = set()
    for image, original in zip(shift(pixels, random(len(pixels), "shift"), share).numpy(), pixels.numpy(), strict=True):
        matching = []
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                expected = np.zeros_like(original)
                for row in range(max(0, down), min(height, height + down)):
                    for column in range(max(0, right), min(width, width + right)):
                        expected[:, row, column] = original[:, row - down, column - right]
                if np.array_equal(image, expected):
                    matching.append((down, right))
        assert len(matching) == 1
        offsets.update(matching)
    assert {down for down, _ in offsets} == {right for _, right in offsets} == set(range(-reach, reach + 1))


@pytest.mark.parametrize("smallest_share", [0.4, 0.7])
def test_crop_is_a_part_of_the_image_with_the_area_asked_for(smallest_share):
    found = crop(ramps(300, 16), random(300, "crop"), smallest_share)
    # A part of a ramp, stretched, is a flatter ramp: its slope is the part's share of the edge.
    columns, rows = found[:, 0, 8, 4:12], found[:, 1, 4:12, 8]
    widths, heights = columns.diff(dim=1) * 8, rows.diff(dim=1) * 8
    torch.testing.assert_close(widths, widths.mean(1, keepdim=True).expand_as(widths), atol=1e-4, rtol=0)
    width, height = widths.mean(1), heights.mean(1)
    centre = found[:, :, 7:9, 7:9].mean((2, 3))
    assert (width <= 1 + 1e-4).all()
    assert (centre.abs() + torch.stack([width, height], 1) <= 1 + 1e-4).all()  # within the image
    area = width * height
    assert area.max() > 0.9
    assert smallest_share - 1e-4 <= area.min() < smallest_share + 0.1


def test_rotation_is_by_angles_up_to_the_limit_both_ways_and_keeps_lengths():
    found = rotate(ramps(300, 16), random(300, "rotate"), degrees=15)
    middle = found[:, :, 4:12, 4:12]
    along = middle.diff(dim=3).mean((2, 3)) * 8  # how (column, row) of the origin change from pixel to pixel
    down = middle.diff(dim=2).mean((2, 3)) * 8
    torch.testing.assert_close(along.norm(dim=1), torch.ones(300), atol=1e-3, rtol=0)
    torch.testing.assert_close((along * down).sum(1), torch.zeros(300), atol=1e-3, rtol=0)
    degrees = torch.rad2deg(torch.atan2(along[:, 1], along[:, 0]))
    assert 14 < degrees.max() < 15.01
    assert -15.01 < degrees.min() < -14
    torch.testing.assert_close(middle.mean((2, 3)), torch.zeros(300, 2), atol=1e-4, rtol=0)  # about the centre


def test_brightness_and_contrast_change_by_up_to_the_strength():
    pixels = 100 + noise(300, 1) / 10  # so that nothing is clipped
    found = color(pixels, random(len(pixels), "color"), strength=0.25)
    brightness = found.mean((1, 2, 3)) / pixels.mean((1, 2, 3))
    contrast = found.std((1, 2, 3)) / pixels.std((1, 2, 3))
    for factor in (brightness, contrast):
        assert 0.75 - 1e-3 < factor.min() < 0.77
        assert 1.23 < factor.max() < 1.25 + 1e-3
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2


def test_saturation_changes_only_how_far_colours_are_from_gray():
    pixels = 100 + noise(300, 3) / 10
    found = color(pixels, random(len(pixels), "color"), strength=0.25)
    ratios = []
    for image, original in zip(found, pixels, strict=True):
        contrast = image.mean(0).std() / original.mean(0).std()
        ratios.append((image - image.mean(0)).std() / (original - original.mean(0)).std() / contrast)
    assert 0.75 - 1e-3 < min(ratios) < 0.77
    assert 1.23 < max(ratios) < 1.25 + 1e-3


def test_a_gray_picture_in_three_channels_stays_gray():
    found = color(noise(20, 1).repeat(1, 3, 1, 1), random(20, "color"))
    torch.testing.assert_close(found[:, 0], found[:, 1])


def test_erased_part_is_one_black_rectangle_in_half_of_the_images():
    pixels = noise(400, 2, 20, 20) + 1
    found = erase(pixels, random(len(pixels), "erase"), probability=0.5, largest_share=0.2)
    areas = []
    for image, original in zip(found, pixels, strict=True):
        black = (image == 0).all(0)
        assert torch.equal(image[:, ~black], original[:, ~black])
        if black.any():
            rows, columns = black.any(1).nonzero(), black.any(0).nonzero()
            edges = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
            assert edges[0] * edges[1] == black.sum()
            areas.append(int(black.sum()) / 400)
    assert 150 < len(areas) < 250
    assert max(areas) < 0.25  # a rectangle ends between pixels
    assert max(areas) > 0.15
    assert min(areas) < 0.05
