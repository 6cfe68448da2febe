"""Work on many images in several processes, the results in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from kinglet.runtime.processors import available_processors
from tasks.stage import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

IMAGES_PER_JOB = 64
# Starting processes takes about a second; a few images are decoded sooner than that.
IMAGES_WORTH_PROCESSES = 300


def job_ranges(n_images: int) -> list[range]:
    """Return the runs of neighbouring images that make a job each."""
    return [range(first, min(first + IMAGES_PER_JOB, n_images)) for first in range(0, n_images, IMAGES_PER_JOB)]


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], n_images: int) -> Iterator[Result]:
    """Yield what `work` returns for all jobs, in order, computed in several processes where the images are many.

    work, jobs and results are picklable. n_images: of all jobs together.
    """
    n_processes = available_processors() if n_images >= IMAGES_WORTH_PROCESSES else 1
    if n_processes == 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: this process has threads, and a fork of one that holds a lock hangs.
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), initializer=end_with_parent)
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
