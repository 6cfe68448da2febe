from collections import Counter

import numpy as np
import pytest
from onnx import numpy_helper

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static, weighted_layers
from kinglet.compression.saturation import Emulator
from kinglet.compression.saturation_variants import spare_saturating_layers, with_layers_of
from kinglet.models.export import to_onnx
from kinglet.runtime.preprocessing import Preprocessing, normalize
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS, bright_quadrants

INPUTS = normalize(bright_quadrants(48, seed=5).packed[16], Preprocessing(16, 3, "stretch", (0.45,) * 3, (0.25,) * 3))


@pytest.fixture(scope="module")
def models():
    """The same network with weights of 8 and of 7 bits."""
    model = to_onnx(NETWORKS["residual-cnn"](), 16, 3, {})
    histograms = stream_histograms(model, INPUTS)
    return quantize_static(model, histograms, "minmax", 8), quantize_static(model, histograms, "minmax", 7)


def test_only_the_layers_named_lose_a_bit(models):
    model, reduced = models
    layers = weighted_layers(model)
    before = model.SerializeToString()
    mixed = with_layers_of(model, reduced, layers[1:3])
    assert Emulator(mixed).layers_at_risk == [
        name for name in Emulator(model).layers_at_risk if name not in layers[1:3]
    ]
    assert model.SerializeToString() == before
    assert with_layers_of(model, reduced, layers).SerializeToString() == reduced.SerializeToString()
    for item, original in zip(mixed.graph.initializer, model.graph.initializer, strict=True):
        values = numpy_helper.to_array(item)
        assert (item.name, values.dtype, values.shape) == (
            original.name,
            numpy_helper.to_array(original).dtype,
            numpy_helper.to_array(original).shape,
        )
    assert np.isfinite(run(open_session(mixed.SerializeToString(), threads=1), INPUTS)).all()


@pytest.mark.parametrize(
    ("needed", "tried"),
    [
        pytest.param(1, [1], id="the layer that saturates most"),
        pytest.param(3, [1, 2, 4], id="twice as many each time"),
        pytest.param(99, [1, 2, 4, "all"], id="all, where nothing is enough"),
    ],
)
def test_as_few_layers_as_it_takes(models, needed, tried):
    model, reduced = models
    layers = weighted_layers(model)
    saturated = Counter({name: index for index, name in enumerate(layers[:6])})
    order = layers[5:0:-1]
    asked = []

    def emulate(candidate):
        at_risk = Emulator(candidate).layers_at_risk
        asked.append("all" if not at_risk else len([name for name in order if name not in at_risk]))
        return (0.9 if asked[-1] == "all" or asked[-1] >= needed else 0.5), Counter()

    target = 0.95 if needed == 99 else 0.9
    variant, chosen = spare_saturating_layers(model, reduced, saturated, emulate, target)
    assert asked == tried
    assert variant.quality == 0.9
    if needed == 99:
        assert variant.layers == tuple(layers)
        assert chosen.SerializeToString() == reduced.SerializeToString()
    else:
        assert variant.layers == tuple(order[: tried[-1]])
        expected = with_layers_of(model, reduced, variant.layers)
        assert chosen.SerializeToString() == expected.SerializeToString()
