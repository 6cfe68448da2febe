import pytest

from kinglet.compression.dense import WIDTH_STEP, largest_as_fast, narrower, widest_as_fast
from kinglet.compression.latency import Latency, is_faster
from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage

SPEC = ResidualCnnSpec(1, (ResidualStage(16, 2, (16,)), ResidualStage(32, 2, (20, 12))), 10)


def latency(low, value, high):
    return Latency(value, low, high, "int8")


def width(spec):
    return spec.stages[0].width


@pytest.mark.parametrize(
    ("cut", "whole", "expected"),
    [
        (latency(0.8, 0.9, 1.0), latency(1.1, 1.2, 1.3), True),
        (latency(0.8, 0.9, 1.1), latency(1.1, 1.2, 1.3), False),
        (latency(1.1, 1.2, 1.3), latency(0.8, 0.9, 1.0), False),
    ],
)
def test_a_cut_is_faster_only_if_the_intervals_do_not_touch(cut, whole, expected):
    assert is_faster(cut, whole) is expected


def test_narrower_networks_keep_depth_and_classes_and_are_dense():
    found = list(narrower(SPEC))
    widths = [width(spec) for spec in found]
    assert widths == sorted(widths, reverse=True)
    assert len(set(found)) == len(found) >= 4
    for spec in found:
        assert (spec.in_channels, spec.n_classes) == (1, 10)
        assert width(spec) <= 16
        for stage, before in zip(spec.stages, SPEC.stages, strict=True):
            assert stage.width % WIDTH_STEP == 0
            assert (stage.stride, len(stage.inner)) == (before.stride, len(before.inner))
            assert set(stage.inner) == {stage.width}


@pytest.mark.parametrize(("limit", "expected"), [(9.0, 8), (8.0, 8), (7.9, 4), (3.9, None)])
def test_the_widest_network_that_takes_no_longer_is_found(limit, expected):
    latencies = {spec: latency(0, width(spec), 99) for spec in narrower(SPEC)}
    found = widest_as_fast(latencies, latency(limit, limit, limit))
    assert (found and width(found)) == expected


@pytest.mark.parametrize(("limit", "expected"), [(9.0, 24), (8.0, 24), (7.9, 20), (4.9, None)])
def test_the_largest_images_on_which_the_whole_network_takes_no_longer_are_found(limit, expected):
    latencies = {size: latency(0, time, 99) for size, time in ((16, 5), (20, 6), (24, 8))}
    assert largest_as_fast(latencies, latency(limit, limit, limit)) == expected


def test_no_sizes_leave_no_rival():
    assert largest_as_fast({}, latency(9, 9, 9)) is None
