"""Learned step sizes: gradients by hand, and what training simulates against what ONNX Runtime computes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.fusion import fusions_of
from kinglet.compression.learned_steps import Rounded, SimulatedFile, untrainable_operators
from kinglet.compression.quantization import quantize_static
from kinglet.compression.quantization_aware_training import train_simulated
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.runtime.sessions import open_as_written, open_session, run
from tests.unit.models.small_networks import NETWORKS

SIZE = 16


def inputs(n: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=list(NETWORKS))
def trained(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, SimulatedFile]:
    """A float model, its int8 file, and a simulation of it after some steps of training."""
    network = NETWORKS[request.param]()
    source = to_onnx(network, SIZE, 3, {})
    # 7-bit weights: on x86 without VNNI, ONNX Runtime's own sums of 8-bit products saturate.
    quantized = quantize_static(source, stream_histograms(source, inputs().numpy()), "minmax", 7)
    simulated = SimulatedFile(quantized, source, 7)

    def batches():
        for seed in range(6):
            with torch.no_grad():
                logits = network(inputs(16, seed))
            yield inputs(16, seed), logits

    train_simulated(simulated, batches(), 6, 0.002)
    return source, quantized, simulated


@pytest.mark.parametrize(
    ("value", "expected", "of_value", "of_step"),
    [
        # 0.3 / 0.2 = 1.5: rounded to 2 (to even), 2 - 1.5.
        (0.3, 0.4, 1, 0.5),
        (0.5, 0.4, 1, 2 - 2.5),
        (-0.3, -0.4, 1, -0.5),
        # Beyond the levels -3 to 3 the value has no gradient, and the step that of the last level.
        (0.9, 0.6, 0, 3),
        (-5.0, -0.6, 0, -3),
    ],
)
def test_gradients_are_those_of_the_paper(value, expected, of_value, of_step):
    values, step = torch.tensor([value], requires_grad=True), torch.tensor(0.2, requires_grad=True)
    rounded = Rounded.apply(values, step, 0, (-3, 3), 0.1)
    (7 * rounded).sum().backward()
    assert rounded.item() == pytest.approx(expected)
    assert values.grad.item() == pytest.approx(7 * of_value)
    assert step.grad.item() == pytest.approx(0.1 * 7 * of_step, rel=1e-4)


def test_a_zero_point_shifts_the_levels_and_channels_have_steps_of_their_own():
    values = torch.tensor([[-1.0, 0.26], [-1.0, 0.26]], requires_grad=True)
    step = torch.tensor([[0.1], [0.5]], requires_grad=True)
    rounded = Rounded.apply(values, step, 2, (0, 255), 1.0)
    torch.testing.assert_close(rounded, torch.tensor([[-0.2, 0.3], [-1.0, 0.5]]))
    rounded.sum().backward()
    assert values.grad.tolist() == [[0, 1], [0, 1]]  # -1 / 0.5 is the lowest level itself
    # -2 and 3 - 2.6; -2 and 1 - 0.52.
    torch.testing.assert_close(step.grad, torch.tensor([[-2 + 0.4], [-2 + 0.48]]))


def test_the_gradient_of_a_step_is_scaled_by_the_values_that_share_it():
    network = NETWORKS["residual-cnn"]()
    source = to_onnx(network, SIZE, 3, {})
    quantized = quantize_static(source, stream_histograms(source, inputs().numpy()), "minmax", 8)
    simulated = SimulatedFile(quantized, source, 8)
    scales = []
    original = Rounded.apply

    def spied(values, step, zero_point, levels, scale):
        scales.append((values.shape, step.numel(), levels, scale))
        return original(values, step, zero_point, levels, scale)

    Rounded.apply = spied
    try:
        simulated(inputs(4))
    finally:
        del Rounded.apply
    for shape, n_steps, levels, scale in scales:
        n = math.prod(shape[1:]) if levels == (0, 255) else math.prod(shape) / n_steps
        assert scale == pytest.approx(1 / math.sqrt(n * levels[1]))


def test_before_training_the_simulation_is_the_file(trained):
    source, quantized, _ = trained
    with torch.no_grad():
        found = SimulatedFile(quantized, source, 7)(inputs(seed=9)).numpy()
    agree(found, inputs(seed=9).numpy(), quantized)


def test_after_training_onnx_runtime_computes_what_was_simulated_image_by_image(trained):
    _, quantized, simulated = trained
    learned = simulated.learned()
    onnx.checker.check_model(learned.quantized)
    images = inputs(64, seed=10)
    with torch.no_grad():
        found = simulated(images).numpy()
    expected = run(open_session(learned.quantized.SerializeToString(), threads=1), images.numpy())
    agree(found, images.numpy(), learned.quantized)
    before = run(open_session(quantized.SerializeToString(), threads=1), images.numpy())
    assert np.abs(before - expected).max() > 10 * step_of_logits(quantized)  # training changed something
    assert fusions_of(learned.quantized) == fusions_of(quantized)


def step_of_logits(model: onnx.ModelProto) -> float:
    """Return how far two neighbouring logits are apart."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    return float(numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == last.input[1])))


