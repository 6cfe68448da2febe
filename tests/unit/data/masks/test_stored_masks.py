"""What is read out of mask files of every mode, number by number."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kinglet.data.masks.faults import UnusableMaskError
from kinglet.data.masks.stored_masks import StoredMask, read_stored_mask

NUMBERS = np.array([[0, 1, 2], [3, 3, 255]], np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, *[9] * 759])
    return image


def read(content: bytes, *, by_color: bool = False) -> StoredMask:
    return read_stored_mask(content, 10**6, by_color=by_color)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_gray_numbers_stay_as_they_are(kind: str) -> None:
    found = read(encoded(Image.fromarray(NUMBERS), kind))
    np.testing.assert_array_equal(found.codes, NUMBERS)
    assert (found.codes.dtype, found.is_colored) == (np.int32, False)
    assert found.counts() == {0: 1, 1: 1, 2: 1, 3: 2, 255: 1}


def test_sixteen_bits_are_not_scaled() -> None:
    numbers = np.array([[0, 300], [7, 65535]], np.uint16)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(numbers))).codes, numbers)


def test_one_bit_gives_nought_and_one() -> None:
    np.testing.assert_array_equal(read(encoded(Image.fromarray(NUMBERS > 2))).codes, NUMBERS > 2)


@pytest.mark.parametrize(("bits", "most"), [(2, 3), (4, 15)])
def test_few_bits_of_gray_are_not_stretched(bits: int, most: int) -> None:
    """Pillow shows such files stretched to 255; written here by hand, as it writes none."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    # One pixel of the highest number, the row's other pixels 0.
    head = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    row = bytes([0, most << (8 - bits)])
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert read(content).codes.tolist() == [[most, 0]]


def test_a_palette_is_read_as_numbers_or_as_the_colours_of_a_table() -> None:
    content = encoded(palette_image())
    np.testing.assert_array_equal(read(content).codes, NUMBERS)
    colored = read(content, by_color=True)
    assert colored.is_colored
    assert colored.codes[0].tolist() == [200 << 16, 200 << 8, 200]


def test_rgb_that_is_gray_counts_as_gray_unless_colours_mean_classes() -> None:
    content = encoded(Image.fromarray(NUMBERS).convert("RGB"))
    np.testing.assert_array_equal(read(content).codes, NUMBERS)
    assert read(content, by_color=True).is_colored
    assert read(encoded(palette_image().convert("RGB"))).is_colored


def test_an_alpha_channel_may_only_be_opaque() -> None:
    image = Image.fromarray(NUMBERS).convert("LA")
    np.testing.assert_array_equal(read(encoded(image)).codes, NUMBERS)
    image.putalpha(Image.fromarray(NUMBERS))
    with pytest.raises(UnusableMaskError, match="has transparent pixels"):
        read(encoded(image))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read: not an image"),
        (b"no image", "cannot be read: not an image"),
        (encoded(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))[:-30], "cannot be read: truncated"),
        (encoded(Image.fromarray(NUMBERS), "JPEG"), "is a JPEG file, which does not keep classes exactly"),
        (encoded(Image.fromarray(NUMBERS.astype(np.float32)), "TIFF"), "is of the mode F"),
        (encoded(Image.fromarray(NUMBERS.astype(np.int32) - 1), "TIFF"), "holds numbers from -1 to 254"),
        (encoded(Image.new("CMYK", (2, 2)), "TIFF"), "is of the mode CMYK"),
        (encoded(Image.new("L", (2000, 2000))), "cannot be read: too large"),
    ],
    ids=["empty", "text", "cut off", "JPEG", "floats", "below 0", "CMYK", "too large"],
)
def test_what_does_not_keep_numbers_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(UnusableMaskError, match=said):
        read(content)
