"""Dense networks to hold a pruned one against: as fast, never cut, and trained as long.

Source: Liu et al. 2019, "Rethinking the Value of Network Pruning": what a pruned network has to beat is not
the network it came from but a dense one of its own cost. It is made in one of two ways: the whole network on
smaller images, which has the same training behind it; or a narrower one, trained from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from kinglet.compression.latency import Latency
from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage

SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)
# Odd numbers of channels take as long as the next multiple of 4.
WIDTH_STEP = 4


def narrower(spec: ResidualCnnSpec) -> Iterator[ResidualCnnSpec]:
    """Yield dense networks of the same depth, ever narrower, every layer of a stage as wide as the stage."""
    last = None
    for share in SHARES:
        widths = [max(WIDTH_STEP, round(stage.width * share / WIDTH_STEP) * WIDTH_STEP) for stage in spec.stages]
        stages = tuple(
            ResidualStage(width, stage.stride, (width,) * len(stage.inner))
            for width, stage in zip(widths, spec.stages, strict=True)
        )
        if stages != last:
            yield replace(spec, stages=stages)
        last = stages


def widest_as_fast(latencies: Mapping[ResidualCnnSpec, Latency], limit: Latency) -> ResidualCnnSpec | None:
    """Return the first of these networks that takes no longer than `limit`, or None if all do.

    latencies: {specification: latency}, the widest first.
    """
    return next((spec for spec, latency in latencies.items() if latency.value <= limit.high), None)


def largest_as_fast(latencies: Mapping[int, Latency], limit: Latency) -> int | None:
    """Return the largest of these input sizes at which the whole network takes no longer than `limit`, or None.

    latencies: {edge in pixels: the whole network's latency on images of this size}.
    """
    return max((size for size, latency in latencies.items() if latency.value <= limit.high), default=None)
