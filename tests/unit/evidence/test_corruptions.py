"""The corruptions against what was published, against slow references, and at sizes nobody published."""

import colorsys
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kinglet.evidence.corruptions import blur, digital, pixels, weather
from kinglet.evidence.corruptions.kinds import FAMILIES, KINDS, corrupt
from kinglet.evidence.corruptions.severities import (
    CIFAR_10_C,
    IMAGENET_C,
    PUBLISHED,
    SEVERITIES,
    TINY_IMAGENET_C,
    published_for,
)
from kinglet.evidence.corruptions.shifts import SHIFTS, expose
from kinglet.evidence.corruptions.streams import image_keys, streams_of
from kinglet.runtime.preprocessing import resize

EVERYTHING = [*KINDS, *SHIFTS]


def pictures(n, height, width, channels, seed=0):
    """Return pictures of bright stripes on a dark ground, every one and every channel in a direction of its own."""
    turns = np.random.default_rng(seed).uniform(0, np.pi, (n, 1, 1, channels))
    down, right = np.arange(height)[None, :, None, None], np.arange(width)[None, None, :, None]
    waves = np.sin((down * np.sin(turns) + right * np.cos(turns)) * 2 * np.pi / 7)
    shade = 0.6 + 0.4 * right / max(width, 2)
    return np.rint(255 * (0.25 + 0.35 * (waves > 0)) * shade).astype(np.uint8)


def applied(images, kind, severity, seed=0):
    return corrupt(images, kind, severity, image_keys(images), seed)


def distance(one, other):
    return np.abs(one.astype(float) - other.astype(float)).mean()


