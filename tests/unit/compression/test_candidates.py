"""Candidates: every proposal of every family gives a network that fits its task, exports, and runs."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import optuna
import pytest
import torch

from kinglet.compression.candidates import FAMILIES, Candidate, Task
from kinglet.data.resolutions import backbone_sizes, residual_sizes
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import InvertedResidualNet, InvertedResidualSpec, block_table

STAGES = [(1, 3, 1, 16, 1), (6, 3, 2, 16, 3), (6, 5, 2, 24, 3), (6, 3, 2, 32, 3)]


def task(teacher_size: int = 64, student_size: int = 64, channels: int = 3) -> Task:
    torch.manual_seed(0)
    teacher = InvertedResidualNet(InvertedResidualSpec(channels, 16, block_table(STAGES, 16), 64, 5)).eval()

    def batches(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(size)
        labels = torch.arange(8) % 5
        return [(torch.randn(8, channels, size, size, generator=generator), labels) for _ in range(2)]

    return Task(teacher, channels, 5, teacher_size, student_size, batches)


def proposals(family: str, of: Task, n: int = 12) -> list[Candidate]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for choices in FAMILIES[family].first(of):
        study.enqueue_trial(choices)
    return [FAMILIES[family].propose(study.ask(), of) for _ in range(n)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_proposal_gives_a_network_that_onnx_runtime_computes_alike(family: str) -> None:
    of = task()
    for candidate in proposals(family, of):
        network = FAMILIES[family].build(candidate, of, seed=0).eval()
        size = candidate.input_size
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = network(images).numpy()
        content = to_onnx(network, size, 3, {}).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
        assert expected.shape == (2, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_choices_are_proposals_of_the_family_itself(family: str) -> None:
    for teacher_size, student_size in ((48, 28), (128, 64), (32, 16)):
        of = task(teacher_size, student_size)
        for candidate, choices in zip(proposals(family, of), FAMILIES[family].first(of), strict=False):
            assert {"input_size": candidate.input_size, **candidate.choices}.items() >= choices.items()


@pytest.mark.parametrize("family", FAMILIES)
def test_same_candidate_is_the_same_network_and_the_teacher_stays_as_it_is(family: str) -> None:
    of = task()
    before = copy.deepcopy(of.teacher.state_dict())
    candidate = proposals(family, of)[-1]
    one, same = (FAMILIES[family].build(candidate, of, seed=0).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(torch.equal(value, before[name]) for name, value in of.teacher.state_dict().items())


def test_backbone_without_cuts_has_the_teachers_weights_and_with_cuts_fewer() -> None:
    of = task()
    sizes = {}
    for share, removed in ((0.0, 0), (0.5, 0), (0.0, 2), (0.5, 2)):
        candidate = Candidate("backbone", 32, {"channel_share": share, "removed_blocks": removed})
        network = FAMILIES["backbone"].build(candidate, of, seed=0)
        sizes[share, removed] = sum(parameter.numel() for parameter in network.parameters())
    assert sizes[0.5, 2] < min(sizes[0.5, 0], sizes[0.0, 2]) < max(sizes[0.5, 0], sizes[0.0, 2]) < sizes[0.0, 0]
    whole = FAMILIES["backbone"].build(
        Candidate("backbone", 32, {"channel_share": 0.0, "removed_blocks": 0}), of, seed=0
    )
    weights = of.teacher.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.named_parameters())


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            Candidate("residual", 28, {"width": 16, "first_blocks": 1, "blocks": 2, "stages": 3}),
            "residual, 28 px, 16-32-64 channels, 1-2-2 blocks",
        ),
        (Candidate("backbone", 96, {"channel_share": 0.0, "removed_blocks": 0}), "the teacher at 96 px"),
        (
            Candidate("backbone", 96, {"channel_share": 0.25, "removed_blocks": 2}),
            "the teacher at 96 px, without 25% of its channels, without 2 of its blocks",
        ),
    ],
)
def test_candidate_is_described_in_a_few_words(candidate: Candidate, words: str) -> None:
    assert candidate.description == words


@pytest.mark.parametrize(("student", "sizes"), [(28, [20, 28]), (64, [48, 64]), (16, [16])])
def test_residual_networks_take_the_images_own_size_and_three_quarters(student: int, sizes: list[int]) -> None:
    assert residual_sizes(student) == sizes


@pytest.mark.parametrize(
    ("teacher", "sizes"), [(48, [32, 48]), (128, [64, 80, 96, 128]), (32, [32]), (224, [112, 144, 160, 224])]
)
def test_backbones_take_sizes_from_half_the_teachers_up_to_it(teacher: int, sizes: list[int]) -> None:
    assert backbone_sizes(teacher) == sizes
