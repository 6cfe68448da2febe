"""Fixtures of the pipeline tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.real_checkout import Checkout, make_checkout, write_images
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


@pytest.fixture(scope="session")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few hundred real images in `images`; checkouts that work on them lie beside."""
    made = tmp_path_factory.mktemp("real").resolve()
    write_images(made / "images")
    return made


@pytest.fixture(scope="session")
def by_dvc(real_images: Path) -> Checkout:
    """The checkout in which an undisturbed `dvc repro` has run; tests read it and change nothing."""
    checkout = make_checkout(real_images / "by_dvc", real_images)
    checkout.run("dvc", "repro")
    return checkout