@pytest.mark.parametrize(
    ("published", "kind", "settings"),
    [
        (IMAGENET_C, "gaussian_noise", (0.08, 0.12, 0.18, 0.26, 0.38)),
        (IMAGENET_C, "shot_noise", (60, 25, 12, 5, 3)),
        (IMAGENET_C, "glass_blur", ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
        (IMAGENET_C, "defocus_blur", ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
        (IMAGENET_C, "motion_blur", ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
        (IMAGENET_C, "frost", ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
        (IMAGENET_C, "fog", ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
        (IMAGENET_C, "contrast", (0.4, 0.3, 0.2, 0.1, 0.05)),
        (IMAGENET_C, "jpeg_compression", (25, 18, 15, 10, 7)),
        (TINY_IMAGENET_C, "impulse_noise", (0.01, 0.02, 0.05, 0.08, 0.14)),
        (TINY_IMAGENET_C, "defocus_blur", ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1))),
        (CIFAR_10_C, "gaussian_noise", (0.04, 0.06, 0.08, 0.09, 0.10)),
        (CIFAR_10_C, "pixelate", (0.95, 0.9, 0.85, 0.75, 0.65)),
        (CIFAR_10_C, "brightness", (0.05, 0.1, 0.15, 0.2, 0.3)),
    ],
)
def test_settings_are_the_published_ones(published, kind, settings):
    assert published.settings[kind] == settings


def test_every_set_has_every_kind_in_five_severities():
    assert [kind for family in FAMILIES.values() for kind in family] == list(KINDS)
    for published in PUBLISHED:
        assert list(published.settings) == list(KINDS)
        assert all(len(of_kind) == 5 for of_kind in published.settings.values())
    assert [len(factors) for factors in IMAGENET_C.settings["zoom_blur"]] == [12, 16, 11, 13, 11]
    # 244 px, as the script has it, for images of 224.
    assert IMAGENET_C.settings["elastic_transform"][4][0] * 224 == pytest.approx(244 * 0.12)


@pytest.mark.parametrize(
    ("edge", "name"),
    [(28, "CIFAR-10-C"), (45, "CIFAR-10-C"), (46, "Tiny ImageNet-C"), (119, "Tiny ImageNet-C"), (120, "ImageNet-C")],
)
def test_the_set_of_settings_follows_the_size(edge, name):
    assert published_for(edge, 2 * edge).name == name


@pytest.mark.parametrize("kind", EVERYTHING)
@pytest.mark.parametrize("shape", [(6, 28, 28, 1), (2, 96, 64, 3)])
def test_a_corruption_keeps_shape_and_grows_with_its_severity(kind, shape):
    images = pictures(*shape)
    found = [applied(images, kind, severity) for severity in SEVERITIES]
    assert all(item.shape == images.shape and item.dtype == np.uint8 for item in found)
    assert all(distance(item, images) > 0.3 for item in found[1:])
    # As published, a mild elastic transform moves the whole picture farther than a severe one, which bends its lines.
    assert kind == "elastic_transform" or distance(found[4], images) > distance(found[0], images)


@pytest.mark.parametrize("edge", [32, 64, 224])
def test_elastic_transforms_bend_lines_more_and_more(edge):
    ramp = np.tile(np.linspace(0, 255, edge).astype(np.uint8)[:, None], (20, edge, 1, 1))
    ramp[:, 0, 0, 0] = np.arange(20)  # each draws numbers of its own
    inner = slice(edge // 3, -(edge // 3))
    bends = []
    for severity in SEVERITIES:
        found = applied(ramp, "elastic_transform", severity)[:, inner, inner, 0].astype(float)
        bends.append(np.abs(np.diff(found, 2, axis=1)).mean())
    assert bends[4] > bends[2] > bends[0]


@pytest.mark.parametrize("kind", EVERYTHING)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 3), (2, 16, 16, 1), (1, 300, 260, 3)])
def test_sizes_that_nobody_published(kind, shape):
    images = pictures(*shape)
    for severity in (1, 5):
        found = applied(images, kind, severity)
        assert found.shape == shape
        assert found.dtype == np.uint8


@pytest.mark.parametrize("kind", EVERYTHING)
def test_an_image_looks_the_same_in_any_batch_and_run(kind):
    images = pictures(5, 28, 28, 3)
    together = applied(images, kind, 4, seed=3)
    for place in (0, 3):
        alone = applied(images[place : place + 1], kind, 4, seed=3)
        assert np.array_equal(alone[0], together[place])
    assert np.array_equal(applied(images[::-1], kind, 4, seed=3)[::-1], together)


def test_the_seed_and_the_pixels_decide_what_is_drawn():
    image = pictures(1, 28, 28, 1)
    other = image.copy()
    other[0, 0, 0] ^= 1
    first = applied(image, "impulse_noise", 5)
    assert not np.array_equal(first, applied(image, "impulse_noise", 5, seed=1))
    struck = [(item == 0) | (item == 255) for item in (first, applied(other, "impulse_noise", 5))]
    assert not np.array_equal(*struck)


def test_black_and_white_images_stay_finite():
    for value in (0, 255):
        images = np.full((2, 28, 28, 3), value, np.uint8)
        for kind in EVERYTHING:
            assert applied(images, kind, 3).shape == images.shape
    assert (applied(np.zeros((1, 8, 8, 3), np.uint8), "fog", 5) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.zeros((1, 8, 8, 1)), "fog", 1), "uint8"),
        ((np.zeros((8, 8, 1), np.uint8), "fog", 1), "uint8"),
        ((np.zeros((1, 8, 8, 4), np.uint8), "fog", 1), "1 or 3"),
        ((np.zeros((1, 8, 8, 1), np.uint8), "rain", 1), "no corruption 'rain'"),
        ((np.zeros((1, 8, 8, 1), np.uint8), "fog", 0), "1 to 5"),
        ((np.zeros((2, 8, 8, 1), np.uint8), "fog", 1), "1 keys for 2"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        corrupt(*arguments, keys=np.zeros(1, np.uint64))


def test_no_images_give_no_images():
    nothing = np.zeros((0, 28, 28, 1), np.uint8)
    assert all(applied(nothing, kind, 5).shape == nothing.shape for kind in EVERYTHING)


def test_noise_has_the_strength_that_its_setting_says():
    gray = np.full((4, 200, 200, 1), 128, np.uint8)
    light = 128 / 255
    assert applied(gray, "gaussian_noise", 1).std() / 255 == pytest.approx(0.08, rel=0.02)
    shot = applied(gray, "shot_noise", 1)
    assert shot.mean() / 255 == pytest.approx(light, rel=0.01)
    assert shot.std() / 255 == pytest.approx(np.sqrt(light / 60), rel=0.03)
    impulse = applied(gray, "impulse_noise", 4)
    assert (impulse == 255).mean() == pytest.approx(0.085, rel=0.05)
    assert (impulse == 0).mean() == pytest.approx(0.085, rel=0.05)


def test_noise_differs_from_pixel_to_pixel_and_from_image_to_image():
    drawn = applied(pictures(3, 32, 32, 1), "gaussian_noise", 5).astype(float) - pictures(3, 32, 32, 1)
    between = np.corrcoef(drawn.reshape(3, -1))
    assert np.abs(between[np.triu_indices(3, 1)]).max() < 0.12


def test_brightness_adds_to_the_value_of_hsv():
    colours = np.random.default_rng(0).integers(0, 256, (1, 5, 40, 3), dtype=np.uint8)
    colours[0, 0, 0] = 0
    found = weather.brightness(colours, 0.2, ())
    for before, after in zip(colours.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        wanted = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))) * 255
        assert np.abs(after - wanted).max() <= 0.51


