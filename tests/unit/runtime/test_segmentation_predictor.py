"""Masks from a bundle: what is in it, what the predictor answers, and what it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from kinglet.atomic import read_json, write_bytes
from kinglet.errors import KingletError
from kinglet.runtime import DetectionPredictor, Predictor, SegmentationPredictor, bundles, open_predictor
from kinglet.runtime.preprocessing import Placement, placement, prepare
from kinglet.runtime.segmentation import decode_masks
from tests.unit.tasks.segmenter_project import (
    CLASSES,
    HEIGHT,
    SIZE,
    TEACHER,
    WIDTH,
    photos_of_blots,
    write_bundle,
    write_segmenter,
)

PHOTOS, MASKS = photos_of_blots(4, seed=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("segmenter")
    write_segmenter(root, TEACHER)
    write_bundle(root, TEACHER, root / "bundle")
    return root / "bundle"


@pytest.fixture
def damaged(bundle, tmp_path):
    """A copy of the bundle to change."""
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def change_golden(bundle, share: float) -> None:
    """Give this share of the second golden image's pixels another class."""
    with np.load(bundle / bundles.GOLDEN) as opened:
        golden = dict(opened)
    golden[bundles.EXACT_MASKS][1].ravel()[: round(share * SIZE**2)] += 1
    write_bytes(bundle / bundles.GOLDEN, bundles.npz_bytes(golden))
    bundles.seal(bundle)


def test_masks_are_the_decoded_logits_in_pixels_of_each_image(bundle):
    predictor = SegmentationPredictor(bundle, threads=1)
    images = [PHOTOS[0], PHOTOS[1][:40, :30], PHOTOS[2][:, :, 0], PHOTOS[3][:, :, :1]]
    found = predictor.predict(images)
    for image, mask in zip(images, found, strict=True):
        height, width = image.shape[:2]
        logits = predictor.outputs(prepare([image], predictor.preprocessing))
        expected = decode_masks(logits, [placement(width, height, SIZE, "pad")], [(width, height)])[0]
        assert (mask.dtype, mask.shape) == (np.uint8, (height, width))
        assert np.array_equal(mask, expected)
    known = MASKS[0] != 255
    assert (found[0] == MASKS[0])[known].mean() > 0.9


def test_the_shares_of_a_mask_are_those_of_its_pixels(bundle):
    predictor = SegmentationPredictor(bundle, threads=1)
    mask = np.array([[0, 0, 0, 2]], np.uint8)
    assert predictor.shares(mask) == {"ground": 0.75, "green": 0.0, "red": 0.25}


def test_files_are_turned_as_their_exif_data_say(bundle, tmp_path):
    predictor = SegmentationPredictor(bundle, threads=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(PHOTOS[0])).save(tmp_path / "lying.png", exif=exif)
    (found,) = predictor.predict_files([tmp_path / "lying.png"])
    assert np.array_equal(found, predictor.predict([PHOTOS[0]])[0])


def test_the_bundle_says_that_it_is_a_segmenters(bundle):
    facts = read_json(bundle / bundles.PREPROCESSING)
    assert (facts["problem"], facts["format"]) == ("segmentation", 3)
    assert read_json(bundle / bundles.LABELS) == CLASSES
    assert isinstance(open_predictor(bundle), SegmentationPredictor)
    with np.load(bundle / bundles.GOLDEN) as golden:
        assert golden["tolerance"].item() == 0.001
        assert golden["masks"].shape == (2, SIZE, SIZE)
    for other in (Predictor, DetectionPredictor):
        with pytest.raises(KingletError, match="is a bundle for segmentation, not for") as refused:
            other(bundle)
        assert "kinglet.runtime.SegmentationPredictor" in refused.value.hint


def test_few_other_pixels_are_rounding_and_more_are_refused(damaged):
    change_golden(damaged, 0.0009)
    predictor = SegmentationPredictor(damaged, threads=1)
    assert 0.0005 < predictor.check_golden(damaged / bundles.GOLDEN) < 0.001
    change_golden(damaged, 0.01)
    with pytest.raises(
        KingletError, match=r"in image 1, .* % of the pixels are of another class; at most 0.1 % may be"
    ):
        SegmentationPredictor(damaged, threads=1).check_golden(damaged / bundles.GOLDEN)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (PHOTOS[0], "array of 4 dimensions"),
        ([PHOTOS[0].astype(np.float32)], "image 0: an image must be uint8"),
        ([PHOTOS[0], np.zeros((0, 4, 3), np.uint8)], r"image 1: an image must have shape"),
    ],
)
def test_what_is_no_image_is_refused(bundle, images, said):
    with pytest.raises(ValueError, match=said):
        SegmentationPredictor(bundle, threads=1).predict(images)


def test_no_images_have_no_masks(bundle):
    assert SegmentationPredictor(bundle, threads=1).predict([]) == []


def test_a_large_image_gets_a_large_mask(bundle):
    large = np.repeat(np.repeat(PHOTOS[0], 5, axis=0), 5, axis=1)
    (mask,) = SegmentationPredictor(bundle, threads=1).predict([large])
    (small,) = SegmentationPredictor(bundle, threads=1).predict([PHOTOS[0]])
    assert mask.shape == (5 * HEIGHT, 5 * WIDTH)
    assert (mask[2::5, 2::5] == small).mean() > 0.97


def test_an_image_larger_than_a_tile_is_answered_as_if_the_input_were_as_large(tmp_path):
    write_segmenter(tmp_path, TEACHER, fit="tile")
    write_bundle(tmp_path, TEACHER, tmp_path / "bundle")
    predictor = SegmentationPredictor(tmp_path / "bundle", threads=1)
    # Tiles of 64 pixels lie at 0 and 48, where the network's steps of 4 pixels begin as well.
    image = np.tile(PHOTOS[0], (2, 2, 1))[:112, :112]
    (mask,) = predictor.predict([image])
    means = image.reshape(28, 4, 28, 4, 3).mean(axis=(1, 3)) / 255
    logits = np.stack([np.zeros((28, 28)), *(25 * (means[:, :, channel] - TEACHER.threshold) for channel in (1, 0))])
    whole = Placement(112, 112, 1.0, 1.0, 0.0, 0.0, 112)
    (expected,) = decode_masks(logits[None].astype(np.float32), [whole], [(112, 112)])
    assert len(predictor.tiles(112, 112)) == 4
    assert (mask == expected).mean() > 0.9999
    assert len(np.unique(mask)) > 1


def test_with_tiles_a_small_image_keeps_its_scale_and_what_is_no_image_is_refused_by_its_place(tmp_path):
    write_segmenter(tmp_path, TEACHER, fit="tile")
    write_bundle(tmp_path, TEACHER, tmp_path / "bundle")
    predictor = SegmentationPredictor(tmp_path / "bundle", threads=1)
    small = PHOTOS[0][:40, :32]
    assert predictor.predict([small])[0].shape == (40, 32)
    assert np.allclose(prepare([small], predictor.preprocessing)[0, :, 12:52, 16:48], prepared(small), atol=1e-6)
    with pytest.raises(ValueError, match="image 1: "):
        predictor.predict([small, np.zeros((4, 4, 2), np.uint8)])


def prepared(image):
    """Return pixels as the network of these tests takes them, (3, height, width)."""
    return (image.astype(np.float32) / 255).transpose(2, 0, 1)
