import numpy as np
import pytest
import scipy.stats
import torch

from kinglet.compression.calibration import (
    METHODS,
    N_BINS,
    Histogram,
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
    range_of,
    stream_histograms,
    thinned,
    with_zero,
)
from kinglet.models.export import to_onnx
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS

GENERATOR = np.random.default_rng(0)
SAMPLES = {
    "normal": GENERATOR.normal(0, 1, 50_000),
    "relu with a long tail": np.maximum(GENERATOR.standard_t(3, 50_000), 0),
    "all negative": -GENERATOR.gamma(2, 1, 50_000),
    "far from zero": GENERATOR.normal(10, 0.5, 50_000),
    "one outlier": np.append(GENERATOR.uniform(-1, 1, 50_000), 40.0),
}


def histogram_of(sample, n_bins=N_BINS):
    low, high = float(sample.min()), float(sample.max())
    return Histogram(low, high, np.histogram(sample, n_bins, (low, high))[0].astype(float))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1, 2, (-1, 2)), (1, 2, (0, 2)), (-3, -1, (-3, 0)), (0, 0, (0, 1e-6))],
)
def test_range_holds_zero_and_is_never_empty(low, high, expected):
    assert with_zero(low, high) == expected


@pytest.mark.parametrize("name", list(SAMPLES))
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_gives_a_range_with_zero_within_what_was_seen(method, name):
    sample = SAMPLES[name]
    low, high = METHODS[method](histogram_of(sample))
    assert low <= 0 <= high
    assert low < high
    assert min(0, sample.min()) - 1e-9 <= low
    assert high <= max(0, sample.max()) + 1e-9


@pytest.mark.parametrize("name", list(SAMPLES))
def test_minmax_is_everything_seen(name):
    sample = SAMPLES[name]
    assert minmax_range(histogram_of(sample)) == (min(0, sample.min()), max(0, sample.max()))


@pytest.mark.parametrize("name", list(SAMPLES))
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.87, 100.0])
def test_percentile_is_that_of_the_values_to_within_a_bin(name, percentile):
    sample = SAMPLES[name]
    low, high = np.percentile(sample, [100 - percentile, percentile], method="inverted_cdf")
    width = (sample.max() - sample.min()) / N_BINS
    found = percentile_range(histogram_of(sample), percentile)
    assert found == pytest.approx((min(low, 0), max(high, 0)), abs=1.5 * width)


def candidates(sample):
    return [(min(sample.min(), 0) * share, max(sample.max(), 0) * share) for share in np.linspace(1, 0.3, 36)]


def squared_error(sample, low, high):
    scale = (high - low) / 255
    rounded = np.rint((np.clip(sample, low, high) - low) / scale) * scale + low
    return ((sample - rounded) ** 2).mean()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_mse_range_has_the_smallest_error_on_the_values_themselves(name):
    sample = SAMPLES[name]
    smallest = min(squared_error(sample, *candidate) for candidate in candidates(sample))
    assert squared_error(sample, *mse_range(histogram_of(sample))) <= smallest * 1.02 + 1e-12


def divergence(histogram, low, high):
    """Kullback-Leibler divergence of what a decoder of 256 levels would see, one bin at a time."""
    levels = {}
    for bin_number, count in enumerate(histogram.counts):
        if count:
            centre = histogram.low + (bin_number + 0.5) * (histogram.high - histogram.low) / len(histogram.counts)
            level = round((min(max(centre, low), high) - low) / (high - low) * 255)
            levels.setdefault(level, []).append(count)
    true, seen = [], []
    for counts in levels.values():
        true += counts
        seen += [sum(counts) / len(counts)] * len(counts)
    return scipy.stats.entropy(true, seen)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_entropy_range_has_the_smallest_divergence(name):
    sample = SAMPLES[name]
    histogram = histogram_of(sample, 700)
    smallest = min(divergence(histogram, *candidate) for candidate in candidates(sample))
    # Values halfway between two levels may be counted to either.
    assert divergence(histogram, *entropy_range(histogram)) <= smallest * 1.05 + 1e-9