def test_contrast_shrinks_the_distance_to_the_mean_of_every_channel():
    images = pictures(2, 30, 20, 3)
    means = images.mean(axis=(1, 2), keepdims=True)
    assert np.abs(digital.contrast(images, 0.3, ()) - (means + 0.3 * (images - means))).max() <= 0.51


def test_defocus_is_the_mean_over_a_disk():
    image = pictures(1, 40, 40, 1)
    kernel = blur.disk(4, 0.5)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    wanted = ndimage.correlate(image[0, :, :, 0].astype(float), kernel, mode="mirror")
    assert np.abs(blur.defocus_blur(image, (4, 0.5), ())[0, :, :, 0] - wanted).max() <= 0.51
    assert np.count_nonzero(blur.disk(3, 1e-3) > 1e-9) == 29  # whole pixels within 3 of the middle


@pytest.mark.parametrize(("height", "width", "farthest", "rounds"), [(12, 9, 1, 2), (17, 23, 3, 2), (30, 30, 4, 1)])
def test_glass_displaces_as_pixel_by_pixel(height, width, farthest, rounds):
    keys = np.array([5, 6], np.uint64)
    found = blur.displaced(height, width, farthest, rounds, streams_of(keys, 0, 0))
    rows, columns = range(height - farthest, farthest, -1), range(width - farthest, farthest, -1)
    for stream, sources in zip(streams_of(keys, 0, 0), found, strict=True):
        shifts = stream.random((rounds, 2, len(rows), len(columns)), dtype=np.float32)
        wanted = np.arange(height * width).reshape(height, width)
        for one_round in range(rounds):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    down, right = np.floor(shifts[one_round, :, i, j] * 2 * farthest).astype(int) - farthest
                    wanted[row, column] = wanted[row + down, column + right]
        assert np.array_equal(sources.reshape(height, width), wanted)


def test_motion_smears_to_one_side_by_half_a_normal_curve():
    light = np.zeros((1, 21, 41, 1), np.float32)
    light[0, 10, 30] = 1
    weights = np.exp(-(np.arange(21) ** 2) / (2 * 3**2))
    found = blur.smeared(light, 10, 3, np.zeros(1, np.float32))[0, 10, 10:31, 0][::-1]
    assert np.allclose(found, weights / weights.sum(), atol=1e-5)
    upright = blur.smeared(light.transpose(0, 2, 1, 3), 10, 3, np.full(1, 90, np.float32))[0, 10:31, 10, 0][::-1]
    assert np.allclose(upright, found, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 1.06, 1.25, 2.25, 4.5])
@pytest.mark.parametrize("edge", [28, 64])
def test_zoom_is_that_of_scipy(edge, factor):
    light = np.random.default_rng(0).random((1, edge, edge, 1), np.float32)
    middle = int(np.ceil(edge / factor))
    top = (edge - middle) // 2
    enlarged = ndimage.zoom(light[0, top : top + middle, top : top + middle, 0], factor, order=1)
    trim = (len(enlarged) - edge) // 2
    wanted = enlarged[trim : trim + edge, trim : trim + edge]
    assert np.abs(pixels.clipped_zoom(light, factor)[0, :, :, 0] - wanted).max() < 1e-5


@pytest.mark.parametrize("mirror", ["edge", "centre"])
def test_sampling_is_that_of_scipy(mirror):
    generator = np.random.default_rng(1)
    light = generator.random((2, 9, 7, 3), np.float32)
    rows, columns = generator.uniform(-12, 20, (2, 2, 30, 30))
    found = pixels.sample(light, rows, columns, mirror)
    for image in range(2):
        for channel in range(3):
            wanted = ndimage.map_coordinates(
                light[image, :, :, channel],
                [rows[image], columns[image]],
                order=1,
                mode={"edge": "reflect", "centre": "mirror"}[mirror],
            )
            assert np.abs(found[image, :, :, channel] - wanted).max() < 1e-5


def test_elastic_fields_are_blurred_like_scipy():
    fields = np.random.default_rng(2).random((1, 2, 24, 31), np.float32)
    for deviation in (0.9, 6.4, 40):
        wanted = ndimage.gaussian_filter(fields[0, 1].astype(float), deviation, mode="reflect", truncate=3)
        assert np.abs(digital.smooth_fields(fields, deviation)[0, 1] - wanted).max() < 1e-5


