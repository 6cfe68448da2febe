"""Which of the runtimes that are optional are installed here: the tests of the others are skipped by name."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES

OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(find_spec(runtime.module) is None, reason=f"{runtime.title} is not installed"),
    )
    for name, runtime in RUNTIMES.items()
    if name != ONNXRUNTIME
]


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test where this runtime is missing."""
    runtime = RUNTIMES[name]
    return pytest.mark.skipif(find_spec(runtime.module) is None, reason=f"{runtime.title} is not installed")
