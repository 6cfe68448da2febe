"""Masks from logits: against torch's interpolation, against a slow reference, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kinglet.runtime import segmentation
from kinglet.runtime.preprocessing import placement
from kinglet.runtime.segmentation import decode_masks, enlarged_strips


def random_logits(n_classes: int, edge: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_classes, edge, edge)).astype(np.float32)


def enlarged(logits: np.ndarray, placed, width: int, height: int) -> np.ndarray:
    return np.concatenate(list(enlarged_strips(logits, placed, width, height)), axis=1)


def reference(logits: np.ndarray, placed, width: int, height: int) -> np.ndarray:
    """Return the logit of every pixel, one by one, as the definition says."""
    n_classes, h, w = logits.shape
    found = np.empty((n_classes, height, width))
    for y in range(height):
        for x in range(width):
            across = ((x + 0.5) * placed.scale_x + placed.left) * w / placed.input_size - 0.5
            down = ((y + 0.5) * placed.scale_y + placed.top) * h / placed.input_size - 0.5
            across, down = min(max(across, 0), w - 1), min(max(down, 0), h - 1)
            x0, y0 = math.floor(across), math.floor(down)
            x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
            upper = logits[:, y0, x0] * (1 - across + x0) + logits[:, y0, x1] * (across - x0)
            lower = logits[:, y1, x0] * (1 - across + x0) + logits[:, y1, x1] * (across - x0)
            found[:, y, x] = upper * (1 - down + y0) + lower * (down - y0)
    return found


@pytest.mark.parametrize(("size", "stride", "edge"), [(64, 4, 64), (64, 2, 96), (64, 4, 10), (32, 1, 32)])
def test_logits_are_enlarged_as_torch_does_it(size, stride, edge):
    logits = random_logits(3, size // stride)
    placed = placement(edge, edge, size, "stretch")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (edge, edge), mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(enlarged(logits, placed, edge, edge), expected, atol=1e-5)
    (mask,) = decode_masks(logits[None], [placed], [(edge, edge)])
    ordered = np.sort(expected, axis=0)
    is_clear = ordered[-1] - ordered[-2] > 1e-4
    assert (mask == expected.argmax(axis=0))[is_clear].all()
    assert is_clear.mean() > 0.99


@pytest.mark.parametrize(("width", "height"), [(100, 37), (29, 80), (1, 90), (64, 64)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_logits_come_from_where_the_image_lies_in_the_input(width, height, fit):
    logits, placed = random_logits(2, 16, seed=3), placement(width, height, 64, fit)
    expected = reference(logits, placed, width, height)
    np.testing.assert_allclose(enlarged(logits, placed, width, height), expected, atol=1e-5)
    (mask,) = decode_masks(logits[None], [placed], [(width, height)])
    assert mask.shape == (height, width)
    is_clear = abs(expected[0] - expected[1]) > 1e-4
    assert (mask == expected.argmax(axis=0))[is_clear].all()


def test_a_letterboxed_image_gets_nothing_from_its_bars():
    # The wide image fills the middle half; the bars are sure of another class.
    logits = np.zeros((2, 16, 16), np.float32)
    logits[1, :4] = logits[1, 12:] = 9
    logits[0, 5:11] = 1
    (mask,) = decode_masks(logits[None], [placement(128, 64, 64, "pad")], [(128, 64)])
    assert (mask[12:-12] == 0).all()


def test_every_image_of_a_batch_has_its_own_size():
    logits = np.stack([random_logits(4, 8, seed=seed) for seed in range(3)])
    sizes = [(20, 10), (7, 33), (32, 32)]
    placements = [placement(width, height, 32, "pad") for width, height in sizes]
    masks = decode_masks(logits, placements, sizes)
    assert [mask.shape for mask in masks] == [(10, 20), (33, 7), (32, 32)]
    assert all(mask.dtype == np.uint8 for mask in masks)
    alone = [decode_masks(logits[[row]], [placements[row]], [sizes[row]])[0] for row in range(3)]
    assert all(np.array_equal(one, other) for one, other in zip(masks, alone, strict=True))


def test_a_mask_may_be_smaller_than_its_image():
    logits, placed = random_logits(2, 16, seed=5), placement(200, 100, 64, "pad")
    small = enlarged(logits, placed, 50, 25)
    direct = enlarged(logits, placement(50, 25, 64, "pad"), 50, 25)
    np.testing.assert_allclose(small, direct, atol=1e-5)


def test_large_masks_are_made_in_strips_that_do_not_show(monkeypatch):
    logits, placed = random_logits(3, 16), placement(70, 90, 64, "pad")
    whole = decode_masks(logits[None], [placed], [(70, 90)])[0]
    monkeypatch.setattr(segmentation, "STRIP_VALUES", 3 * 70 * 4)
    assert len(list(enlarged_strips(logits, placed, 70, 90))) == 23
    assert np.array_equal(decode_masks(logits[None], [placed], [(70, 90)])[0], whole)


def test_of_equal_logits_the_first_class_is_taken():
    logits = np.zeros((1, 3, 4, 4), np.float32)
    logits[0, 1:] = 1
    assert (decode_masks(logits, [placement(9, 9, 16, "pad")], [(9, 9)])[0] == 1).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(wrong):
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[0, 1, 2, 3] = wrong
    with pytest.raises(ValueError, match="NaN or infinite"):
        decode_masks(logits, [placement(8, 8, 16, "pad")], [(8, 8)])


@pytest.mark.parametrize(
    ("shape", "sizes", "said"),
    [
        ((1, 2, 4), [(8, 8)], "are not those of 1 images"),
        ((2, 2, 4, 4), [(8, 8)], "are not those of 1 images"),
        ((1, 2, 4, 8), [(8, 8)], "are not those of 1 images"),
        ((1, 2, 4, 4), [], "0 sizes are not those of 1 images"),
        ((1, 256, 4, 4), [(8, 8)], "1 to 255 classes"),
        ((1, 2, 4, 4), [(0, 8)], "has no pixel"),
    ],
)
def test_other_shapes_are_refused(shape, sizes, said):
    with pytest.raises(ValueError, match=said):
        decode_masks(np.zeros(shape, np.float32), [placement(8, 8, 16, "pad")], sizes)


def test_a_cropped_image_is_refused():
    with pytest.raises(ValueError, match="only a part"):
        decode_masks(np.zeros((1, 2, 4, 4), np.float32), [placement(16, 8, 16, "crop")], [(16, 8)])
