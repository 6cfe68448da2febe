import math

import pytest
import torch
from torch import nn

from kinglet.training.schedules import WeightAverage, cosine_with_warmup, layerwise_groups


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (1000, 0.05), (7, 0.3), (50, 0.0)])
def test_rate_rises_linearly_to_one_and_falls_to_almost_zero(total, warmup):
    factors = [cosine_with_warmup(step, total, warmup) for step in range(total)]
    rising = max(1, round(warmup * total))
    assert factors[:rising] == pytest.approx([(step + 1) / rising for step in range(rising)])
    assert factors[rising] == 1
    assert all(later < earlier for earlier, later in zip(factors[rising:], factors[rising + 1 :], strict=False))
    falling = total - rising
    assert 0 < factors[-1] <= (math.pi / falling) ** 2 / 4 + 1e-12
    assert factors[rising + falling // 2] == pytest.approx(0.5, abs=math.pi / 2 / falling)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_trainings_of_a_few_steps_have_rates_above_zero(total, warmup):
    factors = [cosine_with_warmup(step, total, warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_average_is_that_of_the_recurrence():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(network, 0.9)
    expected = network[0].weight.detach().clone().double()
    for step in range(1, 120):
        with torch.no_grad():
            network[0].weight.normal_(generator=torch.Generator().manual_seed(step))
            network[1].running_mean.fill_(step)
            network[1].num_batches_tracked.fill_(step)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach().double()
    torch.testing.assert_close(average.network[0].weight.double(), expected, rtol=1e-4, atol=1e-5)
    assert 100 < average.network[1].running_mean[0] < 119  # statistics are averaged, counts copied
    assert average.network[1].num_batches_tracked == 119


def test_average_is_no_part_of_the_training():
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.9)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    with torch.no_grad():
        network.weight.fill_(7)
    assert (average.network.weight != 7).all()


def test_average_of_a_constant_network_stays():
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.99)
    for _ in range(5):
        average.update()
    torch.testing.assert_close(average.network.weight, network.weight)


def test_rates_fall_towards_the_input_and_vectors_do_not_decay():
    parts = [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Flatten(),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Linear(4, 2),
    ]
    groups = layerwise_groups(parts, 0.1, 0.5, 0.03)
    by_parameter = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(by_parameter) == 7
    for depth, part in enumerate(parts):
        for parameter in part.parameters():
            group = by_parameter[id(parameter)]
            assert group["lr"] == group["initial_lr"] == pytest.approx(0.1 * 0.5 ** (3 - depth))
            assert group["weight_decay"] == (0.03 if parameter.ndim > 1 else 0.0)
    torch.optim.AdamW(groups)  # takes them as they are


def test_frozen_parameters_are_in_no_group():
    part = nn.Linear(4, 2)
    part.weight.requires_grad_(False)
    (group,) = layerwise_groups([part], 0.1, 0.5, 0.03)
    assert group["params"] == [part.bias]
