"""Dense networks to hold a pruned one against: as fast, never cut, and trained as long.

Source: Liu et al. 2019, "Rethinking the Value of Network Pruning": what a pruned network has to beat is not
the network it came from but one of its own size trained from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kinglet.compression.search import Latency
from kinglet.models.residual_cnn import ResidualCnnSpec, ResidualStage

SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)
# Odd numbers of channels take as long as the next multiple of 4.
WIDTH_STEP = 4


def is_faster(cut: Latency, whole: Latency) -> bool:
    """Return whether a network is faster than another one beyond doubt: their intervals do not touch."""
    return cut.high < whole.low


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


def widest_as_fast(
    spec: ResidualCnnSpec, limit: Latency, measure: Callable[[ResidualCnnSpec], Latency]
) -> ResidualCnnSpec | None:
    """Return the widest of the narrower dense networks that take no longer than `limit`, None if all do.

    measure: the latency of a network with this specification.
    """
    return next((dense for dense in narrower(spec) if measure(dense).value <= limit.high), None)
