import json
import multiprocessing

import pytest

from kinglet.runtime.latency_table import recall_or_measure, table_path

CONDITIONS = {"device": "abc", "threads": 1}


class Machine:
    """Measures another latency every time, as a machine does."""

    def __init__(self, models):
        self.models, self.measured = models, 0

    def __call__(self):
        self.measured += 1
        return {model: {"p50_ms": 10.0 * self.measured + number} for number, model in enumerate(self.models)}


def ask(path, models, conditions=CONDITIONS, warn=None):
    machine = Machine(models)
    return recall_or_measure(path, conditions, models, machine, warn), machine.measured


def test_a_rerun_gives_the_same_numbers_and_the_same_bytes(tmp_path):
    path = tmp_path / "deep" / "latency.json"
    first, measured = ask(path, ["a", "b"])
    content = path.read_bytes()
    again, measured_again = ask(path, ["b", "a"])
    assert (measured, measured_again) == (1, 0)
    assert first == again
    assert path.read_bytes() == content


def test_fewer_models_are_recalled_from_the_run_that_held_them(tmp_path):
    path = tmp_path / "latency.json"
    first, _ = ask(path, ["a", "b", "c"])
    assert ask(path, ["a", "c"]) == ({"a": first["a"], "c": first["c"]}, 0)


def test_a_new_model_is_measured_together_with_the_others(tmp_path):
    path = tmp_path / "latency.json"
    old, _ = ask(path, ["a", "b"])
    new, measured = ask(path, ["a", "b", "c"])
    assert measured == 1
    assert set(new) == {"a", "b", "c"}
    assert ask(path, ["a", "b"]) == (old, 0)  # what was written once stays


@pytest.mark.parametrize("other", [{"device": "abd", "threads": 1}, {"device": "abc", "threads": 2}])
def test_other_conditions_are_another_measurement(tmp_path, other):
    path = tmp_path / "latency.json"
    ask(path, ["a"])
    assert ask(path, ["a"], other)[1] == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 99, "measurements": []}', '{"format": 1, "measurements": [{}]}', "\x00\xff"]
)
def test_an_unreadable_table_is_moved_aside_and_said(tmp_path, content):
    path = tmp_path / "latency.json"
    path.write_text(content, encoding="latin-1")
    said = []
    assert ask(path, ["a"], warn=said.append)[1] == 1
    assert len(said) == 1
    assert str(path) in said[0]
    assert (tmp_path / "latency.json.unreadable-1").read_text(encoding="latin-1") == content
    assert json.loads(path.read_text())["format"] == 1


def test_a_failed_measurement_leaves_the_table_as_it_was(tmp_path):
    path = tmp_path / "latency.json"
    ask(path, ["a"])
    before = path.read_bytes()

    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        recall_or_measure(path, CONDITIONS, ["z"], fail)
    assert path.read_bytes() == before


def measure_in_process(path, number):
    recall_or_measure(path, CONDITIONS, [f"model-{number}"], lambda: {f"model-{number}": {"p50_ms": number}})


def test_processes_at_once_lose_no_measurement(tmp_path):
    path = tmp_path / "latency.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=measure_in_process, args=(path, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(json.loads(path.read_text())["measurements"]) == 8


def test_the_table_lies_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path))
    assert table_path() == tmp_path / "latency.json"
    monkeypatch.delenv("KINGLET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert table_path() == tmp_path / ".cache" / "kinglet" / "latency.json"
