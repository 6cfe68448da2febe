"""ingest, profile, check_data, split and plan on a small folder with boxes: what comes out, and what a user is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow.parquet import read_schema

from kinglet.errors import KingletError
from kinglet.runtime.decoding import decode
from kinglet.runtime.preprocessing import resize
from tasks import check_data, ingest, plan, profile, split, worker_processes
from tasks.parameters import Parameters
from tests.unit.tasks.annotated_folder import (
    SQUARES,
    as_coco,
    as_yolo,
    settings,
    write_image,
    write_objects,
    write_shapes,
)

SIDES = ["x1", "y1", "x2", "y2"]


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images with a square and a bar each in `shapes`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_shapes(tmp_path / "shapes")


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


def boxes_of(path: str) -> pd.DataFrame:
    """Return the boxes of an image as `ingest` wrote them."""
    images = pd.read_parquet("artifacts/ingest/manifest.parquet").set_index("path")
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    return boxes[boxes["index"] == images.loc[path, "index"]]


def test_boxes_go_through_and_every_class_is_in_every_part(shapes: Path) -> None:
    write_image(shapes / "images" / "empty.jpg", 99)
    write_objects(shapes / "labels" / "empty.xml", [])
    (shapes / "domains.csv").write_text("path,domain\nimages,hall\nimages/empty.jpg,yard\n")
    run_all(settings())
    boxes = pd.read_parquet("artifacts/ingest/boxes.parquet")
    schema = read_schema("artifacts/ingest/boxes.parquet")
    kinds = dict(zip(schema.names, map(str, schema.types), strict=True))
    assert kinds == {"index": "int64", "label": "string", **dict.fromkeys(SIDES, "double"), "identity": "int64"}
    # The last pixel belongs to an object, and pixels count from 1.
    assert boxes.iloc[0].tolist() == [0, "square", 4.0, 4.0, 24.0, 24.0, -1]
    assert boxes["index"].is_monotonic_increasing
    images = pd.read_parquet("artifacts/split/manifest.parquet")
    assert list(images) == ["index", "path", "label", "label_index", "group", "domain", "split", "sha256"]
    assert set(images["label"]) == {""}
    assert set(images["label_index"]) == {-1}
    assert images["path"].tolist()[-1] == "images/empty.jpg"
    assert images["domain"].tolist() == [*["hall"] * (len(images) - 1), "yard"]
    assert not (boxes["index"] == images["index"].iloc[-1]).any()
    assert content_of("split/classes.json") == ["bar", "square"]
    counts = content_of("split/counts.json")
    assert {part: sum(of_class.values()) for part, of_class in counts.items()} == {
        part: 2 * int(((images["split"] == part) & (images["path"] != "images/empty.jpg")).sum())
        for part in ("train", "validation", "test")
    }
    assert all(count for of_class in counts.values() for count in of_class.values())


@pytest.mark.parametrize("rewrite", [as_coco, as_yolo])
def test_every_format_gives_the_same_boxes(shapes: Path, rewrite: Callable[[Path], None]) -> None:
    ingest.run(settings())
    before = pd.read_parquet("artifacts/ingest/boxes.parquet")
    rewrite(shapes)
    ingest.run(settings())
    after = pd.read_parquet("artifacts/ingest/boxes.parquet")
    pd.testing.assert_frame_equal(before, after, check_exact=False, atol=1e-9)
    assert content_of("ingest/source.json")["annotations"]["format"] in ("COCO JSON", "YOLO text")


def test_packed_images_are_letterboxed_as_serving_would(shapes: Path) -> None:
    ingest.run(settings())
    packed = np.load("artifacts/ingest/images_64.npy")
    pixels = decode((shapes / "images" / "03.jpg").read_bytes(), 10**8)[0]
    np.testing.assert_array_equal(packed[3], resize(pixels, 64, "pad"))
    assert not packed[3, :8].any()
    assert packed[3, 8:56].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    ("side", "long_side", "size"),
    [(40, 640, 416), (52, 640, 320), (10, 640, 416), (300, 640, 192), (10, 100, 192), (10, 300, 320)],
    ids=["cells", "larger", "tiny", "large", "small images", "never beyond the images' own size"],
)
def test_auto_takes_the_size_at_which_small_boxes_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, long_side: int, size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = (long_side, long_side // 2 + side)
    write_image(tmp_path / "shapes" / "a.jpg", 0, shown)
    write_objects(tmp_path / "shapes" / "a.xml", [("square", 1, 1, side, side)], shown)
    ingest.run(settings(finetune={"input_size": "auto", "low_resolution_share": 0.4}))
    sizes = content_of("ingest/source.json")["input_sizes"]
    assert sizes["teacher"] == size
    assert sizes["low_resolution"] % 32 == 0
    assert sizes["low_resolution"] < size
    assert sorted(path.name for path in Path("artifacts/ingest").glob("*.npy")) == sorted(
        f"images_{edge}.npy" for edge in (size, sizes["low_resolution"])
    )


def student(input_size: int | str) -> dict[str, Any]:
    """Return the settings of a student `small` that takes images of this size."""
    return {"students": {"small": {"backbone": "mobilenet-v2", "input_size": input_size}}}


@pytest.mark.parametrize(("wanted", "size"), [("auto", 96), (64, 64), (96, 96)])
def test_images_are_packed_at_the_sizes_of_students_too(shapes: Path, wanted: int | str, size: int) -> None:
    ingest.run(settings(finetune={"input_size": 96}, distill=student(wanted)))
    assert content_of("ingest/source.json")["input_sizes"]["students"] == {"small": size}
    assert {path.stem for path in Path("artifacts/ingest").glob("*.npy")} == {"images_96", f"images_{size}"}


@pytest.mark.parametrize("wanted", [32, 128])
def test_a_student_of_a_size_at_which_its_teacher_cannot_teach_is_refused(shapes: Path, wanted: int) -> None:
    said = rf"small\.input_size is {wanted}, and the teacher, which takes 96 pixels, can teach at 64 to 96 only"
    with pytest.raises(KingletError, match=said) as caught:
        ingest.run(settings(finetune={"input_size": 96}, distill=student(wanted)))
    assert "a multiple of 32 from 64 to 96, or auto" in caught.value.hint
    assert not Path("artifacts/ingest").exists()


def test_boxes_follow_a_photo_that_exif_turns(shapes: Path) -> None:
    """The photo is stored 80 x 60 and shown 60 x 80; its boxes were drawn on the photo as stored."""
    write_image(shapes / "images" / "turned.jpg", 7, (80, 60), orientation=6)
    write_objects(shapes / "labels" / "turned.xml", [("square", 1, 1, 10, 20)], (80, 60))
    ingest.run(settings())
    image = pd.read_parquet("artifacts/ingest/manifest.parquet").set_index("path").loc["images/turned.jpg"]
    assert (image["width"], image["height"]) == (60, 80)
    # The upper left corner comes to the upper right: 20 high becomes 20 wide.
    assert boxes_of("images/turned.jpg")[SIDES].to_numpy().tolist() == [[40.0, 0.0, 60.0, 10.0]]


def test_what_is_left_out_is_said_listed_and_counted(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat, nothing, words = ("square", 5, 5, 4, 24), ("bar", "nan", 1, 9, 9), ("bar", "left", 1, 9, 9)
    write_objects(shapes / "labels" / "00.xml", [*SQUARES, flat, nothing, words])
    write_objects(shapes / "labels" / "01.xml", [("square", 60, 40, 99, 50)])
    write_objects(shapes / "labels" / "gone.xml", SQUARES)
    write_image(shapes / "images" / "nobody.jpg", 50)
    run_all(settings())
    said = capsys.readouterr().err
    assert "note: 4 annotations are left out: labels/00.xml, object 3: its box has no area" in said
    assert "note: 1 boxes are cut at the edge of their image: labels/01.xml, object 1: box" in said
    assert "note: image files that no annotation uses: images/nobody.jpg" in said
    assert "note: pixels count from 1, as VOC's do" in said
    assert "warning: 4 of 27 annotations cannot be used and are left out (labels/00.xml, object 3: its box" in said
    rows = pd.read_csv("artifacts/check_data/annotations.csv")
    assert [(row.place, row.reason.split(":")[0]) for row in rows.itertuples()] == [
        ("labels/00.xml, object 3", "left out"),
        ("labels/00.xml, object 4", "left out"),
        ("labels/00.xml, object 5", "left out"),
        ("labels/gone.xml", "left out"),
        ("labels/01.xml, object 1", "used as cut"),
    ]
    source = content_of("ingest/source.json")["annotations"]
    assert (source["format"], source["n_boxes"]) == ("Pascal VOC XML", 23)
    assert [finding["place"] for finding in source["dropped"]] == rows["place"].tolist()[:4]
    assert source["dropped"][3]["reason"] == "image gone.jpg does not exist; it had 2 objects"
    checks = content_of("check_data/checks.json")
    assert (checks["n_dropped_annotations"], checks["n_cut_boxes"], checks["n_boxes"]) == (4, 1, 23)
    assert checks["boxes_by_class"] == {"bar": 11, "square": 12}
    assert boxes_of("images/01.jpg")[SIDES].to_numpy().tolist() == [[59.0, 39.0, 80.0, 50.0]]


def test_odd_boxes_are_warned_of_by_name(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_objects(shapes / "labels" / "00.xml", [("square", 5, 5, 24, 24), ("square", 5, 5, 24, 25)])
    write_objects(shapes / "labels" / "01.xml", [("square", 5, 5, 24, 24), ("bar", 5, 5, 24, 24)])
    write_objects(shapes / "labels" / "02.xml", [("square", 1, 1, 80, 59)])
    write_objects(shapes / "labels" / "03.xml", [("bar", 10, 10, 12, 11)])
    run_all(settings(check={"tiny_box_pixels": 4}))
    rows = pd.read_csv("artifacts/check_data/annotations.csv").to_numpy().tolist()
    assert rows == [
        ["images/00.jpg: square (4, 4, 24, 25)", "covers the same as images/00.jpg: square (4, 4, 24, 24)"],
        ["images/01.jpg: bar (4, 4, 24, 24)", "covers the same as images/01.jpg: square (4, 4, 24, 24)"],
        ["images/02.jpg: square (0, 0, 80, 59)", "covers nearly the whole image"],
        ["images/03.jpg: bar (9, 9, 12, 11)", "tiny: 2.0 pixels at the network's input"],
    ]
    said = capsys.readouterr().err
    assert "1 boxes cover the same as another one of their class (images/00.jpg: square (4, 4, 24, 25))" in said
    assert "1 boxes cover the same as one of another class (images/01.jpg: bar (4, 4, 24, 24))" in said
    assert "1 boxes cover nearly their whole image (images/02.jpg" in said
    assert "1 boxes are tiny at the network's input (check.tiny_box_pixels) (images/03.jpg" in said
    assert "note: 4 annotations to look at are listed with reasons in artifacts/check_data/annotations.csv" in said


def test_equal_images_with_other_boxes_contradict_each_other_and_those_with_equal_ones_do_not(shapes: Path) -> None:
    for name, original in (("same", "02.jpg"), ("twin", "03.jpg")):
        (shapes / "images" / f"{name}.jpg").write_bytes((shapes / "images" / original).read_bytes())
    write_objects(shapes / "labels" / "same.xml", SQUARES[::-1])
    write_objects(shapes / "labels" / "twin.xml", SQUARES[:1])
    run_all(settings(check={"max_conflicting": 0.5}))
    listed = pd.read_csv("artifacts/check_data/quarantine.csv")
    assert listed["path"].tolist() == ["images/03.jpg", "images/twin.jpg"]
    assert listed["reason"].str.contains(r"images/03\.jpg \(2 boxes, #\w{8}\), images/twin\.jpg \(1 boxes, #").all()
    assert not pd.read_parquet("artifacts/split/manifest.parquet")["path"].isin(listed["path"]).any()
    assert content_of("check_data/checks.json")["boxes_by_class"] == {"bar": 12, "square": 12}


def test_a_photo_that_is_cut_off_is_quarantined_with_its_boxes(shapes: Path) -> None:
    file = shapes / "images" / "04.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    run_all(settings(check={"max_unreadable": 0.2}))
    assert pd.read_csv("artifacts/check_data/quarantine.csv")["path"].tolist() == ["images/04.jpg"]
    assert content_of("check_data/checks.json")["boxes_by_class"] == {"bar": 11, "square": 11}
    assert "images/04.jpg" not in set(pd.read_parquet("artifacts/split/manifest.parquet")["path"])


def test_the_sets_own_split_is_kept(shapes: Path) -> None:
    lists = shapes / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(f"{number:02}" for number in range(6)))
    (lists / "val.txt").write_text("\n".join(f"{number:02}" for number in range(6, 9)))
    (lists / "test.txt").write_text("\n".join(f"{number:02}" for number in range(9, 12)))
    run_without_checks(settings())
    images = pd.read_parquet("artifacts/split/manifest.parquet")
    assert images["split"].tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


def test_a_rare_class_is_brought_into_every_part_or_left_out_by_name(shapes: Path) -> None:
    for number in (3, 4, 5):
        write_objects(shapes / "labels" / f"{number:02}.xml", [*SQUARES, ("ring", 62, 30, 75, 45)])
    run_without_checks(settings())
    assert all(content_of("split/counts.json")[part]["ring"] for part in ("train", "validation", "test"))
    ingest.run(settings(data={"ignore_classes": ["ring"]}))
    assert set(pd.read_parquet("artifacts/ingest/boxes.parquet")["label"]) == {"bar", "square"}
    assert content_of("ingest/source.json")["ignored_classes"] == {"ring": 3}


def test_a_class_on_too_few_images_stops_the_run_with_its_name(shapes: Path) -> None:
    write_objects(shapes / "labels" / "03.xml", [*SQUARES, ("ring", 62, 30, 75, 45)])
    with pytest.raises(KingletError, match=r"1 classes are on fewer than 3 usable images .*\(ring\)"):
        run_all(settings())
    assert Path(".kinglet/check_data/annotations.csv").exists()
    with pytest.raises(KingletError, match=r"class 'ring' \(1 images\) has none in"):
        run_without_checks(settings())


def test_the_plan_counts_and_claims_nothing(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_without_checks(settings())
    found = content_of("plan/plan.json")
    assert found["problem"] == "detection"
    assert sum(part["images"] for part in found["parts"].values()) == 12
    assert found["parts"]["test"]["boxes_by_class"] == content_of("split/counts.json")["test"]
    assert found["classes_on_few_test_images"] == ["bar", "square"]
    assert "warning: class 'bar' is on " in capsys.readouterr().err
    assert not {"provable_margin", "images_needed"} & set(found)


def test_two_runs_write_the_same_bytes(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_objects(shapes / "labels" / "00.xml", [("square", 5, 5, 24, 24), ("square", 5, 5, 24, 25)])

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(Path("artifacts").rglob("*")) if path.is_file()}

    run_all(settings())
    before = contents()
    monkeypatch.setattr(worker_processes, "IMAGES_WORTH_PROCESSES", 10)
    monkeypatch.setattr(worker_processes, "IMAGES_PER_JOB", 5)
    run_all(settings())
    assert contents() == before


def test_the_number_of_boxes_drifts_from_the_accepted_version(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest.run(settings())
    profile.run(settings())
    Path("data").mkdir()
    profile.accept()
    reference = json.loads(Path("data/reference_profile.json").read_text())
    assert reference["classes"] == {"bar": 0.5, "square": 0.5}
    for number in range(12):
        write_objects(shapes / "labels" / f"{number:02}.xml", [*SQUARES, ("bar", 40, 30, 70, 50)])
    run_all(settings())
    assert "n_boxes: the distribution moved from the accepted version" in capsys.readouterr().err


def classes_in_folders(root: Path) -> None:
    write_image(root / "cat" / "a.jpg", 1)


def masks(root: Path) -> None:
    write_image(root / "images" / "a.jpg", 1)
    write_image(root / "masks" / "a.jpg", 2)


def no_box_at_all(root: Path) -> None:
    write_image(root / "images" / "a.jpg", 1)
    write_objects(root / "labels" / "a.xml", [("square", 5, 5, 5, 1)])


@pytest.mark.parametrize(
    ("write", "changes", "said"),
    [
        (classes_in_folders, {}, "shapes holds no annotations with boxes"),
        (masks, {}, r"shapes holds no boxes, but a data set for segmentation \(masks: masks/a\.jpg\)"),
        (no_box_at_all, {}, r"holds 1 images and no box that can be used: labels/a\.xml, object 1: its box has no"),
        (write_shapes, {"ignore_classes": ["ring"]}, "names ring, but the classes are: bar, square"),
        (write_shapes, {"ignore_classes": ["bar", "square"]}, "no box is left"),
        (write_shapes, {"source": "labels.csv"}, r"labels\.csv is a table, which holds no boxes"),
        (write_shapes, {"label_corrections": "fixes.csv"}, "fixes.csv, line 2: a correction of an image's label"),
    ],
    ids=["folders", "masks", "no box", "unknown class", "all ignored", "table", "corrections"],
)
def test_a_source_without_usable_boxes_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shapes")
    Path("labels.csv").write_text("path,label\na.jpg,cat\n")
    Path("fixes.csv").write_text("path,label,new_label,confidence,decision\na.jpg,cat,,1,drop\n")
    with pytest.raises(KingletError, match=said):
        ingest.run(settings(data=changes))
    assert not Path("artifacts").exists()


def test_images_without_a_label_are_told_not_to_be_used(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(Path("more") / "a.jpg", 1)
    ingest.run(settings(data={"unlabelled": "more"}))
    assert "note: 1 images in more are not used: detection learns from images with boxes" in capsys.readouterr().err
    assert pd.read_parquet("artifacts/ingest/unlabelled.parquet").empty


@pytest.mark.skipif(not Path("../shared/data/bccd").exists(), reason="../shared/data/bccd is not there")
def test_the_two_bad_boxes_of_bccd_are_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path("../shared/data/bccd/BCCD").resolve()
    few = tmp_path / "shapes"
    for name in (338, 343, *range(8)):
        stem = f"BloodImage_{name:05}"
        for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            if (whole / folder / f"{stem}.{suffix}").exists():
                (few / folder).mkdir(parents=True, exist_ok=True)
                (few / folder / f"{stem}.{suffix}").symlink_to(whole / folder / f"{stem}.{suffix}")
    monkeypatch.chdir(tmp_path)
    run_all(settings())
    rows = pd.read_csv("artifacts/check_data/annotations.csv")
    bad = rows[rows["reason"].str.startswith("left out")]
    assert bad["place"].tolist() == [
        "Annotations/BloodImage_00338.xml, object 13",
        "Annotations/BloodImage_00343.xml, object 4",
    ]
