"""How the suite is divided between processes."""

from __future__ import annotations

import hypothesis
import pytest

# An example may take long on a busy machine, and is none the worse for it.
hypothesis.settings.register_profile("kinglet", deadline=None)
hypothesis.settings.load_profile("kinglet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and with them all that share the run of the real pipeline.

    `make test` runs the suite in two processes, which take whole groups in the order of collection.
    """
    for item in items:
        shared = "by_dvc" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("real pipeline" if shared else str(item.path)))