def agree(found: np.ndarray, images: np.ndarray, model: onnx.ModelProto) -> None:
    """The simulation is the file as it is written; ONNX Runtime's fused kernels round ties in other places.

    A value halfway between two levels may be rounded to either, early in the network: some logits move by a step.
    """
    step = step_of_logits(model)
    written = run(open_as_written(model.SerializeToString()), images)
    fused = run(open_session(model.SerializeToString(), threads=1), images)
    assert np.ptp(written) > 20 * step
    assert np.abs(found - written).max() < 2.5 * step
    assert (np.abs(found - written) < 0.5 * step).mean() > 0.9
    assert np.abs(found - fused).mean() < step
    assert np.abs(found - fused).max() < 5.5 * step


def test_every_step_and_every_weight_is_learned(trained):
    _, quantized, simulated = trained
    assert simulated.factors.keys().isdisjoint({"of:images_scale"})
    for name, factor in simulated.factors.items():
        assert (factor != 1).any(), name
    layers = [node for node in quantized.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(simulated.values) == 2 * len(layers)


def test_the_float_model_that_is_left_gives_the_activations_of_the_file(trained):
    source, _, simulated = trained
    learned = simulated.learned()
    histograms = stream_histograms(source, inputs().numpy())
    again = quantize_static(learned.source, {**histograms, **learned.ranges}, "minmax", 7)
    scales = {item.name: numpy_helper.to_array(item) for item in again.graph.initializer}
    for node in learned.quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            stored = next(item for item in learned.quantized.graph.initializer if item.name == node.input[1])
            np.testing.assert_allclose(scales[node.input[1]], numpy_helper.to_array(stored), rtol=1e-5)
    assert learned.source != source


def test_layers_in_float_stay_there_and_are_trained():
    source = to_onnx(NETWORKS["residual-cnn"](), SIZE, 3, {})
    spared = [node.name for node in source.graph.node if node.op_type == "Conv"][2]
    quantized = quantize_static(source, stream_histograms(source, inputs().numpy()), "minmax", 7, [spared])
    simulated = SimulatedFile(quantized, source, 7)
    with torch.no_grad():
        for value in simulated.values.values():
            value.mul_(1.01)
        found = simulated(inputs(seed=3)).numpy()
    learned = simulated.learned().quantized
    agree(found, inputs(seed=3).numpy(), learned)
    assert fusions_of(learned).float_layers == 1


def test_a_file_with_other_operators_is_refused_by_name():
    source = to_onnx(NETWORKS["residual-cnn"](), SIZE, 3, {})
    quantized = quantize_static(source, stream_histograms(source, inputs().numpy()), "minmax", 8)
    quantized.graph.node.append(helper.make_node("Erf", ["logits"], ["erf"]))
    assert untrainable_operators(quantized) == ["Erf"]
    with pytest.raises(KingletError, match="Erf cannot be trained"):
        SimulatedFile(quantized, source, 8)
