import numpy as np
import onnx
import pytest
import scipy.special
import scipy.stats
import torch
from onnx import numpy_helper

from kinglet.compression import quantization
from kinglet.compression.calibration import METHODS, stream_histograms
from kinglet.compression.quantization import (
    Variant,
    compare,
    prices,
    quantize_static,
    spare_layers,
    try_methods,
    weighted_layers,
)
from kinglet.data.batches import gather, standardize
from kinglet.models.export import to_onnx
from kinglet.runtime.sessions import open_session, run
from kinglet.training.loop import Recipe, fit
from kinglet.training.losses import label_loss
from tests.unit.models.small_networks import NETWORKS, bright_quadrants

MEAN, STD = [0.45] * 3, [0.25] * 3
TRAINING, VALIDATION = bright_quadrants(160, seed=1), bright_quadrants(64, seed=2)
CALIBRATION, CHOICE = (
    standardize(gather(images.packed[16], images.rows), MEAN, STD).contiguous().numpy()
    for images in (TRAINING, VALIDATION)
)


def trained(family):
    recipe = Recipe(((3, 16),), 16, 0.02, 0.01, 0.1, 0.9, 0.9, 9, (), "fp32", 0)
    loss = label_loss(torch.from_numpy(TRAINING.labels), 0.1)
    network, _ = fit(
        NETWORKS[family](), TRAINING, VALIDATION, loss, recipe, mean=MEAN, std=STD, device=torch.device("cpu")
    )
    return to_onnx(network, 16, 3, {"classes": ["a", "b", "c", "d"]})


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request):
    return trained(request.param)


# The searches quantize once for every layer or variant, so they run on the smaller network only.
smaller_model = pytest.mark.parametrize("model", ["residual-cnn"], indirect=True)


@pytest.fixture(scope="module")
def histograms(model):
    return stream_histograms(model, CALIBRATION)


def predict(model):
    return run(open_session(model.SerializeToString(), threads=1), CHOICE)


def score_against(model):
    """Return what the searches ask about a candidate: its agreement and divergence from the model."""
    return lambda candidate: compare(predict(model), predict(candidate))


def stored_weights(model):
    """Weighted node's name → (stored weight, scales, type of its input's zero point); None where it is in float."""
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    dequantize = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in model.graph.node:
        if node.op_type in quantization.WEIGHTED:
            weight, images = dequantize.get(node.input[1]), dequantize.get(node.input[0])
            if weight is None:
                assert values[node.input[1]].dtype == np.float32
                found[node.name] = None
            else:
                found[node.name] = (
                    values[weight.input[0]],
                    values[weight.input[1]],
                    values[images.input[2]].dtype,
                )
    return found


@pytest.mark.parametrize("method", list(METHODS))
def test_weights_are_int8_per_channel_and_activations_uint8(model, histograms, method):
    layers = stored_weights(quantize_static(model, histograms, method))
    assert list(layers) == weighted_layers(model)
    for weight, scales, activation in layers.values():
        assert weight.dtype == np.int8
        assert scales.shape == weight.shape[:1]
        assert activation == np.uint8


@pytest.mark.parametrize(("weight_bits", "limit"), [(8, 127), (7, 64)])
def test_weights_use_the_bits_asked_for_and_stay_what_they_were(model, histograms, weight_bits, limit):
    floats = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    originals = [floats[node.input[1]] for node in model.graph.node if node.op_type in quantization.WEIGHTED]
    layers = stored_weights(quantize_static(model, histograms, "minmax", weight_bits))
    for original, (weight, scales, _) in zip(originals, layers.values(), strict=True):
        largest = np.abs(weight.astype(int)).reshape(len(weight), -1).max(axis=1)
        assert (largest == limit).all()  # every channel has a scale of its own
        steps = scales.reshape(-1, *[1] * (weight.ndim - 1))
        assert (np.abs(weight * steps - original) <= steps * 0.501).all()


@pytest.mark.parametrize("method", list(METHODS))
def test_quantized_model_answers_nearly_as_the_float_model(model, histograms, method):
    quantized = quantize_static(model, histograms, method)
    agreement, divergence = compare(predict(model), predict(quantized))
    # Entropy cuts more off than the others here.
    assert agreement > (0.75 if method == "entropy" else 0.98)
    assert 0 < divergence < (0.25 if method == "entropy" else 1e-3)
    onnx.checker.check_model(quantized)
    assert "kinglet.classes" in {entry.key for entry in quantized.metadata_props}


def test_a_layer_without_bias_gets_one_that_can_be_corrected(model):
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for node in bare.graph.node:
        if node.op_type in quantization.WEIGHTED:
            del node.input[2:]
    found = stream_histograms(bare, CALIBRATION[:16])
    quantized = quantize_static(bare, found, "minmax")
    assert all(len(node.input) == 3 for node in quantized.graph.node if node.op_type in quantization.WEIGHTED)
    assert compare(predict(bare), predict(quantized))[1] < 0.01


