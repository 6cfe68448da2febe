import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static
from kinglet.compression.quantization_aware_training import (
    RANGE_MOMENTUM,
    RoundedInput,
    RoundedWeight,
    simulate_int8,
    train_simulated,
    without_simulation,
)
from kinglet.models.export import fold_batch_norms, to_onnx
from kinglet.runtime.sessions import open_session, run
from tests.unit.compression.foreign_networks import FOREIGN
from tests.unit.models.small_networks import NETWORKS, live_in

LIMITS = {8: 127, 7: 64}


def inputs(n=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 32, 32, generator=generator) * torch.linspace(0.2, 2, n).view(-1, 1, 1, 1)


def layers(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def round_weight(weight, bits):
    """Round to the nearest of the values that an int8 file can hold, one output channel at a time."""
    rounded = np.empty_like(weight)
    for channel, values in enumerate(weight):
        scale = np.abs(values).max() / LIMITS[bits]
        rounded[channel] = np.rint(values / scale) * scale
    return rounded


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 1, 5, 5), (3, 20)])
def test_weight_is_rounded_per_channel_to_the_grid(bits, shape):
    weight = torch.randn(shape) * torch.logspace(-3, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
    found = RoundedWeight(bits)(weight).numpy()
    scale = np.abs(weight.numpy()).reshape(shape[0], -1).max(1).reshape(-1, *[1] * (len(shape) - 1)) / LIMITS[bits]
    steps = found / scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (np.abs(found - weight.numpy()) <= scale * 0.501).all()
    assert np.abs(np.rint(steps)).max() == LIMITS[bits]


def test_weights_of_zeros_stay_zero():
    assert torch.equal(RoundedWeight(8)(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_activation_range_follows_what_passes_through_while_training_only():
    layer = RoundedInput().train()
    layer(torch.tensor([-1.0, 0.5, 3.0]))
    assert (layer.low.item(), layer.high.item()) == (-1, 3)
    layer(torch.tensor([1.0, 5.0]))  # zero is always in it
    assert layer.low.item() == pytest.approx(-1 + RANGE_MOMENTUM)
    assert layer.high.item() == pytest.approx(3 + 2 * RANGE_MOMENTUM)
    before = layer.low.item(), layer.high.item()
    layer.eval()(torch.tensor([-100.0, 100.0]))
    assert (layer.low.item(), layer.high.item()) == before


def test_activation_is_rounded_to_256_levels_with_zero_among_them():
    layer = RoundedInput().train()
    x = torch.linspace(-1, 3, 10_001)
    y = layer(x)
    assert len(y.unique()) == 256
    assert (y - x).abs().max() <= 4 / 255 * 0.501 + 4 / 255 * 0.5  # zero's own rounding may move the ends
    layer.eval()
    assert layer(torch.zeros(1)).item() == 0
    assert layer(torch.tensor([50.0])).item() == y.max()


def test_activation_passes_until_a_range_was_seen():
    x = torch.randn(5)
    assert torch.equal(RoundedInput().eval()(x), x)


def round_input(x):
    """Round to uint8 in plain arithmetic, the range being that of the values."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return ((torch.round(x / scale) + zero).clamp(0, 255) - zero) * scale


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("bits", [7, 8])
def test_every_layer_differs_from_float_by_the_rounding_of_its_weights_and_input_only(family, bits):
    network = NETWORKS[family]()
    simulated = simulate_int8(network, bits).train()
    passed = []
    for pair in simulated.modules():
        if isinstance(pair, nn.Sequential) and isinstance(pair[0], RoundedInput):
            # Copies, as activations are computed in place.
            pair.register_forward_hook(lambda _, x, y: passed.append((x[0].detach().clone(), y.detach().clone())))
    with torch.no_grad():
        training = simulated(inputs())
        plain_layers = layers(fold_batch_norms(network))
        assert len(passed) == len(plain_layers)
        for (x, y), layer in zip(passed, plain_layers, strict=True):
            float_y = layer(x)
            layer.weight.data = torch.from_numpy(round_weight(layer.weight.numpy(), bits))
            expected = layer(round_input(x))
            assert (y - float_y).abs().mean() > 1e-4 * float_y.std()
            # A value halfway between two levels may be rounded to either.
            differing = (y - expected).abs() > 1e-4 * expected.abs().max()
            assert differing.float().mean() < 0.001
        passed.clear()
        torch.testing.assert_close(simulated.eval()(inputs()), training, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_the_original_is_not_changed(family):
    network = NETWORKS[family]()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    without_simulation(simulate_int8(network, 8))
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("family", list(NETWORKS))
def test_gradients_reach_every_weight(family):
    simulated = simulate_int8(NETWORKS[family](), 8).train()
    functional.cross_entropy(simulated(inputs()), torch.arange(16) % 4).backward()
    for name, parameter in simulated.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("bits", [7, 8])
def test_plain_layers_hold_weights_that_their_int8_file_keeps(family, bits):
    network = NETWORKS[family]()
    folded = fold_batch_norms(network)
    simulated = simulate_int8(network, bits)
    simulated.train()(inputs())
    plain = without_simulation(simulated)
    assert not plain.training
    assert plain.state_dict().keys() == folded.state_dict().keys()
    assert not any(isinstance(module, RoundedInput) for module in plain.modules())
    for layer, original in zip(layers(plain), layers(folded), strict=True):
        expected = round_weight(original.weight.detach().numpy(), bits)
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-7)

    model = to_onnx(plain, 32, 3, {})
    quantized = quantize_static(model, stream_histograms(model, inputs().numpy()), "minmax", bits)
    values = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
    sources = {node.output[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    weighted = [node for node in quantized.graph.node if node.op_type in ("Conv", "Gemm")]
    for node, layer in zip(weighted, layers(plain), strict=True):
        stored, scale = (values[name] for name in sources[node.input[1]].input[:2])
        kept = stored * scale.reshape(-1, *[1] * (stored.ndim - 1))
        np.testing.assert_allclose(kept, layer.weight.detach().numpy(), rtol=1e-4, atol=1e-6)


def divergence(network, original, x):
    with torch.inference_mode():
        logits = [functional.log_softmax(item(x), 1) for item in (original, network)]
    return functional.kl_div(logits[1], logits[0], log_target=True, reduction="batchmean").item()


@pytest.mark.parametrize("family", list(NETWORKS))
def test_training_brings_the_answers_nearer_to_the_originals(family):
    network = NETWORKS[family]()
    network.classifier.weight.data *= 20
    simulated = simulate_int8(network, 7)
    for parameter in simulated.parameters():  # weights that rounding alone did not harm enough
        parameter.data += 0.05 * parameter.std() * torch.randn_like(parameter) if parameter.ndim > 1 else 0
    with torch.no_grad():
        simulated.train()(inputs(32, seed=1))
    held_out = inputs(64, seed=2)
    before = divergence(simulated.eval(), network, held_out)

    def batches():
        seed = 10
        while True:
            x = inputs(32, seed=seed)
            with torch.no_grad():
                logits = network(x)
            yield x, logits
            seed += 1

    reported = []
    train_simulated(simulated, batches(), 40, 1e-3, lambda done, total, text: reported.append((done, total)))
    assert reported == [(step + 1, 40) for step in range(40)]
    assert not simulated.training
    assert divergence(simulated, network, held_out) < 0.6 * before


def with_simulated_ranges(histograms, model, simulated):
    """Return the histograms with the ranges of every layer's input as the simulated network rounds it."""
    pairs = [item for item in simulated.modules() if isinstance(item, nn.Sequential) and len(item) == 2]
    rounded = [pair[0] for pair in pairs if isinstance(pair[0], RoundedInput)]
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    changed = dict(histograms)
    for node, layer in zip(weighted, rounded, strict=True):
        ends = {"low": layer.low.item(), "high": layer.high.item()}
        changed[node.input[0]] = replace(changed[node.input[0]], **ends)
    return changed


@pytest.mark.parametrize("family", [*NETWORKS, "silu-se", "hard-swish", "inception", "leaky"])
def test_what_training_simulates_is_what_the_runtime_computes_for_every_example(family):
    torch.manual_seed(0)
    network = NETWORKS[family]() if family in NETWORKS else live_in(FOREIGN[family]())
    layers(network)[-1].weight.data *= 5
    x = inputs(48)
    simulated = simulate_int8(network, 7)
    with torch.inference_mode():
        simulated.train()(x)  # sees the ranges
        expected = simulated.eval()(x).numpy()
        original = network(x).numpy()
    model = to_onnx(without_simulation(copy.deepcopy(simulated)), 32, 3, {})
    histograms = with_simulated_ranges(stream_histograms(model, x.numpy()), model, simulated)
    quantized = quantize_static(model, histograms, "minmax", 7)
    found = run(open_session(quantized.SerializeToString(), threads=1), x.numpy())
    # The file also rounds what goes into an addition, the pooled features and the logits.
    differences = np.abs(found - expected).max(1)
    assert differences.max() < 0.05 * np.ptp(expected)
    assert np.abs(found - expected).mean() < np.abs(found - original).mean()
    ordered = np.sort(expected, 1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * differences
    assert clear.mean() > 0.5
    assert (found.argmax(1) == expected.argmax(1))[clear].all()
