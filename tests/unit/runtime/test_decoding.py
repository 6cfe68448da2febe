"""Decoding: every kind of image becomes the pixels one expects, every kind of damage a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kinglet.runtime.decoding import UndecodableImageError, decode, sniff

LIMIT = 100_000_000


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    pixels, facts = decode(encoded(colours(), kind), LIMIT)
    np.testing.assert_array_equal(pixels, np.asarray(colours()))
    assert (facts.format, facts.mode, facts.width, facts.height, facts.frames) == (kind, "RGB", 8, 6, 1)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_what_pillow_gives(kind: str) -> None:
    content = encoded(colours(), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content, LIMIT)[0], expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(dtype: type, kind: str) -> None:
    if kind == "PNG" and dtype is np.int32:
        pytest.skip("PNG has no 32-bit gray")
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype)
    pixels, _ = decode(encoded(Image.fromarray(values), kind), LIMIT)
    np.testing.assert_array_equal(pixels[:, :, 0], np.rint(values / 65535 * 255))


def test_float_gray_between_zero_and_one_is_scaled() -> None:
    content = encoded(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")
    assert decode(content, LIMIT)[0].ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_gray_modes_have_one_channel(mode: str) -> None:
    pixels, facts = decode(encoded(Image.new("L", (3, 2), 255).convert(mode), "PNG"), LIMIT)
    assert pixels.shape == (2, 3, 1)
    assert facts.mode == mode
    assert (pixels == 255).all()


def test_palette_becomes_its_colours() -> None:
    pixels, facts = decode(encoded(Image.new("RGB", (2, 2), (255, 0, 0)).quantize(4), "PNG"), LIMIT)
    assert facts.mode == "P"
    assert (pixels == (255, 0, 0)).all()


def test_cmyk_becomes_rgb() -> None:
    pixels, facts = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMIT)
    assert facts.mode == "CMYK"
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 0, 0] > 200 > 60 > pixels[0, 0, 1]


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert decode(encoded(image, "PNG"), LIMIT)[0].tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_transparent_palette_entry_is_laid_over_white() -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([255, 0, 0])
    assert decode(encoded(image, "PNG", transparency=0), LIMIT)[0].tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame_and_its_length(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    pixels, facts = decode(content, LIMIT)
    assert facts.frames == 3
    assert (pixels == (255, 0, 0)).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn clockwise by a quarter.
    pixels, facts = decode(encoded(colours(), "PNG", exif=exif), LIMIT)
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(colours()), -1))
    assert (facts.width, facts.height) == (6, 8)


def test_twenty_thousand_pixel_image_is_refused_before_decoding() -> None:
    rows = zlib.compress(bytes((1 + 2500) * 20_000), 1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with pytest.raises(UndecodableImageError, match="20000 x 20000 pixels, at most 100000000"):
        decode(content, LIMIT)


def test_limit_is_the_callers_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert decode(encoded(colours(), "PNG"), 48)[0].shape == (6, 8, 3)
    with pytest.raises(UndecodableImageError, match="too large"):
        decode(encoded(colours(), "PNG"), 47)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off_file_is_refused(kind: str, share: float) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content = encoded(image, kind)
    with pytest.raises(UndecodableImageError, match=f"(truncated|damaged) {kind} file"):
        decode(content[: int(len(content) * share)], LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_file_cut_in_half_is_called_truncated(kind: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content = encoded(image, kind)
    with pytest.raises(UndecodableImageError, match=r"^truncated"):
        decode(content[: len(content) // 2], LIMIT)


def test_corrupt_file_is_refused() -> None:
    content = bytearray(encoded(colours(), "PNG"))
    place = content.index(b"IDAT") + 4
    content[place : place + 8] = b"\0" * 8
    with pytest.raises(UndecodableImageError, match="PNG file"):
        decode(bytes(content), LIMIT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"%PDF-1.7", "not an image"),
        (zlib.compress(b"x" * 100), "not an image"),
        (b"BMW is a car, not a bitmap", "BMP file"),
        (b"\xff\xd8\xff", "JPEG file"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImageError, match=reason):
        decode(content, LIMIT)


def test_values_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(UndecodableImageError, match="32-bit"):
        decode(encoded(Image.fromarray(np.array([[70_000]], np.int32)), "TIFF"), LIMIT)


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan")])
def test_floats_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(UndecodableImageError, match="floating-point"):
        decode(encoded(Image.fromarray(np.array([[0.5, value]], np.float32)), "TIFF"), LIMIT)


def test_sniff_knows_every_format_by_its_first_bytes() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        assert sniff(encoded(colours(), kind)[:12]) == kind