def test_the_float_model_is_not_changed(model, histograms):
    before = model.SerializeToString()
    quantize_static(model, histograms, "minmax")
    assert model.SerializeToString() == before


def test_the_same_model_gives_the_same_bytes(model, histograms):
    first, second = (quantize_static(model, histograms, "mse").SerializeToString() for _ in range(2))
    assert first == second


def test_spared_layers_are_in_float_and_no_others(model, histograms):
    names = weighted_layers(model)
    spared = [names[0], names[2], names[-1]]
    layers = stored_weights(quantize_static(model, histograms, "minmax", 8, spared))
    assert [name for name, stored in layers.items() if stored is None] == spared
    everything = quantize_static(model, histograms, "minmax", 8, names)
    assert set(stored_weights(everything).values()) == {None}


def test_comparison_is_agreement_and_kullback_leibler_divergence():
    generator = np.random.default_rng(3)
    reference, logits = generator.normal(0, 3, (2, 50, 5)).astype(np.float32)
    agreement, divergence = compare(reference, logits)
    expected = scipy.stats.entropy(scipy.special.softmax(reference, 1), scipy.special.softmax(logits, 1), axis=1)
    assert divergence == pytest.approx(expected.mean(), rel=1e-5)
    assert agreement == np.mean([a.argmax() == b.argmax() for a, b in zip(reference, logits, strict=True)])
    assert compare(reference, reference + 100) == (1.0, pytest.approx(0, abs=1e-5))  # a shift is no difference


@smaller_model
def test_best_variant_has_the_smallest_divergence(model, histograms):
    variants, best, quantized = try_methods(model, histograms, METHODS, [8, 7], score_against(model))
    assert [(variant.method, variant.weight_bits) for variant in variants] == [
        (method, bits) for bits in (8, 7) for method in METHODS
    ]
    reference = predict(model)
    for variant in variants:
        own = quantize_static(model, histograms, variant.method, variant.weight_bits)
        assert compare(reference, predict(own)) == (variant.agreement, variant.divergence)
    assert best.divergence == min(variant.divergence for variant in variants)
    assert len({variant.divergence for variant in variants}) > 1
    expected = quantize_static(model, histograms, best.method, best.weight_bits)
    assert quantized.SerializeToString() == expected.SerializeToString()


@smaller_model
def test_a_layers_price_is_its_share_of_the_work_and_of_the_layers(model):
    found = prices(model)
    work = {}
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    size = 16
    for name, node in ((node.name, node) for node in model.graph.node if node.op_type in quantization.WEIGHTED):
        strides = next((list(item.ints) for item in node.attribute if item.name == "strides"), [1])
        size = size // strides[0] if node.op_type == "Conv" else 1
        work[name] = weights[node.input[1]].size * size**2
    for name, own in work.items():
        assert found[name] == pytest.approx(own / sum(work.values()) + 1 / len(work))


@pytest.fixture(scope="module")
def damages(model, histograms):
    """Layers by what leaving each alone in float takes off the divergence for its price, the largest first."""
    reference, costs = predict(model), prices(model)
    whole = compare(reference, predict(quantize_static(model, histograms, "minmax", 7)))[1]
    mended = {
        name: whole - compare(reference, predict(quantize_static(model, histograms, "minmax", 7, [name])))[1]
        for name in weighted_layers(model)
    }
    return sorted((name for name in mended if mended[name] > 0), key=lambda name: -mended[name] / costs[name])


@pytest.fixture(scope="module")
def start(model, histograms):
    scores = compare(predict(model), predict(quantize_static(model, histograms, "minmax", 7)))
    return Variant("minmax", 7, (), *scores)


@smaller_model
def test_sparing_stops_as_soon_as_the_model_is_good_enough(model, histograms, damages, start):
    asked = []

    def is_good(candidate):
        asked.append([name for name, stored in stored_weights(candidate).items() if stored is None])
        return len(asked) == 2

    variant, quantized = spare_layers(model, histograms, start, 5, is_good, score_against(model))
    assert variant.float_layers == tuple(damages[:2])
    assert [set(names) for names in asked] == [set(damages[:1]), set(damages[:2])]
    assert {name for name, stored in stored_weights(quantized).items() if stored is None} == set(damages[:2])
    assert (variant.method, variant.weight_bits) == ("minmax", 7)
    assert compare(predict(model), predict(quantized)) == (variant.agreement, variant.divergence)
    assert variant.divergence < start.divergence


@smaller_model
@pytest.mark.parametrize("max_layers", [0, 3])
def test_sparing_ends_at_the_limit(model, histograms, damages, start, max_layers):
    reported = []
    variant, quantized = spare_layers(
        model,
        histograms,
        start,
        max_layers,
        lambda _: False,
        score_against(model),
        report=lambda *step: reported.append(step[:2]),
    )
    assert variant.float_layers == tuple(damages[:max_layers])
    spared = [name for name, stored in stored_weights(quantized).items() if stored is None]
    assert set(spared) == set(damages[:max_layers])
    n_layers = len(weighted_layers(model))
    assert reported == [(number + 1, n_layers) for number in range(n_layers)]
