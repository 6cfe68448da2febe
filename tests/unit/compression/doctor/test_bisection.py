"""The fewest layers whose return to float brings the accuracy back."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from kinglet.compression.doctor import bisection
from kinglet.compression.doctor.bisection import bisect, damages
from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.repairs import in_float
from kinglet.compression.fusion import fusions_of
from tests.unit.compression.doctor.broken_files import QOPERATOR, changed, constants, quantized, subject_of, trials_of
from tests.unit.compression.doctor.test_layer_errors import with_model


def shuffled(subject, layers):
    """Return the subject with the stored weights of these layers in disorder, and all that is known of it kept."""
    values = constants(subject.graph.model)
    generator = np.random.default_rng(1)
    wrong = {}
    for name in layers:
        stored = subject.graph.layer[name].weight.name
        wrong[stored] = generator.permutation(values[stored].ravel()).reshape(values[stored].shape)
    return with_model(subject, changed(subject.graph.model, wrong))


@pytest.mark.parametrize("layers", [["conv_0"], ["conv_9"], ["gemm_23"], ["conv_2", "conv_16"]])
def test_the_layers_that_lose_the_accuracy_are_found_and_no_others(work, good, layers):
    subject, trials = shuffled(subject_of(good, work), layers), trials_of(work)
    assert not trials.verdict(subject.graph.model).is_enough
    damage = damages(subject, trials, subject.graph.model)
    found = bisect(subject.graph.model, subject, trials, damage)
    assert found.enough
    assert set(found.layers) <= set(layers)
    mended = in_float(subject.graph.model, subject, found.layers)
    assert trials.verdict(mended).is_enough
    assert found.tries <= 12


def test_a_file_that_lost_nothing_needs_no_layer_in_float(work, good):
    subject, trials = subject_of(good, work), trials_of(work)
    found = bisect(subject.graph.model, subject, trials, damages(subject, trials, subject.graph.model))
    assert (found.layers, found.enough) == ((), True)


def test_accuracy_that_is_lost_elsewhere_is_not_blamed_on_layers(work, good):
    subject, trials = subject_of(good, work), trials_of(work)
    trials.reference = np.roll(trials.reference, 1, axis=0)
    trials.labels = trials.reference.argmax(1)
    found = bisect(subject.graph.model, subject, trials, damages(subject, trials, subject.graph.model))
    assert not found.enough
    assert len(found.layers) == 10


class Judge:
    """Trials in which a file, here the set of its float layers, is good enough if it holds these."""

    def __init__(self, needed):
        self.needed = set(needed)

    def verdict(self, layers):
        return SimpleNamespace(is_enough=self.needed <= set(layers))


@pytest.mark.parametrize(
    ("needed", "by"),
    [
        pytest.param("c", "damage", id="one that does little by itself: those before it go back to int8"),
        pytest.param("ae", "damage", id="two far apart"),
        pytest.param("fa", "prefix", id="the first two, one of which does nothing by itself"),
        pytest.param("fabcde", "damage", id="all"),
    ],
)
def test_the_smallest_set_is_found_among_those_that_the_orders_lead_to(monkeypatch, needed, by):
    monkeypatch.setattr(bisection, "in_float", lambda model, subject, names: names)
    damage = {"f": 0.0, "a": 5.0, "e": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    found = bisect([], None, Judge(needed), damage)
    assert (set(found.layers), found.enough, found.by) == (set(needed), True, by)
    assert found.prefix == 1 + max(list(damage).index(name) for name in needed)


@pytest.mark.parametrize("settings", [{}, QOPERATOR], ids=["pairs", "integer operators"])
@pytest.mark.parametrize("places", [[0], [2, 3], [-1]])
def test_layers_in_float_are_computed_in_float_and_no_others(work, settings, places):
    subject = subject_of(quantized(work.float_model, work.calibration, **settings), work)
    names = [subject.graph.layers[place].name for place in places]
    model = in_float(subject.graph.model, subject, names)
    onnx.checker.check_model(model)
    fusions = fusions_of(model)
    assert (fusions.float_layers, fusions.integer_layers) == (len(names), 10 - len(names))
    expected = logits_of(work.float_model, work.inputs)
    assert np.abs(logits_of(model, work.inputs) - expected).mean() < 0.03 * np.ptp(expected)


def test_with_all_layers_in_float_the_file_is_the_float_file(work, good):
    subject = subject_of(good, work)
    model = in_float(subject.graph.model, subject, [layer.name for layer in subject.graph.layers])
    expected = logits_of(work.float_model, work.inputs)
    np.testing.assert_allclose(logits_of(model, work.inputs), expected, atol=1e-3 * np.ptp(expected))
    assert not [pair for pair in Graph(model).pairs if pair.tensor in Graph(model).makers]
