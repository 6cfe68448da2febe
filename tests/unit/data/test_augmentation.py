import numpy as np
import pytest
import torch

from kinglet.data.augmentation import AUGMENTATIONS, FLIP, augment, color, crop, erase, flip_vertically, rotate, shift

ALL = [FLIP, *AUGMENTATIONS]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=32, channels=3, height=12, width=12):
    return torch.rand(n, channels, height, width, generator=generator(99)) * 255


def ramps(n, size):
    """Images whose two channels are their own coordinates, from -1 to 1 over the pixels' centres."""
    centres = 2 * (torch.arange(size) + 0.5) / size - 1
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([columns, rows])[None].repeat(n, 1, 1, 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_keeps_shape_and_range_and_follows_the_seed(name, channels):
    pixels = noise(channels=channels)
    before = pixels.clone()
    found, mirrored = augment(pixels, [name], generator(1))
    assert found.shape == pixels.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 255
    assert torch.equal(pixels, before)
    assert mirrored.shape == (32,)
    assert bool(mirrored.any()) == (name == FLIP)
    assert torch.equal(found, augment(pixels, [name], generator(1))[0])
    assert not torch.equal(found, augment(pixels, [name], generator(2))[0])


def test_no_names_change_nothing():
    pixels = noise()
    found, mirrored = augment(pixels, [], generator())
    assert torch.equal(found, pixels)
    assert not mirrored.any()


def test_names_are_applied_in_the_tables_order():
    pixels = noise()
    first, _ = augment(pixels, ALL, generator(3))
    second, _ = augment(pixels, ALL[::-1], generator(3))
    assert torch.equal(first, second)
    by_hand = pixels
    hand = generator(3)
    for function in (crop, color, erase):
        by_hand = function(by_hand, hand)
    assert torch.equal(by_hand, augment(pixels, ["erase", "crop", "color"], generator(3))[0])


def test_flip_says_which_half_of_the_images_it_mirrored():
    pixels = noise(400, 1)
    found, mirrored = augment(pixels, [FLIP], generator())
    assert 150 < mirrored.sum() < 250
    assert torch.equal(found[mirrored], pixels[mirrored].flip(3))
    assert torch.equal(found[~mirrored], pixels[~mirrored])


def test_vertical_flip_turns_half_of_the_images_upside_down():
    pixels = noise(400, 1)
    found = flip_vertically(pixels, generator())
    turned = [torch.equal(image, original.flip(1)) for image, original in zip(found, pixels, strict=True)]
    kept = [torch.equal(image, original) for image, original in zip(found, pixels, strict=True)]
    assert 150 < sum(turned) < 250
    assert sum(turned) + sum(kept) == 400


@pytest.mark.parametrize(("height", "width", "share", "reach"), [(12, 12, 0.2, 2), (4, 4, 0.07, 1), (10, 20, 0.1, 2)])
def test_shifted_image_is_the_image_moved_over_black(height, width, share, reach):
    pixels = noise(100, 2, height, width) + 1  # no pixel of the images is black
    offsets = set()
    for image, original in zip(shift(pixels, generator(), share).numpy(), pixels.numpy(), strict=True):
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
    found = crop(ramps(300, 16), generator(), smallest_share)
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
    found = rotate(ramps(300, 16), generator(), degrees=15)
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
    found = color(pixels, generator(), strength=0.25)
    brightness = found.mean((1, 2, 3)) / pixels.mean((1, 2, 3))
    contrast = found.std((1, 2, 3)) / pixels.std((1, 2, 3))
    for factor in (brightness, contrast):
        assert 0.75 - 1e-3 < factor.min() < 0.77
        assert 1.23 < factor.max() < 1.25 + 1e-3
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2


def test_saturation_changes_only_how_far_colours_are_from_gray():
    pixels = 100 + noise(300, 3) / 10
    found = color(pixels, generator(), strength=0.25)
    ratios = []
    for image, original in zip(found, pixels, strict=True):
        contrast = image.mean(0).std() / original.mean(0).std()
        ratios.append((image - image.mean(0)).std() / (original - original.mean(0)).std() / contrast)
    assert 0.75 - 1e-3 < min(ratios) < 0.77
    assert 1.23 < max(ratios) < 1.25 + 1e-3


def test_a_gray_picture_in_three_channels_stays_gray():
    found = color(noise(20, 1).repeat(1, 3, 1, 1), generator())
    torch.testing.assert_close(found[:, 0], found[:, 1])


def test_erased_part_is_one_black_rectangle_in_half_of_the_images():
    pixels = noise(400, 2, 20, 20) + 1
    found = erase(pixels, generator(), probability=0.5, largest_share=0.2)
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
