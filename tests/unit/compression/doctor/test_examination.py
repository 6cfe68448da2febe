"""A whole examination: what is found, what its repair is worth, and the repaired file."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.doctor import effects
from kinglet.compression.doctor.effects import Effect, latency_changes, logits_of
from kinglet.compression.doctor.examination import examine
from kinglet.compression.doctor.findings import CRITICAL, NOTE, WARNING, Finding, judged, ranked
from kinglet.compression.quantization import quantize_static as kinglet_quantized
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from tests.unit.compression.doctor.broken_files import INT8_SYMMETRIC, quantized
from tests.unit.compression.doctor.test_checks import with_range, without_relus

SECONDS = 0.02


def examined(model, work, with_float=True, tolerance=0.01):
    return examine(model, work.float_model if with_float else None, work.inputs, work.labels, tolerance, SECONDS)


def test_a_healthy_file_has_no_critical_finding_and_needs_no_repair(work):
    model = kinglet_quantized(work.float_model, stream_histograms(work.float_model, work.calibration), "minmax")
    found = examined(model, work)
    assert CRITICAL not in {finding.severity for finding in found.findings}
    assert found.verdict.is_enough
    assert found.bisection is None
    assert found.left_out == []
    assert len(found.errors) == 10
    assert min(error.own for error in found.errors) > 25


def test_a_broken_file_is_repaired_and_every_step_is_priced(work):
    model = without_relus(quantized(work.float_model, work.calibration, **INT8_SYMMETRIC))
    found = examined(model, work)
    assert not found.verdict.is_enough
    first = found.findings[0]
    assert (first.code, first.severity) == ("dropped-activation", CRITICAL)
    assert first.effect.accuracy.low > 0
    assert first.effect.latency is not None
    assert "dropped-activation" in found.repaired.codes
    onnx.checker.check_model(found.repaired.model)
    right = (logits_of(found.repaired.model, work.inputs).argmax(1) == work.labels).mean()
    assert right - found.accuracy == pytest.approx(found.repaired_effect.accuracy.value)
    assert right >= found.reference_accuracy - 0.01
    assert {price.layer for price in found.prices} <= set(found.damage)
    assert len(found.prices) == 5


def test_without_the_float_file_a_stand_in_is_made_and_said(work, largest_of_conv_9):
    tensor, high = largest_of_conv_9
    found = examined(with_range(work, tensor, 0.02 * high / 255), work, with_float=False)
    assert "Without the float file" in found.left_out[0]
    assert "clipped-range" in {finding.code for finding in found.findings}
    assert found.to_dict()["layers"][0]["layer"] == "conv_0"


@pytest.fixture(scope="module")
def largest_of_conv_9(work):
    tensor = next(node.output[0] for node in work.float_model.graph.node if node.name == "relu_10")
    return tensor, stream_histograms(work.float_model, work.inputs)[tensor].high


def test_a_float_file_is_no_int8_file(work):
    with pytest.raises(ValueError, match="not quantized"):
        examined(work.float_model, work)


def test_scales_chosen_while_the_file_runs_are_said_and_nothing_breaks(work, tmp_path):
    onnx.save(work.float_model, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "dynamic.onnx", op_types_to_quantize=["Conv"])
    found = examined(onnx.load(tmp_path / "dynamic.onnx"), work, with_float=False)
    codes = {finding.code: finding for finding in found.findings}
    assert len(codes["dynamic-quantization"].where) >= 9
    assert (found.errors, found.damage) == ([], {})


def test_answers_that_are_no_numbers_are_refused(work, good):
    inputs = work.inputs.copy()
    broken = onnx.ModelProto()
    broken.CopyFrom(work.float_model)
    bias = next(item for item in broken.graph.initializer if item.name == broken.graph.node[0].input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(16, np.nan, np.float32), bias.name))
    with pytest.raises(KingletError, match=f"NaN or infinity to {len(inputs)} of {len(inputs)} images"):
        logits_of(broken, inputs)


def effect(value, low, latency=None, share=None):
    return Effect(Interval(value, low, value + 0.01), latency and Interval(latency, latency - 1, latency + 1), share)


@pytest.mark.parametrize(
    ("measured", "severity"),
    [
        pytest.param(effect(0.03, 0.01), CRITICAL, id="brings back more than the tolerance"),
        pytest.param(effect(0.004, 0.001), WARNING, id="brings back less"),
        pytest.param(effect(0.03, -0.01), NOTE, id="not established"),
        pytest.param(effect(0.0, -0.01, -50, -0.2), WARNING, id="faster"),
        pytest.param(effect(0.0, -0.01, -0.5, -0.01), NOTE, id="hardly faster"),
    ],
)
def test_severity_follows_from_the_measured_effect(measured, severity):
    finding = Finding("code", WARNING, (), "what", {}, "repair")
    assert judged(finding, measured, 0.01).severity == severity


def test_the_most_important_finding_comes_first():
    findings = [
        Finding("c", NOTE, (), "", {}, ""),
        Finding("b", CRITICAL, (), "", {}, "", None, effect(0.02, 0.01)),
        Finding("a", CRITICAL, (), "", {}, "", None, effect(0.05, 0.01)),
        Finding("d", WARNING, (), "", {}, ""),
    ]
    assert [finding.code for finding in ranked(findings)] == ["a", "b", "d", "c"]


def test_changes_of_latency_are_paired_by_round_and_in_microseconds(work, good, monkeypatch):
    drift = np.linspace(1.0, 5.0, 20)  # a machine that becomes five times as slow hides no change
    rounds = {"": drift, "faster": drift - 0.1, "same": drift}

    def in_turns(actions, seconds):
        assert seconds == 0.5
        for action in actions.values():
            action()
        return {name: [np.array([milliseconds]) for milliseconds in rounds[name]] for name in actions}

    monkeypatch.setattr(effects, "time_in_turns", in_turns)
    latency, changes = latency_changes(good, {"faster": good, "same": work.float_model}, 0.5)
    assert latency == pytest.approx(3000)
    assert changes["faster"].value == pytest.approx(-100)
    assert changes["faster"].high == pytest.approx(-100)
    assert changes["same"].value == 0
