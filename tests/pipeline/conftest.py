"""Fixtures of the pipeline tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.small_project import Project, five_stages, make_project


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all flows of a session: making its database anew takes seconds."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
def project(tmp_path: Path, prefect_home: Path) -> Iterator[Project]:
    """The small project; whatever of it still runs after a test is killed."""
    made = make_project(tmp_path / "project", five_stages(2.5), prefect_home)
    yield made
    made.kill_all()
