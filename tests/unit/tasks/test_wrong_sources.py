"""What a user does wrong with the images, on real steps: one sentence, exit code 2, and mended it goes on."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.unit.tasks.step_process import (
    DATA_STEPS,
    Workplace,
    assert_refused,
    obey_permissions,
    picture,
    skip_where_permissions_do_not_bind,
    write_pets,
)

Edit = Callable[[Path], None]


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """Twelve cats and twelve dogs in `photos`."""
    write_pets(tmp_path / "photos")
    return Workplace(tmp_path)


def quarantined(place: Workplace) -> dict[str, str]:
    table = pd.read_csv(place.root / "artifacts" / "check_data" / "quarantine.csv")
    return dict(zip(table["path"], table["reason"], strict=True))


def problems(place: Workplace) -> dict[str, str]:
    """Return {path: problem} of the images that `ingest` could not decode."""
    table = pd.read_parquet(place.root / "artifacts" / "ingest" / "manifest.parquet")
    return {row.path: row.problem for row in table.itertuples() if row.problem}


def remove_all(root: Path) -> None:
    shutil.rmtree(root / "photos")


def empty(root: Path) -> None:
    shutil.rmtree(root / "photos")
    (root / "photos").mkdir()


def empty_classes(root: Path) -> None:
    empty(root)
    (root / "photos" / "cat").mkdir()


def only_text(root: Path) -> None:
    empty(root)
    (root / "photos" / "cat").mkdir()
    (root / "photos" / "cat" / "notes.txt").write_text("bring milk")


def loose_images(root: Path) -> None:
    empty(root)
    picture(root / "photos" / "a.png", 1)


def a_file(root: Path) -> None:
    empty(root)
    (root / "photos").rmdir()
    (root / "photos").write_text("no folder")


def a_pipe(root: Path) -> None:
    shutil.rmtree(root / "photos")
    os.mkfifo(root / "photos")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (remove_all, ["data.source: photos does not exist"]),
        (empty, ["the folder photos is empty"]),
        (empty_classes, ["the folder photos holds no images"]),
        (only_text, ["the folder photos holds no images"]),
        (loose_images, ["1 images but no folder of a class"]),
        (a_file, ["photos is no kind of source that is known"]),
        (a_pipe, ["photos is no kind of source that is known"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_source_without_images_is_refused_and_mended_it_is_read(place: Workplace, edit: Edit, words: list[str]) -> None:
    edit(place.root)
    assert_refused(place.step("ingest"), *words)
    assert not list((place.root / "artifacts").rglob("*.npy"))
    shutil.rmtree(place.root / "photos") if (place.root / "photos").is_dir() else (place.root / "photos").unlink(
        missing_ok=True
    )
    write_pets(place.root / "photos")
    place.steps("ingest")


def one_class(root: Path) -> None:
    (root / "photos" / "dog").rename(root / "elsewhere")


def class_of_two(root: Path) -> None:
    picture(root / "photos" / "bird" / "0.png", 200)
    picture(root / "photos" / "bird" / "1.png", 201)


def all_broken(root: Path) -> None:
    for path in (root / "photos").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (one_class, ["two classes or more with usable images, found 1"]),
        (class_of_two, ["1 classes have fewer than 5 usable images", "bird"]),
        (all_broken, ["no usable image is left", "24 of 24 files cannot be read", "truncated PNG file"]),
    ],
)
def test_data_that_cannot_be_trained_on_stop_the_run(place: Workplace, edit: Edit, words: list[str]) -> None:
    edit(place.root)
    place.steps("ingest", "profile")
    assert_refused(place.step("check_data"), "The data set cannot be trained on", *words)


def test_data_that_were_refused_go_on_once_the_class_is_left_out(place: Workplace) -> None:
    class_of_two(place.root)
    place.set("check", min_images_per_class=3, max_class_imbalance=100)
    place.steps("ingest", "profile")
    assert_refused(place.step("check_data"), "fewer than 3 usable images", "bird")
    place.set("data", ignore_classes=["bird"])
    place.steps(*DATA_STEPS)


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def corrupt(path: Path) -> None:
    content = bytearray(picture(path, 300).read_bytes())
    place = content.index(b"IDAT") + 4
    content[place : place + 8] = b"\0" * 8
    path.write_bytes(content)


def truncated(path: Path) -> None:
    content = picture(path, 300, (200, 200)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def text(path: Path) -> None:
    path.write_text("bring milk")


def twenty_thousand_square(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.png")


def unix_socket(path: Path) -> None:
    # The path of a socket must be short.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


UNUSABLE = {
    "bytes.jpg": (zero_bytes, "empty file (0 bytes)"),
    "corrupt.png": (corrupt, "PNG file"),
    "cut.jpg": (truncated, "truncated JPEG file"),
    "notes.txt": (text, "not an image"),
    "square.png": (twenty_thousand_square, "too large: 20000 x 20000 pixels, at most 100000000 pixels are allowed"),
    "pipe.png": (pipe, "cannot be read: not a regular file"),
    "socket.png": (unix_socket, "cannot be read: not a regular file"),
    "link.png": (dangling_link, "cannot be read: No such file or directory"),
}


def test_unusable_files_are_named_and_quarantined_and_the_rest_goes_on(place: Workplace) -> None:
    for name, (make, _) in UNUSABLE.items():
        make(place.root / "photos" / "cat" / name)
    said = place.steps(*DATA_STEPS)
    left_out = quarantined(place)
    assert set(left_out) == {f"cat/{name}" for name in UNUSABLE}
    for name, (_, reason) in UNUSABLE.items():
        assert left_out[f"cat/{name}"].startswith("unreadable: ")
        assert reason in left_out[f"cat/{name}"]
    assert "8 of 32 files cannot be read as images and are left out (cat/bytes.jpg, cat/corrupt.png, " in said
    used = pd.read_parquet(place.root / "artifacts" / "split" / "manifest.parquet")
    assert len(used) == 24
    assert not set(used["path"]) & set(left_out)


def test_unusual_images_are_used_and_mentioned(place: Workplace) -> None:
    cats = place.root / "photos" / "cat"
    Image.fromarray(np.linspace(0, 65_535, 1200).reshape(30, 40).astype(np.uint16)).save(cats / "sixteen.png")
    Image.open(picture(cats / "ink.jpg", 50)).convert("CMYK").save(cats / "ink.jpg")
    Image.open(picture(cats / "palette.png", 51)).convert("P").save(cats / "palette.png")
    frames = [Image.open(cats / f"00{number}.png").rotate(180) for number in range(3)]
    frames[0].save(cats / "moving.gif", save_all=True, append_images=frames[1:])
    picture(cats / "wide.png", 52, (20_000, 40))
    picture(cats / "tall.png", 53, (40, 20_000))
    said = place.steps(*DATA_STEPS)
    assert quarantined(place) == {}
    used = pd.read_parquet(place.root / "artifacts" / "split" / "manifest.parquet")
    assert {
        f"cat/{name}" for name in ("sixteen.png", "ink.jpg", "palette.png", "moving.gif", "wide.png", "tall.png")
    } <= (set(used["path"]))
    assert "3 of 30 images have another mode" in said or "4 of 30 images have another mode" in said
    assert "cat/wide.png" in said


def test_image_beyond_a_lower_limit_is_used_once_the_limit_is_raised(place: Workplace) -> None:
    picture(place.root / "photos" / "cat" / "wide.png", 52, (2_000, 40))
    place.set("data", max_pixels=79_999)
    place.steps("ingest")
    assert "too large: 2000 x 40 pixels" in problems(place)["cat/wide.png"]
    place.set("data", max_pixels=80_000)
    place.steps("ingest")
    assert problems(place) == {}


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_names_with_spaces_and_non_ascii_letters_go_through(tmp_path: Path, kind: str) -> None:
    source = "Ma première série - 犬 & 'cœur'"
    for number in range(12):
        picture(tmp_path / source / "chat noir ü" / f"Bild {number} - ß.png", number)
        picture(tmp_path / source / "犬" / f'"{number}", # %.png', 100 + number)
    place = Workplace(tmp_path)
    place.set("data", source=source, images=source)
    if kind == "table":
        rows = [
            {"path": path.relative_to(tmp_path / source).as_posix(), "label": path.parent.name}
            for path in sorted((tmp_path / source).rglob("*.png"))
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "étiquettes des images.csv", index=False)
        place.set("data", source="étiquettes des images.csv")
    place.steps(*DATA_STEPS)
    used = pd.read_parquet(tmp_path / "artifacts" / "split" / "manifest.parquet")
    assert set(used["label"]) == {"chat noir ü", "犬"}
    assert len(used) == 24
    assert place.step("ingest", fresh=True, LC_ALL="C").returncode == 0


def table(place: Workplace, content: str | bytes, name: str = "labels.csv") -> None:
    path = place.root / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    place.set("data", source=name)


ROWS = "path,label\n" + "".join(f"{pet}/{number:03}.png,{pet}\n" for pet in ("cat", "dog") for number in range(12))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS + "cat/lost.png,cat\n", ["labels.csv names 1 files that do not exist", "line 26: cat/lost.png"]),
        (ROWS + "cat/001.png,dog\n", ["labels.csv, line 26", "cat/001.png has the label 'dog', but 'cat' in line 3"]),
        (ROWS + "cat/001.png\n", ["labels.csv, line 26: the label is empty"]),
        (ROWS.replace("label", "class"), ["labels.csv, line 1: column 'label' is missing"]),
        ("", ["labels.csv, line 1"]),
        (ROWS.encode("utf-16"), ["labels.csv is not UTF-8 text"]),
        (ROWS + "x" * 5000 + ".png,cat\n", ["labels.csv", "line 26"]),
        (ROWS + "a\0b.png,cat\n", ["labels.csv"]),
    ],
)
def test_wrong_table_is_refused_with_its_line_and_mended_it_is_read(
    place: Workplace, content: str | bytes, words: list[str]
) -> None:
    table(place, content)
    assert_refused(place.step("ingest"), *words)
    table(place, ROWS)
    place.steps("ingest")


def test_file_without_a_label_is_named_and_left_out(place: Workplace) -> None:
    picture(place.root / "photos" / "cat" / "new.png", 400)
    table(place, ROWS)
    said = place.steps(*DATA_STEPS)
    assert quarantined(place) == {"cat/new.png": "no label"}
    assert "1 of 25 images have no label and are left out (cat/new.png)" in said


@pytest.mark.parametrize(("name", "word"), [("list.xlsx", "no kind of source"), ("set.yaml", "no description")])
def test_file_of_another_kind_is_refused(place: Workplace, name: str, word: str) -> None:
    table(place, "anything: at all\n", name)
    assert_refused(place.step("ingest"), f"data.source: {name}", word)


def test_description_of_files_that_are_no_idx_is_refused(place: Workplace) -> None:
    for name in ("images", "labels"):
        (place.root / f"{name}.gz").write_bytes(gzip.compress(b"short"))
    digest = hashlib.sha256(b"short").hexdigest()
    part = {"split": "train", "images": "images", "labels": "labels", "images_sha256": digest, "labels_sha256": digest}
    described = {"name": "x", "title": "X", "classes": ["a"], "system_folder": str(place.root), "parts": [part]}
    table(place, yaml.safe_dump({**described, "debian_package": "x", "home": "x"}), "set.yaml")
    assert_refused(place.step("ingest"), "labels.gz is no IDX file of unsigned bytes")


@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ("photos", ["photos cannot be read: Permission denied"]),
        ("photos/cat", ["photos/cat cannot be read: Permission denied"]),
        ("labels.csv", ["labels.csv cannot be used: Permission denied"]),
        ("params.yaml", ["params.yaml cannot be", "Permission denied"]),
        ("artifacts", ["artifacts/ingest cannot be used: Permission denied"]),
        ("parent/photos", ["parent/photos cannot be read: Permission denied"]),
    ],
)
def test_what_must_not_be_read_or_written_is_named(place: Workplace, locked: str, words: list[str]) -> None:
    skip_where_permissions_do_not_bind()
    (place.root / "artifacts").mkdir()
    path = place.root / locked
    if locked == "labels.csv":
        table(place, ROWS)
    if locked == "params.yaml":
        path.write_text("seed: 0\n")
    if locked == "parent/photos":
        shutil.move(place.root / "photos", place.root / "parent" / "photos")
        place.set("data", source=locked, images=locked)
        path = path.parent
    mode = path.stat().st_mode
    path.chmod(0o500 if locked == "artifacts" else 0)
    try:
        done = place.step("ingest", before=obey_permissions, fresh=True)
    finally:
        path.chmod(mode)
    if done.returncode == 77:
        pytest.skip("this root must not give up its rights")
    assert_refused(done, *words)
    if locked != "params.yaml":
        place.steps("ingest")


def test_image_that_must_not_be_read_is_quarantined_with_the_reason(place: Workplace) -> None:
    skip_where_permissions_do_not_bind()
    (place.root / "photos" / "cat" / "003.png").chmod(0)
    done = place.step("ingest", before=obey_permissions, fresh=True)
    if done.returncode == 77:
        pytest.skip("this root must not give up its rights")
    assert done.returncode == 0, done.stderr
    assert problems(place) == {"cat/003.png": "cannot be read: Permission denied"}


@pytest.mark.parametrize(
    "step",
    [
        "profile",
        "check_data",
        "split",
        "domains",
        "finetune",
        "quantize",
        "evaluate",
        "robustness",
        "benchmark",
        "select",
        "bundle",
        "report",
    ],
)
def test_step_before_its_inputs_exist_is_refused_with_the_command_that_helps(place: Workplace, step: str) -> None:
    done = place.step(step)
    assert_refused(done, "artifacts")
    assert "hint: Run `dvc repro`" in done.stderr
