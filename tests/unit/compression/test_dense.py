import pytest

from kinglet.compression.dense import WIDTH_STEP, is_faster, narrower, widest_as_fast
from kinglet.compression.search import Latency
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
    found = widest_as_fast(SPEC, latency(limit, limit, limit), lambda spec: latency(0, width(spec), 99))
    assert (found and width(found)) == expected
