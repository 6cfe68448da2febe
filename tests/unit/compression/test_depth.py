"""Depth pruning: blocks with an identity around them go, the least damaging first, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from kinglet.compression.depth import damage, removable_blocks, remove_blocks, remove_slow_blocks, without_block
from kinglet.compression.latency import Latency
from kinglet.models.inverted_residual import BlockSpec, InvertedResidualNet, InvertedResidualSpec
from kinglet.models.registry import architecture_of, rebuild
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage


def network(seed: int = 0) -> InvertedResidualNet:
    torch.manual_seed(seed)
    blocks = (
        BlockSpec(8, 8, 3, 1, False, False),
        BlockSpec(16, 8, 3, 1, True, True),
        BlockSpec(16, 8, 5, 1, True, True),
        BlockSpec(16, 12, 3, 2, True, False),
        BlockSpec(24, 12, 3, 1, True, True),
    )
    made = InvertedResidualNet(InvertedResidualSpec(1, 8, blocks, 24, 4))
    made.classifier.weight.data.mul_(20)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval()


def plain(seed: int = 0) -> ResidualCnn:
    torch.manual_seed(seed)
    stages = (ResidualStage(8, 2, (8,)), ResidualStage(12, 2, ()), ResidualStage(16, 2, (16, 12)))
    made = ResidualCnn(ResidualCnnSpec(1, stages, 4))
    made.classifier.weight.data.mul_(20)
    return made.eval()


INPUTS = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def answers(of: nn.Module) -> torch.Tensor:
    return torch.log_softmax(of(INPUTS), 1)


def silence(block: nn.Module) -> None:
    """Make a block add nothing to what passes around it."""
    nn.init.zeros_(block.project[1].weight)
    nn.init.zeros_(block.project[1].bias)


def test_only_blocks_with_an_identity_around_them_can_go() -> None:
    assert removable_blocks(network()) == [1, 2, 4]
    assert removable_blocks(plain()) == [0, 1, 2]
    assert removable_blocks(nn.Linear(2, 2)) == []


@pytest.mark.parametrize("index", [1, 2, 4])
def test_network_without_a_block_computes_what_the_whole_one_does_when_the_block_adds_nothing(index: int) -> None:
    whole = network()
    silence(whole.blocks[index])
    smaller = without_block(whole, index)
    assert len(smaller.blocks) == 4
    torch.testing.assert_close(answers(smaller), answers(whole))


def test_block_of_least_damage_goes_first() -> None:
    whole = network()
    silence(whole.blocks[2])
    smaller = remove_blocks(whole, INPUTS, 1)
    torch.testing.assert_close(answers(smaller), answers(whole))
    damages = {index: damage(without_block(whole, index), INPUTS, answers(whole)) for index in (1, 2, 4)}
    assert min(damages, key=lambda index: damages[index]) == 2
    assert damages[2] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_plain_network_without_a_silent_block_computes_the_same_and_reloads(index: int) -> None:
    whole = plain()
    block = [block for stage in whole.stages for block in stage.blocks][index]
    nn.init.zeros_(block.norm2.weight)
    nn.init.zeros_(block.norm2.bias)
    smaller = without_block(whole, index)
    torch.testing.assert_close(answers(smaller), answers(whole))
    assert sum(len(stage.inner) for stage in smaller.spec.stages) == 2
    again = rebuild(architecture_of(smaller), smaller.state_dict())
    assert torch.equal(answers(again), answers(smaller))


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear has no blocks"):
        without_block(nn.Linear(2, 2), 0)


def clock(times: dict[int, float], width: float = 0.001) -> Callable[[Sequence[nn.Module]], list[Latency]]:
    """Return a clock that a block's time is read from by the channels inside it; the rest takes 1 ms."""

    def latencies_of(networks: Sequence[nn.Module]) -> list[Latency]:
        totals = [1 + sum(times[inner] for stage in one.spec.stages for inner in stage.inner) for one in networks]
        return [Latency(total, total - width, total + width, "fp32") for total in totals]

    return latencies_of


