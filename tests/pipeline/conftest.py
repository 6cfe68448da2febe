"""Fixtures of the pipeline tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.real_checkout import Checkout, make_checkout, open_checkout, write_images
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
    """A folder with a few hundred real images in `images`; checkouts that work on them lie beside.

    It is one for all processes that run the tests.
    """
    own = tmp_path_factory.getbasetemp().resolve()
    made = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "real"
    made.mkdir(exist_ok=True)
    with alone_in(made):
        if not (made / "images").exists():
            write_images(made / "images")
    return made


@pytest.fixture(scope="session")
def by_dvc(real_images: Path) -> Checkout:
    """The checkout in which an undisturbed `dvc repro` has run; tests read it and change nothing.

    One process of the tests runs it, the others wait for that.
    """
    root, done = real_images / "by_dvc", real_images / "by_dvc.done"
    with alone_in(real_images):
        if root.exists():
            assert done.exists(), "the undisturbed `dvc repro` has failed, as another test says"
            return open_checkout(root, real_images)
        checkout = make_checkout(root, real_images)
        checkout.run("dvc", "repro")
        done.touch()
    return checkout


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process of the tests is in a block of this folder, keep others out until it ends."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
