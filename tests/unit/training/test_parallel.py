"""Several processes that train one network: real ones, over gloo on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kinglet.errors import KingletError
from kinglet.training.parallel import ALONE, Team, device_called, joined

# Trains a network without batch normalization, whose statistics would be those of half a batch, and keeps its weights.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.loop import ImageSet, Recipe, fit
from kinglet.training.losses import label_loss
from kinglet.training.parallel import joined

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.classifier = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(4, 2)
    def forward(self, images):
        return self.classifier(self.convolution(images).relu().mean((2, 3)))
    def depth_groups(self):
        return [self.convolution, self.classifier]

folder = Path(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)
generator = np.random.default_rng(0)
labels = np.arange(64) % 2
packed = (generator.integers(0, 60, (64, 8, 8, 1)) + 150 * labels[:, None, None, None]).astype(np.uint8)
images = ImageSet({8: packed}, np.arange(64), labels)
recipe = Recipe(((3, 8),), 16, 0.05, 0.0, 0.1, 1.0, 0.5, 99, (), "fp32", 0)
with joined(["cpu"] * 2) as (team, device):
    network, history = fit(Plain(), images, images, label_loss(torch.from_numpy(labels), 0.0), recipe, mean=[0.5],
        std=[0.5], device=device, team=team, checkpoint=Checkpoint(folder / "checkpoint"))
    torch.save({"weights": network.state_dict(), "history": history}, folder / f"{team.size}-{team.rank}.pt")
"""


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    (tmp_path / "two").mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words, folder in (([], tmp_path), (launcher, tmp_path / "two")):
        run = subprocess.run(
            [sys.executable, *words, str(tmp_path / "train.py"), str(folder)],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert run.returncode == 0, run.stderr
    alone = torch.load(tmp_path / "1-0.pt")
    ranks = [torch.load(tmp_path / "two" / f"2-{rank}.pt") for rank in (0, 1)]
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name])
    assert [epoch["accuracy"] for epoch in ranks[1]["history"]] == [epoch["accuracy"] for epoch in alone["history"]]
    losses = [[epoch["loss"] for epoch in found["history"]] for found in (ranks[0], ranks[1], alone)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-4)
    assert alone["history"][-1]["accuracy"] == 1.0
    assert (tmp_path / "two" / "checkpoint" / "state.pt").is_file()


@pytest.mark.parametrize(("n", "size", "each"), [(16, 2, 8), (17, 2, 8), (7, 3, 2), (5, 1, 5), (1, 2, 0)])
def test_every_process_has_as_many_images_and_none_has_anothers(n: int, size: int, each: int) -> None:
    positions = np.arange(n) * 10
    shares = [Team(rank, size).share(positions) for rank in range(size)]
    assert [len(share) for share in shares] == [each] * size
    assert len(set(np.concatenate(shares).tolist())) == each * size


def test_alone_nothing_is_wrapped_or_asked() -> None:
    network = nn.Linear(2, 2)
    assert ALONE.replicated(network, torch.device("cpu")) is network
    assert (ALONE.mean(3.5, torch.device("cpu")), ALONE.told(2.5, torch.device("cpu"))) == (3.5, 2.5)
    with joined(["cpu"]) as (team, device):
        assert (team, device.type) == (ALONE, "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "nothing:0"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(KingletError, match=f"finetune.devices names .*{name}"):
        device_called(name)