@pytest.mark.parametrize(
    ("damages", "times", "expected"),
    [
        # Equal times: the least damage. Equal damages: the most time. Else the damage for each millisecond.
        ([3.0, 2.0, 4.0], {8: 0.1, 16: 0.1, 12: 0.1}, 1),
        ([2.0, 2.0, 2.0], {8: 0.1, 16: 0.2, 12: 0.4}, 2),
        ([1.0, 4.0, 9.0], {8: 0.1, 16: 0.5, 12: 0.8}, 1),
        # No faster beyond doubt: it stays, however little it damages.
        ([0.0, 4.0, 9.0], {8: 0.001, 16: 0.5, 12: 0.8}, 1),
        # None does any damage: time decides.
        ([0.0, 0.0, 0.0], {8: 0.1, 16: 0.2, 12: 0.4}, 2),
    ],
)
def test_block_of_least_damage_for_its_time_goes(damages: list[float], times: dict[int, float], expected: int) -> None:
    whole = plain()
    without = [architecture_of(without_block(whole, index)) for index in range(3)]
    smaller, removals = remove_slow_blocks(
        whole, 1, lambda one: damages[without.index(architecture_of(one))], clock(times)
    )
    assert architecture_of(smaller) == without[expected]
    (removal,) = removals
    inner = [8, 16, 12][expected]
    assert (removal.index, removal.damage) == (expected, damages[expected])
    assert removal.saved_ms == pytest.approx(times[inner])


def test_fewer_blocks_leave_where_the_others_take_no_time() -> None:
    smaller, removals = remove_slow_blocks(plain(), 3, lambda _: 1.0, clock({8: 0.0, 16: 0.2, 12: 0.0}))
    assert [removal.index for removal in removals] == [1]
    assert [stage.inner for stage in smaller.spec.stages] == [(8,), (), (12,)]


def test_blocks_of_one_shape_are_measured_once() -> None:
    seen: list[int] = []

    def latencies_of(networks: Sequence[nn.Module]) -> list[Latency]:
        seen.append(len(networks))
        totals = [float(len(one.spec.blocks)) for one in networks]
        return [Latency(total, total, total, "fp32") for total in totals]

    whole = network()
    twin = InvertedResidualNet(replace(whole.spec, blocks=(*whole.spec.blocks[:2], *whole.spec.blocks[1:]))).eval()
    assert removable_blocks(twin) == [1, 2, 3, 5]
    remove_slow_blocks(twin, 2, lambda one: float(one.spec.blocks[-1].has_skip), latencies_of)
    # Of four blocks two are alike; once the last, which damages nothing, is gone, so are two of three.
    assert seen == [4, 3]


def test_more_blocks_than_can_go_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="4 blocks are to go, but only 3 can"):
        remove_slow_blocks(plain(), 4, lambda _: 1.0, clock({}))


def test_after_the_first_block_the_rest_is_measured_again() -> None:
    whole = network(seed=3)
    pairs = [(a, b) for a in (1, 2, 4) for b in (1, 2, 4) if a < b]
    smaller = remove_blocks(whole, INPUTS, 2)
    of_pairs = {(a, b): damage(without_block(without_block(whole, b), a), INPUTS, answers(whole)) for a, b in pairs}
    first = min((1, 2, 4), key=lambda index: damage(without_block(whole, index), INPUTS, answers(whole)))
    reachable = {pair: value for pair, value in of_pairs.items() if first in pair}
    assert damage(smaller, INPUTS, answers(whole)) == pytest.approx(min(reachable.values()))


def test_network_given_is_left_alone_and_the_result_reloads() -> None:
    whole = network()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    smaller = remove_blocks(whole, INPUTS, 2)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    again = rebuild(architecture_of(smaller), smaller.state_dict())
    assert torch.equal(answers(again), answers(smaller))


def test_more_blocks_than_can_go_are_refused() -> None:
    with pytest.raises(ValueError, match="4 blocks are to go, but only 3 can"):
        remove_blocks(network(), INPUTS, 4)
