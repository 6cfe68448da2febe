"""What DVC's words mean, and which stages may run at the same time."""

from __future__ import annotations

import threading
import time

import pytest

from flows.stages import Gate, Outcome, outcome_of


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("Running stage 'split':\n", Outcome.RAN),
        ("Stage 'split' didn't change, skipping\n", Outcome.UNCHANGED),
        ("'data.dvc' didn't change, skipping\n", Outcome.UNCHANGED),
        ("Stage 'split' is cached - skipping run, checking out outputs\n", Outcome.RESTORED),
        ("> python -m tasks.split\n", None),
        ("the step says: Running stage 'x'\n", None),
    ],
)
def test_dvcs_words_tell_what_became_of_a_stage(line: str, outcome: Outcome | None) -> None:
    assert outcome_of(line) is outcome


def test_an_exclusive_stage_runs_alone_and_others_side_by_side() -> None:
    gate = Gate()
    running: set[str] = set()
    seen: list[frozenset[str]] = []
    both_in = threading.Barrier(2, timeout=10)

    def work(name: str, alone: bool) -> None:
        with gate.entered(alone=alone):
            running.add(name)
            if not alone:
                both_in.wait()
            seen.append(frozenset(running))
            time.sleep(0.05)
            running.discard(name)

    threads = [
        threading.Thread(target=work, args=(name, alone)) for name, alone in (("a", False), ("b", False), ("X", True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert frozenset({"a", "b"}) in seen
    assert all(together == {"X"} for together in seen if "X" in together)


def test_the_gate_opens_again_after_an_error() -> None:
    gate = Gate()
    with pytest.raises(ZeroDivisionError), gate.entered(alone=True):
        raise ZeroDivisionError
    with gate.entered(alone=True):
        pass


def test_of_crowded_stages_only_so_many_run_at_once() -> None:
    gate = Gate(most_crowded=2)
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with gate.entered(alone=False, crowded=True):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.05)
            with lock:
                running -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 2
