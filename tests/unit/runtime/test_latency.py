import time

import numpy as np

from kinglet.runtime import latency
from kinglet.runtime.latency import MIN_ROUNDS, median_interval, summarize, time_in_turns


def test_a_machine_that_slows_down_favours_no_model():
    started = time.perf_counter()

    def drifting():
        # Half as fast after a quarter of a second.
        time.sleep(0.001 if time.perf_counter() - started < 0.25 else 0.002)

    times = time_in_turns({"first": drifting, "second": drifting}, 0.4)
    medians = [summarize(rounds, 1).p50_ms for rounds in times.values()]
    assert abs(np.log(medians[0] / medians[1])) < 0.25


def test_a_slower_action_is_found_slower():
    times = time_in_turns({"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.001)}, 0.1)
    slow, fast = summarize(times["slow"], 1), summarize(times["fast"], 1)
    assert slow.p50_ms > 2 * fast.p50_ms
    assert slow.p50_low_ms <= slow.p50_ms <= slow.p50_high_ms <= slow.p99_ms * 1.0001
    assert slow.rounds >= MIN_ROUNDS


def test_median_and_tail_are_those_of_all_runs():
    rounds = [np.arange(1.0, 51.0), np.arange(51.0, 101.0)]
    timing = summarize(rounds, batch_size=4)
    assert timing.p50_ms == 50.5
    assert timing.p99_ms == np.percentile(np.arange(1, 101), 99)
    assert timing.images_per_second == 4000 / 50.5
    assert (timing.runs, timing.rounds) == (100, 2)


def test_interval_agrees_with_pooling_resampled_rounds():
    generator = np.random.default_rng(0)
    rounds = [generator.normal(generator.normal(1, 0.1), 0.02, 30) for _ in range(25)]
    medians = [
        np.median(np.concatenate([rounds[number] for number in generator.integers(0, 25, 25)])) for _ in range(2000)
    ]
    np.testing.assert_allclose(median_interval(rounds, 0.95), np.quantile(medians, [0.025, 0.975]), atol=0.015)


def test_an_action_of_seconds_is_not_run_more_often_than_its_rounds_want(monkeypatch):
    clock, runs = [0.0], {"slow": 0, "fast": 0}

    def action(name, seconds):
        clock[0] += seconds
        runs[name] += 1

    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: round(clock[0] * 1e9))
    actions = {"slow": lambda: action("slow", 3.0), "fast": lambda: action("fast", 0.004)}
    times = time_in_turns(actions, 0.5, min_rounds=3)
    assert runs["slow"] == 1 + 3
    assert [len(block) for block in times["slow"]] == [1, 1, 1]
    assert [len(block) for block in times["fast"]] == [5, 5, 5]
    assert summarize(times["slow"], 32).p50_ms == 3000


def test_progress_ends_at_the_total():
    seen = []
    time_in_turns({"only": lambda: time.sleep(0.001)}, 0.05, lambda gone, total: seen.append((gone, total)))
    assert seen[-1] == (0.05, 0.05)
    assert [gone for gone, _ in seen] == sorted(gone for gone, _ in seen)
