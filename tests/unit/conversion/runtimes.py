"""Which of the runtimes that are optional are installed here: the tests of the others are skipped by name."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES


def is_installed(name: str) -> bool:
    """Return whether a runtime can be imported."""
    return find_spec(RUNTIMES[name].module) is not None


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test where this runtime is missing."""
    return pytest.mark.skipif(not is_installed(name), reason=f"{RUNTIMES[name].title} is not installed")


OTHERS = [pytest.param(name, marks=needs(name)) for name in RUNTIMES if name != ONNXRUNTIME]