def test_a_shear_brings_its_three_points_where_they_belong():
    jitter = np.random.default_rng(3).uniform(-3, 3, (1, 3, 2)).astype(np.float32)
    rows, columns = digital.sheared(60, 60, jitter)
    down, right = np.arange(60)[:, None] * np.ones(60), np.ones((60, 1)) * np.arange(60)
    for corner, moved in zip([(50, 50), (50, 10), (10, 10)], jitter[0], strict=True):
        new = np.array(corner) + moved
        back = [
            pixels.sample(field[..., None].astype(np.float32), *new.reshape(2, 1, 1, 1), "edge")
            for field in (rows, columns)
        ]
        assert np.allclose(np.ravel(back), corner, atol=1e-3)
    assert np.allclose(digital.sheared(60, 60, 0 * jitter), [[down], [right]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resample", [Image.Resampling.BOX, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("size", [(7, 13), (28, 28), (48, 40)])
def test_a_batch_is_resized_bit_for_bit_like_every_image_alone(channels, resample, size):
    images = np.random.default_rng(4).integers(0, 256, (3, 28, 28, channels), dtype=np.uint8)
    found = pixels.resize_batch(images, *size, resample)
    for image, small in zip(images, found, strict=True):
        alone = Image.fromarray(image[:, :, 0] if channels == 1 else image).resize(size[::-1], resample)
        assert np.array_equal(small, np.asarray(alone).reshape(*size, channels))


def test_a_batch_is_resized_as_the_server_does_it():
    images = pictures(3, 28, 28, 3)
    found = pixels.resize_batch(images, 48, 48, Image.Resampling.BILINEAR)
    assert np.array_equal(found, np.stack([resize(image, 48, "stretch") for image in images]))


def test_jpeg_and_pixels_are_those_of_pillow():
    images = pictures(2, 40, 32, 3)
    written = io.BytesIO()
    Image.fromarray(images[1]).save(written, "JPEG", quality=25)
    assert np.array_equal(digital.jpeg_compression(images, 25, ())[1], np.asarray(Image.open(written)))
    coarse = Image.fromarray(images[1]).resize((9, 12), Image.Resampling.BOX).resize((32, 40), Image.Resampling.BOX)
    assert np.array_equal(digital.pixelate(images, 0.3, ())[1], np.asarray(coarse))


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 40, 32), (2, 13, 9), (1, 1, 1), (2300, 28, 7)])
@pytest.mark.parametrize("quality", [7, 65])
def test_gray_images_go_through_jpeg_together_bit_for_bit_as_alone(shape, quality):
    images = np.random.default_rng(6).integers(0, 256, (*shape, 1), dtype=np.uint8)
    found = digital.jpeg_compression(images, quality, ())
    for place in {0, shape[0] // 2, shape[0] - 1}:
        assert np.array_equal(found[place], digital.through_jpeg(images[place], quality))


def test_clouds_fill_the_range_and_fit_together_at_their_rims():
    clouds = weather.plasma(np.random.default_rng(5).random((3, 64, 64), np.float32), 2)
    assert clouds.min(axis=(1, 2)).tolist() == [0, 0, 0]
    assert clouds.max(axis=(1, 2)).tolist() == [1, 1, 1]
    across = np.abs(np.diff(clouds, axis=1)).mean()
    assert np.abs(clouds[:, -1] - clouds[:, 0]).mean() < 2 * across
    # Rougher where the noise shrinks less from grid to grid.
    rough = weather.plasma(np.random.default_rng(5).random((3, 64, 64), np.float32), 1.3)
    assert np.abs(np.diff(rough, axis=1)).mean() > 1.5 * across


def test_frost_is_bluish_has_structure_and_is_the_same_every_time():
    frost = weather.frost_texture(1024, 0.2, 3)
    assert frost.shape == (205, 205, 3)
    assert 0.2 < frost.mean() < 0.7
    assert frost.std() > 0.1
    assert (frost[..., 2].mean() > frost[..., 0].mean()).all()
    weather.frost_picture.cache_clear()
    assert np.array_equal(weather.frost_texture(1024, 0.2, 3), frost)


def test_an_exposure_doubles_light_and_not_bytes():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(expose(ramp, 0), ramp)
    # Middle gray, 18 % of the light, is byte 118; twice the light is byte 162.
    assert expose(ramp, 1).ravel()[118] == pytest.approx(162, abs=1)
    assert np.abs(expose(expose(ramp, -0.5), 0.5).astype(int) - ramp).max() <= 2
