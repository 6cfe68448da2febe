"""Images with masks that are cut into tiles."""

from pathlib import Path

import numpy as np

from kinglet.data.masks.tiling import TileOf, tiled
from tests.unit.data.masks.masked_folder import halves, read, write_image, write_mask


def a_set(root: Path) -> Path:
    """Write two large images and a small one."""
    for name, size in (("large", (150, 90)), ("small", (40, 30)), ("wide", (128, 20))):
        write_image(root / "images" / f"{name}.jpg", len(name), size)
        write_mask(root / "masks" / f"{name}.png", halves(size, right=255))
    return root


def test_tiles_are_named_after_where_they_lie_and_the_small_image_keeps_its_name(tmp_path: Path) -> None:
    found = tiled(read(a_set(tmp_path)), 64)
    names = [image.path for image in found.images]
    assert names[:2] == ["images/large.jpg#0,0", "images/large.jpg#43,0"]
    assert "images/small.jpg" in names
    assert len(names) == len(set(names)) == 3 * 2 + 1 + 3


def test_the_mask_of_a_tile_is_that_part_of_the_images_mask(tmp_path: Path) -> None:
    whole = read(a_set(tmp_path))
    large = whole.masks.draw(whole.images[0])
    cut = tiled(whole, 64)
    for image in cut.images[:6]:
        of_tile: TileOf = image.drawn_from
        drawn = cut.masks.draw(image)
        assert np.array_equal(drawn, of_tile.tile.cut(large))
        assert drawn.shape == (image.height, image.width)
        assert image.pixels == tuple(np.bincount(drawn.ravel(), minlength=2).tolist())


def test_one_tile_stands_for_an_image_that_cannot_be_used(tmp_path: Path) -> None:
    root = a_set(tmp_path)
    write_mask(root / "masks" / "large.png", halves((90, 90), right=255))
    cut = tiled(read(root), 64)
    (unusable,) = [image for image in cut.images if image.problem]
    assert unusable.path == "images/large.jpg"
    assert (unusable.width, unusable.height) == (64, 64)


def test_classes_that_are_left_out_are_void_in_tiles_too(tmp_path: Path) -> None:
    cut = tiled(read(a_set(tmp_path)), 64)
    drawn = cut.masks.without([cut.classes[0]]).draw(cut.images[0])
    assert set(np.unique(drawn)) == {0, 255}