def test_an_outlier_is_cut_off_by_all_but_minmax():
    histogram = histogram_of(SAMPLES["one outlier"])
    assert minmax_range(histogram)[1] == 40
    assert percentile_range(histogram)[1] < 1.1
    assert mse_range(histogram)[1] < 40


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request):
    return to_onnx(NETWORKS[request.param](), 32, 3, {})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(0, 1, (7, 3, 32, 32)).astype(np.float32)


def test_histograms_count_every_value_of_every_tensor(model, images):
    histograms = stream_histograms(model, images)
    assert histograms.keys() == {"images"} | {name for node in model.graph.node for name in node.output}
    first = model.graph.node[0].output[0]
    assert histograms["images"].counts.sum() == images.size
    assert histograms[first].counts.sum() == 7 * 16 * 16 * 16
    assert histograms["logits"].counts.sum() == 7 * 4
    assert all(len(histogram.counts) == N_BINS for histogram in histograms.values())


def test_histograms_are_those_of_the_values(model, images):
    histograms = stream_histograms(model, images)
    logits = run(open_session(model.SerializeToString(), threads=1), images)
    for name, values in {"images": images, "logits": logits}.items():
        histogram = histograms[name]
        assert (histogram.low, histogram.high) == pytest.approx((values.min(), values.max()), abs=1e-5)
        edges = np.linspace(histogram.low, histogram.high, N_BINS + 1)
        assert np.abs(np.cumsum(histogram.counts) - np.searchsorted(np.sort(values.ravel()), edges[1:])).max() <= 2


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_change_the_histograms(model, images, batch_size):
    whole, streamed = stream_histograms(model, images), stream_histograms(model, images, batch_size)
    assert streamed.keys() == whole.keys()
    for name, histogram in whole.items():
        found = streamed[name]
        assert (found.low, found.high) == pytest.approx((histogram.low, histogram.high), abs=1e-5)
        assert found.counts.sum() == histogram.counts.sum()
        # Sums in another order may move a value across the border of its bin.
        moved = np.abs(np.cumsum(found.counts) - np.cumsum(histogram.counts)).max()
        assert moved <= 2 + 0.001 * histogram.counts.sum()


@pytest.mark.parametrize("value", [0.0, 3.0, -100.0, 1e6])
def test_a_tensor_of_one_value_has_a_histogram(model, value):
    constant = np.full((2, 3, 32, 32), value, np.float32)
    histogram = stream_histograms(model, constant)["images"]
    assert histogram.low == value < histogram.high
    assert histogram.counts.sum() == histogram.counts[0] == constant.size


def test_the_model_itself_is_not_changed(model, images):
    before = model.SerializeToString()
    stream_histograms(model, images[:1])
    assert model.SerializeToString() == before


def test_clipped_tensors_stay_within_their_clip():
    model = to_onnx(NETWORKS["inverted-residual"](), 32, 3, {})
    clipped = [node.output[0] for node in model.graph.node if node.op_type == "Clip"]
    histograms = stream_histograms(model, torch.randn(2, 3, 32, 32).numpy() * 50)
    assert clipped
    assert all(histograms[name].low == 0 and histograms[name].high <= 6 for name in clipped)


@pytest.mark.parametrize(
    ("shape", "most", "step"), [((2, 3, 8, 8), 192, 1), ((2, 3, 8, 8), 100, 3), ((2, 6, 9), 20, 4)]
)
def test_of_many_values_some_from_everywhere_are_counted(shape, most, step):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = thinned(values, most)
    assert found.shape[1] <= most
    np.testing.assert_array_equal(found, values.reshape(len(values), -1)[:, ::step])
    columns = {int(value) % shape[-1] for value in found.ravel()}
    assert columns == set(range(shape[-1]))


def test_thinning_moves_hardly_any_range():
    generator = np.random.default_rng(0)
    inputs = np.abs(generator.normal(0, 1, (4, 3, 300, 300))).astype(np.float32)
    full, thin = (np.histogram(values, 2048, (0.0, float(inputs.max())))[0] for values in (inputs, thinned(inputs)))
    for method in ("percentile", "mse"):
        whole, part = (
            range_of(Histogram(0.0, float(inputs.max()), counts.astype(float)), method) for counts in (full, thin)
        )
        assert part[1] == pytest.approx(whole[1], rel=0.06)
