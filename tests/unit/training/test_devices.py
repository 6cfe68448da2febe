import pytest
import torch

from kinglet.runtime.processors import available_processors
from kinglet.training.devices import autocast, make_deterministic, pick_device, training_threads


@pytest.fixture
def restored_torch():
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def test_picked_device_can_compute():
    assert torch.ones(2, device=pick_device()).sum().item() == 2


@pytest.mark.parametrize(
    ("asked", "threads"), [("1", 1), ("100000", None), ("", None), ("0", None), ("-2", None), ("4,2", None)]
)
def test_trainings_take_the_granted_processors_or_as_few_as_are_asked_for(asked, threads):
    variables = {"OMP_NUM_THREADS": asked}
    assert training_threads(1, variables) == (threads or available_processors())
    assert training_threads(2, variables) == (threads or max(1, available_processors() // 2))
    assert training_threads(10**6, variables) == 1


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", torch.float32), ("auto", torch.float32), ("bf16", torch.bfloat16)],
)
def test_precision_of_a_forward_pass_on_a_cpu(precision, expected):
    with autocast(torch.device("cpu"), precision):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == expected


def test_deterministic_torch_repeats_its_numbers_and_refuses_what_depends_on_timing(restored_torch):
    draws = []
    for _ in range(2):
        make_deterministic(5)
        draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.are_deterministic_algorithms_enabled()
