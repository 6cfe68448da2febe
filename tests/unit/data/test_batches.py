import numpy as np
import pytest
import torch

from kinglet.data.batches import count_batches, gather, open_packed, shuffled_batches, standardize
from kinglet.runtime.preprocessing import Preprocessing, normalize

GRID = [(n, batch) for n in (1, 2, 3, 7, 8, 9, 11, 12, 16, 30, 31) for batch in (1, 2, 3, 8, 64)]


@pytest.mark.parametrize("channels", [1, 3])
def test_gathered_rows_are_pixels_with_channels_first(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5, channels), np.uint8)
    np.save(tmp_path / "images.npy", images)
    packed = open_packed(tmp_path / "images.npy")
    assert isinstance(packed, np.memmap)
    assert not packed.flags.writeable
    rows = np.array([4, 0, 4])
    pixels = gather(packed, rows)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(pixels.numpy(), images[rows].transpose(0, 3, 1, 2))
    pixels.zero_()
    np.testing.assert_array_equal(open_packed(tmp_path / "images.npy"), images)


@pytest.mark.parametrize(("mean", "std"), [((0.45,), (0.22,)), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))])
def test_network_is_trained_on_what_it_is_served(mean, std):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, len(mean)), np.uint8)
    found = standardize(gather(images, np.arange(3)), list(mean), list(std)).numpy()
    np.testing.assert_allclose(found, normalize(images, Preprocessing(4, len(mean), "crop", mean, std)), atol=1e-6)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(("n_examples", "batch_size"), GRID)
def test_batches_hold_every_example_once_but_a_small_rest(n_examples, batch_size):
    batches = list(shuffled_batches(n_examples, batch_size, torch.Generator().manual_seed(0)))
    assert len(batches) == count_batches(n_examples, batch_size)
    positions = np.concatenate(batches)
    assert len(set(positions.tolist())) == len(positions)
    assert set(positions.tolist()) <= set(range(n_examples))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches) == 1 or len(batches[-1]) * 2 >= batch_size
    left_out = n_examples - len(positions)
    assert left_out == 0 or left_out * 2 < batch_size


def test_order_is_random_and_the_seeds():
    def order(seed):
        return np.concatenate(list(shuffled_batches(100, 10, torch.Generator().manual_seed(seed)))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))
