import copy
import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from kinglet.compression.pruning import IMPORTANCES, prune_channels, reestimate_batch_norms
from kinglet.models.detector import Detector, DetectorSpec
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import BlockSpec, InvertedResidualNet, InvertedResidualSpec
from kinglet.models.onnx_graph import DETECTOR_OUTPUTS
from kinglet.models.registry import BACKBONES, architecture_of, pretrained, rebuild
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.models.segmenter import Segmenter, SegmenterSpec
from tests.unit.models.segmenter_files import lively_segmenter
from tests.unit.models.small_networks import NETWORKS, live_in, residual_cnn
from tests.unit.models.test_detector import lively, small_detector

EXAMPLE = torch.zeros(1, 3, 32, 32)


def batches(n=2):
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(6, 3, 32, 32, generator=generator), torch.randint(0, 3, (6,), generator=generator))
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def networks():
    backbones = {name: pretrained(name, 3, 3, 0.1)[0].eval() for name in BACKBONES}
    return backbones | {family: network(3, 3) for family, network in NETWORKS.items()}


def widths(network):
    """Return the channels of every convolution, in order."""
    return [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", [*BACKBONES, *NETWORKS])
@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_every_layer_loses_the_share_reloads_and_trains_on(networks, name, importance):
    network = networks[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pruned = prune_channels(network, EXAMPLE, 0.5, importance, 4, batches())
    for old, new in zip(widths(network), widths(pruned), strict=True):
        assert new % 4 == 0
        assert old / 2 - 4 < new <= old / 2
    assert n_parameters(pruned) < 0.4 * n_parameters(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(parameter.grad is not None for parameter in network.parameters())

    again = rebuild(architecture_of(pruned), pruned.state_dict())
    inputs, labels = batches(1)[0]
    with torch.inference_mode():
        assert torch.equal(again(inputs), pruned(inputs))

    optimizer = torch.optim.SGD(pruned.parameters(), lr=1e-3)
    logits = pruned.train()(inputs)
    assert logits.shape == (6, 3)
    functional.cross_entropy(logits, labels).backward()
    optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in pruned.parameters())
    assert not torch.equal(pruned.classifier.weight, again.classifier.weight)


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("round_to", [1, 2, 8])
def test_widths_are_multiples_and_no_layer_is_lost(networks, family, share, round_to):
    network = networks[family]
    pruned = prune_channels(network, EXAMPLE, share, "l2", round_to)
    for old, new in zip(widths(network), widths(pruned), strict=True):
        kept = int(old * (1 - share)) // round_to * round_to
        assert new == (kept or old)  # a group that rounding would leave nothing of stays whole
    with torch.inference_mode():
        assert pruned(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("round_to", [1, 2, 8])
def test_widths_are_the_nearest_multiples_and_no_layer_is_lost(networks, family, share, round_to):
    network = networks[family]
    pruned = prune_channels(network, EXAMPLE, share, "l2", round_to, rounding="nearest")
    for old, new in zip(widths(network), widths(pruned), strict=True):
        assert new == old or new % round_to == 0
        # Half a step beside what was asked for, in whole channels, or the one step that every layer keeps.
        assert abs(new - old * (1 - share)) < round_to / 2 + 1 or new == round_to
    with torch.inference_mode():
        assert pruned(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def scatter(small, large, indices):
    """Put the small network's weights into channels `indices` (by width) of the large one; the others are dead."""
    for (name, value), target in zip(small.state_dict().items(), large.state_dict().values(), strict=True):
        target.zero_()
        if "running_var" in name:
            target.fill_(1)
        if value.ndim == 0:
            continue
        places = [
            indices[(old, new)] if old != new else torch.arange(old)
            for old, new in zip(value.shape, target.shape, strict=True)
        ]
        target[tuple(torch.meshgrid(*places, indexing="ij"))] = value
    return large.eval()


def halves(*pairs, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return {(new, old): torch.randperm(old, generator=generator)[:new].sort().values for new, old in pairs}


def residual_pair():
    def build(width, inner):
        return ResidualCnn(ResidualCnnSpec(3, (ResidualStage(width, 2, (inner,)), ResidualStage(2 * width, 2, ())), 3))

    return build(8, 12), build(16, 24), halves((8, 16), (12, 24), (16, 32))


def inverted_pair():
    def build(factor):
        blocks = (
            BlockSpec(8 * factor, 4 * factor, 3, 1, False, False),
            BlockSpec(12 * factor, 4 * factor, 5, 1, True, True),
        )
        return InvertedResidualNet(InvertedResidualSpec(3, 8 * factor, blocks, 20 * factor, 3))

    return build(1), build(2), halves((8, 16), (4, 8), (12, 24), (20, 40))


def detector_pair():
    def build(factor):
        blocks = tuple(
            BlockSpec(expanded * factor, out * factor, 3, stride, True, False)
            for expanded, out, stride in ((9, 4, 2), (10, 5, 2), (11, 6, 2), (13, 7, 2))
        )
        return Detector(DetectorSpec(3, 8 * factor, blocks, 3, width=12 * factor, tower=(14 * factor, 15 * factor)))

    sizes = (8, 9, 4, 10, 5, 11, 6, 13, 7, 12, 14, 15)
    return build(1), build(2), halves(*((size, 2 * size) for size in sizes))


def segmenter_pair():
    def build(factor):
        blocks = tuple(
            BlockSpec(expanded * factor, out * factor, 3, stride, True, False)
            for expanded, out, stride in ((9, 4, 1), (10, 5, 2), (11, 6, 2), (13, 7, 2), (17, 18, 2))
        )
        widths = tuple(width * factor for width in (12, 14, 15, 16, 19))
        return Segmenter(SegmenterSpec(3, 8 * factor, blocks, 3, widths=widths, answer=20 * factor))

    sizes = (8, 9, 4, 10, 5, 11, 6, 13, 7, 17, 18, 12, 14, 15, 16, 19, 20)
    return build(1), build(2), halves(*((size, 2 * size) for size in sizes))


@pytest.mark.parametrize("pair", [residual_pair, inverted_pair, detector_pair, segmenter_pair])
@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_channels_that_do_nothing_are_those_that_go(pair, importance):
    torch.manual_seed(0)
    small, large, indices = pair()
    if isinstance(small, Detector):
        lively(small)
    scatter(live_in(small), large, indices)
    loss = sum_of_squares if isinstance(small, Detector | Segmenter) else functional.cross_entropy
    pruned = prune_channels(large, EXAMPLE, 0.5, importance, 1, batches(), loss=loss)
    assert widths(pruned) == widths(small)
    assert architecture_of(pruned) == architecture_of(small)
    inputs = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        expected = small(inputs)
        torch.testing.assert_close(large(inputs), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pruned(inputs), expected, rtol=1e-4, atol=1e-5)


def sum_of_squares(outputs, labels):
    """A loss of a detector's logits and boxes, or of a segmenter's logits, that all channels have a part in."""
    del labels
    return sum(output.square().mean() for output in outputs)


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_a_detector_is_cut_through_backbone_pyramid_and_head_and_computes_what_is_left(importance):
    whole = lively(small_detector())
    pruned = prune_channels(whole, torch.zeros(1, 3, 64, 64), 0.4, importance, 2, batches(), loss=sum_of_squares)
    assert (whole.spec.width, whole.spec.head_widths) == (16, (16, 16, 16))
    assert (pruned.spec.stem, pruned.spec.width, pruned.spec.head_widths) == (4, 8, (8, 8, 8))
    assert all(new.expanded < old.expanded for new, old in zip(pruned.spec.blocks, whole.spec.blocks, strict=True))
    again = rebuild(json.loads(json.dumps(architecture_of(pruned))), pruned.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = again(images)
        assert [output.shape for output in expected] == [output.shape for output in whole(images)]
    file = to_onnx(pruned, 64, 3, {}, DETECTOR_OUTPUTS).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for found, wanted in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scope", "rounding"), [("layer", "down"), ("global", "nearest")])
def test_a_segmenter_is_cut_through_backbone_and_decoder_and_computes_what_is_left(scope, rounding):
    whole = lively_segmenter()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    taken = [(images, None)]
    pruned = prune_channels(whole, images, 0.4, "taylor", 2, taken, scope, 1, sum_of_squares, rounding)
    assert all(new.expanded < old.expanded for new, old in zip(pruned.spec.blocks, whole.spec.blocks, strict=True))
    if scope == "layer":
        assert (pruned.spec.stem, pruned.spec.widths, pruned.spec.answer) == (4, (4, 4, 6, 8, 8), 0)
        assert "answer" not in architecture_of(pruned)["spec"]
    again = rebuild(json.loads(json.dumps(architecture_of(pruned))), pruned.state_dict())
    with torch.inference_mode():
        expected = again(images)
        assert expected.shape == whole(images).shape
    session = onnxruntime.InferenceSession(
        to_onnx(pruned, 64, 3, {}).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("importance", "scope", "message"),
    [
        ("random", "layer", "importance must be one of l2, taylor, hessian, got 'random'"),
        ("taylor", "layer", "taylor importance needs batches"),
        ("hessian", "layer", "hessian importance needs batches"),
        ("l2", "block", "scope must be one of layer, global, got 'block'"),
    ],
)
def test_what_is_not_known_or_lacks_its_batches_is_refused(importance, scope, message):
    with pytest.raises(ValueError, match=message):
        prune_channels(residual_cnn(), EXAMPLE, 0.5, importance, 8, scope=scope)


def test_an_unknown_rounding_is_refused():
    with pytest.raises(ValueError, match="rounding must be one of down, nearest, got 'up'"):
        prune_channels(residual_cnn(), EXAMPLE, 0.5, "l2", 8, rounding="up")


@pytest.mark.parametrize(("rounding", "left"), [("down", 16), ("nearest", 32)])
def test_the_nearest_multiple_takes_less_from_narrow_layers(rounding, left):
    network = ResidualCnn(ResidualCnnSpec(3, (ResidualStage(40, 1, (40,)),), 3))
    assert set(widths(prune_channels(network, EXAMPLE, 0.3, "l2", 16, rounding=rounding))) == {left}


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_where_layers_compete_some_lose_more_than_others_and_none_is_lost(networks, family, share):
    network = copy.deepcopy(networks[family])
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight *= 100  # whatever depends on the first layer's channels is worth more than the rest
    pruned = prune_channels(network, EXAMPLE, share, "l2", 1, scope="global")
    shares = [new / old for old, new in zip(widths(network), widths(pruned), strict=True)]
    assert min(shares) >= 0.1 - 1e-9
    assert len({round(kept, 2) for kept in shares}) > 1
    with torch.inference_mode():
        assert pruned(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_channels_that_leave_in_several_cuts_leave_as_many(networks, importance):
    network = networks["residual-cnn"]
    at_once, in_three = (
        prune_channels(network, EXAMPLE, 0.5, importance, 1, batches(), n_steps=steps) for steps in (1, 3)
    )
    assert widths(in_three) == widths(at_once)
    with torch.inference_mode():
        assert in_three(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_reestimated_statistics_are_the_mean_over_the_batches(family):
    network = NETWORKS[family](seed=4)
    seen = {name: [] for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen[name].append(inputs[0].double().numpy().copy())
        )
        for name in seen
    ]
    momenta = [network.get_submodule(name).momentum for name in seen]
    weights = {name: value.clone() for name, value in network.named_parameters()}
    reestimate_batch_norms(network, [inputs for inputs, _ in batches(3)])
    for hook in hooks:
        hook.remove()
    for name, arrays in seen.items():
        norm = network.get_submodule(name)
        assert len(arrays) == 3
        means = np.mean([array.mean(axis=(0, 2, 3)) for array in arrays], axis=0)
        variances = np.mean([array.var(axis=(0, 2, 3), ddof=1) for array in arrays], axis=0)
        np.testing.assert_allclose(norm.running_mean, means, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.running_var, variances, rtol=1e-3, atol=1e-4)
    assert not network.training
    assert [network.get_submodule(name).momentum for name in seen] == momenta
    assert all(torch.equal(weights[name], value) for name, value in network.named_parameters())
