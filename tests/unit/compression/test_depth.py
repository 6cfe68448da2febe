"""Depth pruning: blocks with an identity around them go, the least damaging first, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kinglet.compression.depth import damage, removable_blocks, remove_blocks, without_block
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
    assert removable_blocks(ResidualCnn(ResidualCnnSpec(1, (ResidualStage(8, 2, (8,)),), 4))) == []


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
