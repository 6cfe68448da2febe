"""From a list of suspicious labels through a person's decisions to the next run's images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from kinglet.errors import KingletError
from tasks import check_data, ingest, profile, split
from tasks.label_review import review
from tasks.parameters import Parameters, load_parameters

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    """A folder with params.yaml, twelve cats and twelve dogs, and a list of three suspicious labels."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            pixels = Image.fromarray(generator.integers(0, 256, (6, 6, 3), np.uint8))
            pixels.resize((40, 30), Image.Resampling.BICUBIC).save(tmp_path / "photos" / label / f"{number:02}.png")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["data"] |= {"source": "photos", "images": "photos", "label_corrections": "corrections.csv"}
    settings["check"] |= {"min_images_per_class": 5}
    settings["finetune"]["input_size"] = 32
    settings["search"]["survivors"] = 0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "corrections.csv").write_text("path,label,new_label,confidence,decision\n")
    (tmp_path / "artifacts" / "label_errors").mkdir(parents=True)
    (tmp_path / "data" / "unlabelled").mkdir(parents=True)
    (tmp_path / "artifacts" / "label_errors" / "suspicious.csv").write_text(
        "index,path,label,likely_label,confidence,label_confidence\n"
        "3,cat/03.png,cat,dog,0.98,0.01\n5,cat/05.png,cat,dog,0.9,0.02\n14,dog/02.png,dog,cat,0.8,0.1\n"
    )
    return load_parameters()


def decide(decisions: dict[str, str]) -> None:
    """Write decisions into the file as a person would."""
    with Path("corrections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("corrections.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "decision": decisions.get(row["path"], "")} for row in rows)


def test_decisions_reach_the_split_of_the_next_run(checkout: Parameters, capfd: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["labels", "review"])
    assert result.exit_code == 0
    assert "corrections.csv" in result.output
    decide({"cat/03.png": "relabel", "cat/05.png": "drop"})
    for step in (ingest, profile, check_data, split):
        step.run(checkout)
    labels = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["label"]
    assert labels["cat/03.png"] == "dog"
    assert "cat/05.png" not in labels
    assert labels["dog/02.png"] == "dog"
    assert len(labels) == 23
    assert "images dropped by data.label_corrections: cat/05.png" in capfd.readouterr().err

    # A second look at a new list leaves the decisions in their place.
    outcome = review(checkout)
    assert (outcome.open, outcome.decided) == (1, 2)


def test_a_row_that_cannot_be_followed_stops_the_run(checkout: Parameters) -> None:
    review(checkout)
    decide({"cat/03.png": "remove"})
    with pytest.raises(KingletError, match=r"corrections\.csv, line 2: the decision is 'remove'"):
        ingest.run(checkout)
    with pytest.raises(KingletError, match="line 2"):
        review(checkout)


def test_without_a_list_of_suspicious_labels_the_way_to_one_is_said(checkout: Parameters) -> None:
    Path("artifacts/label_errors/suspicious.csv").unlink()
    with pytest.raises(KingletError, match="no run has looked for wrong labels yet") as caught:
        review(checkout)
    assert "make run" in caught.value.hint
    assert Path("corrections.csv").read_text().count("\n") == 1
