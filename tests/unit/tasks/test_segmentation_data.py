"""ingest, profile, check_data, split and plan on a small folder with masks: what comes out, what a user is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kinglet.data.masks.faults import VOID
from kinglet.data.masks.packing import place_mask
from kinglet.errors import KingletError
from tasks import check_data, ingest, plan, profile, segmentation_answers, split, worker_processes
from tasks.parameters import Parameters
from tests.unit.data.masks.masked_folder import halves, write_image, write_mask, write_masked


def settings(**sections: dict[str, Any]) -> Parameters:
    """Return parameters for the folder `shapes`, with changes by section."""
    values: dict[str, Any] = {
        "problem": "segmentation",
        "data": {"source": "shapes", "images": "shapes", "fit": "pad"},
        "check": {"min_images_per_class": 3, "max_dropped_annotations": 0.5},
        "finetune": {"backbone": "efficientnet-lite0", "input_size": 32, "low_resolution_share": 0},
        "domains": {"most": 0},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Parameters.model_validate(values)


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images with a mask of background and foreground in `shapes`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_masked(tmp_path / "shapes")


def run_all(parameters: Parameters) -> None:
    for step in (ingest, profile, check_data, split, plan):
        step.run(parameters)


def run_without_checks(parameters: Parameters) -> None:
    """Run all but the data checks, which take most of the time, as if nothing was quarantined."""
    ingest.run(parameters)
    profile.run(parameters)
    Path("artifacts/check_data").mkdir(exist_ok=True)
    Path("artifacts/check_data/quarantine.csv").write_text("path,reason\n")
    split.run(parameters)
    plan.run(parameters)


def content_of(path: str) -> Any:
    return json.loads(Path("artifacts", path).read_text())


def test_masks_go_through_and_bad_ones_are_quarantined_with_their_reason(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mask(shapes / "masks" / "03.png", halves((30, 30)))
    write_mask(shapes / "masks" / "04.png", halves(right=0))
    (shapes / "masks" / "05.png").write_bytes(b"")
    (shapes / "images" / "06.jpg").write_bytes((shapes / "images" / "06.jpg").read_bytes()[:-200])
    write_image(shapes / "images" / "alone.jpg", 60)
    write_mask(shapes / "masks" / "nobody.png", halves(right=255))
    (shapes / "domains.csv").write_text("path,domain\nimages,hall\nimages/07.jpg,yard\n")
    run_all(settings(check={"max_unreadable": 0.2}))
    said = capsys.readouterr().err
    assert "note: images without a mask: images/alone.jpg" in said
    assert "note: 1 annotations are left out: masks/nobody.png: no image is called like this mask" in said
    assert (
        "note: 2 images have no mask that can be used: images/03.jpg: its mask masks/03.png has 30 x 30 pixels, its "
        "image 40 x 30; images/05.jpg: its mask masks/05.png cannot be read: not an image"
    ) in said
    assert "warning: 1 masks have another size than their image (images/03.jpg)" in said
    assert "warning: 1 of 13 masks cannot be read and are left out (images/05.jpg)" in said
    assert "warning: 3 of 13 masks cannot be used and are left out" in said
    quarantined = pd.read_csv("artifacts/check_data/quarantine.csv").set_index("path")["reason"]
    assert list(quarantined.index) == ["images/03.jpg", "images/05.jpg", "images/06.jpg"]
    assert quarantined["images/03.jpg"].startswith("mask: its mask masks/03.png has 30 x 30 pixels")
    assert quarantined["images/06.jpg"].startswith("unreadable: truncated JPEG file")
    assert pd.read_csv("artifacts/check_data/annotations.csv").to_numpy().tolist() == [
        ["masks/nobody.png", "left out: no image is called like this mask"],
        ["images/04.jpg", "all of one class: background"],
    ]
    checks = content_of("check_data/checks.json")
    assert (checks["n_other_size"], checks["n_unread"], checks["n_dropped_annotations"]) == (1, 1, 3)
    assert checks["usable_by_class"] == {"background": 9, "foreground": 8}
    # Files and rows: those of what can be used, void elsewhere.
    usable = [number for number in range(12) if number not in (3, 5, 6)]
    assert sorted(int(path.stem) for path in Path("artifacts/ingest/masks").iterdir()) == usable
    packed = np.load("artifacts/ingest/masks_32.npy")
    assert (packed.shape, packed.dtype) == ((12, 32, 32), np.uint8)
    assert [row for row in range(12) if (packed[row] != VOID).any()] == usable
    mask = np.asarray(Image.open("artifacts/ingest/masks/7.png"))
    np.testing.assert_array_equal(mask, halves())
    np.testing.assert_array_equal(packed[7], place_mask(mask, 32, "pad"))
    assert not np.load("artifacts/ingest/images_32.npy")[7][packed[7] == VOID].any()
    images = pd.read_parquet("artifacts/split/manifest.parquet")
    assert list(images) == ["index", "path", "label", "label_index", "group", "domain", "split", "sha256"]
    assert images["domain"].tolist() == ["yard" if index == 7 else "hall" for index in usable]
    assert images["index"].tolist() == usable
    assert (set(images["label"]), set(images["label_index"])) == ({""}, {-1})
    assert content_of("split/classes.json") == content_of("ingest/classes.json") == ["background", "foreground"]
    counts = content_of("split/counts.json")
    assert sum(of_class["foreground"] for of_class in counts.values()) == 8 * 27 * 30
    assert content_of("plan/plan.json")["parts"]["test"]["pixels_by_class"] == counts["test"]


def test_classes_keep_the_order_of_their_table_in_every_step(shapes: Path) -> None:
    for number in range(12):
        write_mask(shapes / "masks" / f"{number:02}.png", halves(left=2, right=0))
    write_mask(shapes / "masks" / "03.png", halves(left=2, right=3))
    (shapes / "classes.txt").write_text("zebra\nlion\nant\nvoid\n")
    run_without_checks(settings())
    assert content_of("ingest/classes.json") == content_of("split/classes.json") == ["zebra", "ant"]
    facts = pd.read_parquet("artifacts/profile/images.parquet")
    assert facts["class_pixels"].iloc[0].tolist() == [27 * 30, 13 * 30]
    assert (facts["class_pixels"].iloc[3].tolist(), facts["void_pixels"].iloc[3]) == ([0, 13 * 30], 27 * 30)
    assert facts["dominant_class"].tolist()[2:4] == ["zebra", "ant"]
    described = content_of("profile/dataset.json")["masks"]
    assert described["images_by_class"] == {"zebra": 11, "ant": 12}
    assert (described["images_of_one_class"], described["void_share"]) == (1, round(27 / 40 / 12, 6))


def test_equal_images_with_other_masks_contradict_each_other_and_those_with_equal_ones_do_not(shapes: Path) -> None:
    for name, original in (("same", "02"), ("twin", "03")):
        (shapes / "images" / f"{name}.jpg").write_bytes((shapes / "images" / f"{original}.jpg").read_bytes())
        write_mask(shapes / "masks" / f"{name}.png", halves(left=0 if name == "same" else 255, right=255))
    run_all(settings(check={"max_conflicting": 0.5}))
    listed = pd.read_csv("artifacts/check_data/quarantine.csv")
    assert listed["path"].tolist() == ["images/03.jpg", "images/twin.jpg"]
    assert listed["reason"].str.contains(r"images/03\.jpg \(mask #\w{8}\), images/twin\.jpg \(mask #\w{8}\)").all()


def test_a_rare_class_is_brought_into_every_part_or_left_out_by_name(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        write_mask(shapes / "masks" / f"{number:02}.png", halves(left=0, right=2 if number in (3, 4, 5) else 1))
    run_without_checks(settings())
    assert all(content_of("split/counts.json")[part]["2"] for part in ("train", "validation", "test"))
    assert content_of("plan/plan.json")["classes_on_few_test_images"] == ["0", "1", "2"]
    assert "warning: class '2' is on 1 test images (810 pixels), fewer than 20: its intersection over" in (
        capsys.readouterr().err
    )
    ingest.run(settings(data={"ignore_classes": ["2"]}))
    assert content_of("ingest/classes.json") == ["0", "1"]
    assert content_of("ingest/source.json")["ignored_classes"] == {"2": 3 * 27 * 30}
    assert "note: class '2' is left out with its 2430 pixels (data.ignore_classes)" in capsys.readouterr().err
    assert set(np.unique(np.asarray(Image.open("artifacts/ingest/masks/3.png")))) == {0, VOID}


def test_a_class_on_too_few_images_stops_the_run_with_its_name(shapes: Path) -> None:
    for number in range(12):
        write_mask(shapes / "masks" / f"{number:02}.png", halves(left=0, right=2 if number == 3 else 1))
    with pytest.raises(KingletError, match=r"1 classes are on fewer than 3 usable images .*\(2\)"):
        run_all(settings())
    assert Path(".kinglet/check_data/annotations.csv").exists()


def test_the_sets_own_split_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, part in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"] * 2):
        write_image(tmp_path / "shapes" / part / f"{number}.jpg", number)
        write_mask(tmp_path / "shapes" / part / f"{number}_mask.png", halves())
    run_without_checks(settings())
    images = pd.read_parquet("artifacts/split/manifest.parquet")
    assert {path.split("/")[0] for path in images["path"]} == {"train", "valid", "test"}
    assert images["split"].tolist() == ["test"] * 2 + ["train"] * 4 + ["validation"] * 2


def test_large_images_are_cut_into_tiles_that_keep_to_one_part_and_answer_for_every_pixel_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        size = (96, 40) if number % 3 else (30, 20)
        write_image(tmp_path / "shapes" / "images" / f"{number:02}.png", number, size, 6 if number == 4 else 1)
        write_mask(tmp_path / "shapes" / "masks" / f"{number:02}.png", halves(size, right=255))
    run_all(settings(data={"source": "shapes", "images": "shapes", "fit": "tile"}))
    images = pd.read_parquet("artifacts/split/manifest.parquet")
    assert len(images) == 4 + 8 * 4 * 2
    tiles = images[images["group"] != ""]
    assert tiles["group"].nunique() == 8
    assert tiles.groupby("group")["split"].nunique().max() == 1
    packed = np.load("artifacts/ingest/images_32.npy")
    tile = images[images["path"] == "images/01.png#21,8"].iloc[0]
    with Image.open("shapes/images/01.png") as whole:
        assert np.array_equal(packed[tile["index"]], np.asarray(whole)[8:40, 21:53])
    small = images[images["path"] == "images/00.png"].iloc[0]
    with Image.open("shapes/images/00.png") as whole:
        assert np.array_equal(packed[small["index"]][6:26, 1:31], np.asarray(whole))
    assert not packed[small["index"]][:6].any()
    for part in ("train", "validation", "test"):
        scored = segmentation_answers.read_masked(part)
        labelled = sum(int((scored.truth(place) != VOID).sum()) for place in range(len(scored)))
        paths = {path.partition("#")[0] for path in scored.paths}
        assert scored.n_wholes == len(paths)
        assert labelled == sum(
            Image.open(f"shapes/{path}").size[0] * Image.open(f"shapes/{path}").size[1] for path in paths
        )


def test_masks_are_the_same_out_of_one_process_and_out_of_several(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(Path("artifacts").rglob("*")) if path.is_file()}

    ingest.run(settings())
    before = contents()
    monkeypatch.setattr(worker_processes, "IMAGES_WORTH_PROCESSES", 10)
    monkeypatch.setattr(worker_processes, "IMAGES_PER_JOB", 5)
    ingest.run(settings())
    assert contents() == before


@pytest.mark.parametrize(("size", "teacher"), [((40, 30), 192), ((500, 375), 512), ((300, 20), 288), ((4000, 20), 512)])
def test_auto_takes_about_the_images_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], teacher: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "shapes" / "a.jpg", 1, size)
    write_mask(tmp_path / "shapes" / "a_mask.png", halves(size))
    ingest.run(settings(finetune={"input_size": "auto", "low_resolution_share": 0.4}))
    sizes = content_of("ingest/source.json")["input_sizes"]
    assert sizes["teacher"] == teacher
    # The first part of a training looks at windows of the same images.
    assert sizes["low_resolution"] == teacher
    assert {path.name for path in Path("artifacts/ingest").glob("masks_*.npy")} == {f"masks_{teacher}.npy"}


def classes_in_folders(root: Path) -> None:
    write_image(root / "cat" / "a.jpg", 1)


def other_sizes(root: Path) -> None:
    write_image(root / "images" / "a.jpg", 1)
    write_mask(root / "masks" / "a.png", halves((20, 20)))


@pytest.mark.parametrize(
    ("write", "changes", "said"),
    [
        (classes_in_folders, {}, "shapes holds no masks of images"),
        (other_sizes, {}, r"no image whose mask can be used: images/a\.jpg: its mask masks/a\.png has 20 x 20 pixels"),
        (write_masked, {"ignore_classes": ["ring"]}, "names ring, but the classes are: background, foreground"),
        (write_masked, {"ignore_classes": ["background"]}, "1 of 2 classes are left; segmentation needs two"),
        (write_masked, {"source": "labels.csv"}, r"labels\.csv is a table, which holds no masks"),
        (write_masked, {"label_corrections": "fixes.csv"}, "fixes.csv, line 2: a correction of an image's label"),
    ],
    ids=["folders", "sizes", "unknown class", "one left", "table", "corrections"],
)
def test_a_source_without_usable_masks_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shapes")
    Path("labels.csv").write_text("path,label\na.jpg,cat\n")
    Path("fixes.csv").write_text("path,label,new_label,confidence,decision\na.jpg,cat,,1,drop\n")
    with pytest.raises(KingletError, match=said):
        ingest.run(settings(data=changes))
    assert not Path("artifacts").exists()


@pytest.mark.skipif(not Path("../shared/data/membrane").exists(), reason="../shared/data/membrane is not there")
def test_the_thirty_masks_of_membrane_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path("../shared/data/membrane").resolve()
    monkeypatch.chdir(tmp_path)
    ingest.run(settings(data={"source": str(whole)}))
    assert content_of("ingest/classes.json") == ["background", "foreground"]
    assert len(list(Path("artifacts/ingest/masks").iterdir())) == 30
    (left_out,) = content_of("ingest/source.json")["left_out"].values()
    assert len(left_out) == 60
    first = pd.read_parquet("artifacts/ingest/manifest.parquet")["path"].iloc[0]
    stored = np.asarray(Image.open(whole / first.replace("/image/", "/label/")))
    np.testing.assert_array_equal(np.asarray(Image.open("artifacts/ingest/masks/0.png")), stored == 255)


def student(input_size: int | str) -> dict[str, Any]:
    """Return the settings of a student `small` that takes images of this size."""
    return {"students": {"small": {"backbone": "mobilenet-v2", "input_size": input_size}}}


def test_images_and_masks_are_packed_at_the_sizes_of_students_too(shapes: Path) -> None:
    ingest.run(settings(finetune={"input_size": 96}, distill=student(64)))
    assert content_of("ingest/source.json")["input_sizes"]["students"] == {"small": 64}
    packed = {path.stem: np.load(path, mmap_mode="r").shape[1] for path in Path("artifacts/ingest").glob("*.npy")}
    assert packed == {"images_64": 64, "images_96": 96, "masks_64": 64, "masks_96": 96}


@pytest.mark.parametrize(
    ("fit", "wanted", "said", "hint"),
    [
        ("pad", 32, "can teach at 64 to 96 only", "a multiple of 32 from 64 to 96, or auto"),
        ("pad", 128, "can teach at 64 to 96 only", "a multiple of 32 from 64 to 96, or auto"),
        # A smaller student would see tiles at another scale.
        ("tile", 64, "can teach at 96 only", "Take auto, or change"),
    ],
)
def test_a_student_of_a_size_at_which_its_teacher_cannot_teach_is_refused(
    shapes: Path, fit: str, wanted: int, said: str, hint: str
) -> None:
    with pytest.raises(KingletError, match=rf"small\.input_size is {wanted}, and the teacher.*{said}") as caught:
        ingest.run(settings(data={"fit": fit}, finetune={"input_size": 96}, distill=student(wanted)))
    assert hint in (caught.value.hint or "")
    assert not Path("artifacts/ingest").exists()
