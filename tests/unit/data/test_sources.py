"""Sources: folders and tables become the same records, and what is wrong is said with its place."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from kinglet.data.sources import open_source
from kinglet.data.sources.layout import HIDDEN, NOT_A_CLASS, NOT_IN_A_CLASS, arrange
from kinglet.errors import KingletError

Picture = Callable[..., Path]


def facts(location: Path, images: str = "nowhere") -> list[tuple[str, str, str]]:
    return [(record.path, record.label, record.given_split) for record in open_source(str(location), images).records]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["cat/1.jpg", "dog/1.png"], [("cat/1.jpg", "cat", ""), ("dog/1.png", "dog", "")]),
        (["cat/deep/er/1.jpg"], [("cat/deep/er/1.jpg", "cat", "")]),
        (["cat/1.jpg", "cat/readme.txt"], [("cat/1.jpg", "cat", ""), ("cat/readme.txt", "cat", "")]),
        (["cat/1.jpg", "lists/a.txt"], [("cat/1.jpg", "cat", "")]),
        (
            ["train/cat/1.jpg", "val/cat/2.jpg"],
            [("train/cat/1.jpg", "cat", "train"), ("val/cat/2.jpg", "cat", "validation")],
        ),
        (
            ["train/cat/1.jpg", "Test/cat/2.jpg"],
            [("Test/cat/2.jpg", "cat", "test"), ("train/cat/1.jpg", "cat", "train")],
        ),
        # A class may be called train, as long as not all are.
        (["train/1.jpg", "bus/1.jpg"], [("bus/1.jpg", "bus", ""), ("train/1.jpg", "train", "")]),
        (["train/1.jpg", "test/1.jpg"], [("test/1.jpg", "test", ""), ("train/1.jpg", "train", "")]),
        (["cat/.DS_Store", "cat/Thumbs.db", "__MACOSX/cat/1.jpg", "cat/1.jpg"], [("cat/1.jpg", "cat", "")]),
        (["ünï cödé/ä ö,\"'.jpg"], [("ünï cödé/ä ö,\"'.jpg", "ünï cödé", "")]),
    ],
)
def test_paths_become_records(paths: list[str], expected: list[tuple[str, str, str]]) -> None:
    records, _ = arrange(paths)
    assert [(record.path, record.label, record.given_split) for record in records] == expected


def test_what_is_left_out_is_named() -> None:
    _, left_out = arrange(["LICENSE", "lists/a.txt", "cat/.hidden", "cat/1.jpg"])
    assert left_out == {NOT_IN_A_CLASS: ["LICENSE"], NOT_A_CLASS: ["lists"], HIDDEN: ["cat/.hidden"]}


def test_folder_is_read_through_links_and_without_suffixes(tmp_path: Path, picture: Picture) -> None:
    image = picture(tmp_path / "elsewhere" / "a.png", 1)
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "without-suffix").write_bytes(image.read_bytes())
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set")
    source = open_source(str(tmp_path / "set"), "nowhere")
    assert [(record.path, record.label) for record in source.records] == [
        ("cat/without-suffix", "cat"),
        ("dog/a.png", "dog"),
    ]
    assert pickle.loads(pickle.dumps(source.read))(source.records[1]) == image.read_bytes()


def test_domains_of_a_folder_stand_in_its_own_file(tmp_path: Path, picture: Picture) -> None:
    for seed, name in enumerate(("cat/1.png", "cat/roof/2.png", "dog/3.png")):
        picture(tmp_path / name, seed)
    (tmp_path / "domains.csv").write_text("path,domain\ncat,street\ncat/roof/2.png,roof\n")
    source = open_source(str(tmp_path), "unused")
    assert [(record.path, record.domain) for record in source.records] == [
        ("cat/1.png", "street"),
        ("cat/roof/2.png", "roof"),
        ("dog/3.png", ""),
    ]
    assert source.left_out == {}
    (tmp_path / "domains.csv").write_text("path,domain\ncats,street\n")
    with pytest.raises(KingletError, match=r"domains.csv, line 2: cats is not in "):
        open_source(str(tmp_path), "unused")


def test_file_name_that_is_no_utf8_is_read_and_printable(tmp_path: Path, picture: Picture) -> None:
    image = picture(tmp_path / "set" / "cat" / "a.png", 1)
    image.rename(image.parent / b"\xff.png".decode("utf-8", "surrogateescape"))
    source = open_source(str(tmp_path / "set"), "nowhere")
    assert source.records[0].path == "cat/\\xff.png"
    assert source.read(source.records[0])


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "is empty"), (["a.png"], "holds 1 images but no folder of a class"), (["cat/a.txt"], "holds no images")],
)
def test_folder_without_classes_is_refused(tmp_path: Path, picture: Picture, files: list[str], message: str) -> None:
    (tmp_path / "set").mkdir()
    for name in files:
        picture((tmp_path / "set" / name).with_suffix(".png"), 1).rename(tmp_path / "set" / name)
        if name.endswith(".txt"):
            (tmp_path / "set" / name).write_text("no image")
    with pytest.raises(KingletError, match=message):
        open_source(str(tmp_path / "set"), "nowhere")


@pytest.mark.parametrize(("name", "message"), [("missing", "does not exist"), ("list.xlsx", "no kind of source")])
def test_unknown_place_is_refused_with_what_is_possible(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "list.xlsx").touch()
    with pytest.raises(KingletError, match=message) as refused:
        open_source(str(tmp_path / name), "nowhere")
    assert "s3://" in refused.value.hint


def test_table_gives_labels_groups_domains_and_splits(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    text = "label,path,group,domain,split\ncat,a.png,g1,lab,Train\ndog,b.png,,,val\n"
    (tmp_path / "t.csv").write_text(text)
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        first, second = open_source(str(tmp_path / name), str(tmp_path)).records
        assert (first.label, first.group, first.domain, first.given_split) == ("cat", "g1", "lab", "train")
        assert (second.label, second.group, second.given_split) == ("dog", "", "validation")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.png,cat\n", r"t\.csv, line 1: column 'label' is missing; found: path, class"),
        ("path,label\na.png,cat\nb.png,dog\n", r"1 files that do not exist.*line 3: b\.png"),
        ("path,label\na.png,\n", "line 2: the label is empty"),
        ("path,label\n,cat\n", "line 2: the path is empty"),
        ("path,label\na.png,cat\na.png,dog\n", r"line 3: a\.png has the label 'dog', but 'cat' in line 2"),
        ("path,label,split\na.png,cat,dev\n", "line 2: split is 'dev'; allowed: train, validation, test"),
        ("path,label\n", "has no rows"),
        ("", "line 1: column 'path' and 'label' is missing"),
        ('path,label\n"a.png,cat\n', "line 1: unexpected end"),
    ],
)
def test_wrong_table_is_refused_with_the_line(tmp_path: Path, picture: Picture, text: str, message: str) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(KingletError, match=message):
        open_source(str(tmp_path / "t.csv"), str(tmp_path))


def test_image_that_no_row_names_is_a_record_without_label(tmp_path: Path, picture: Picture) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "img" / name, 1)
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\n")
    records = open_source(str(tmp_path / "t.csv"), str(tmp_path / "img")).records
    assert [(record.path, record.label, record.problem) for record in records] == [
        ("a.png", "cat", ""),
        ("b.png", "", "no label"),
    ]


def test_images_beside_the_table_are_found_with_a_note_that_they_are_not_watched(
    tmp_path: Path, picture: Picture
) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\na.png,cat\n")
    source = open_source(str(tmp_path / "t.csv"), str(tmp_path / "other"))
    assert len(source.records) == 1
    assert "1 rows repeat" in source.notes[0]
    assert "go unnoticed" in source.notes[1]
    assert open_source(str(tmp_path / "t.csv"), str(tmp_path)).notes[1:] == []


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A described set of five images, installed as a system data set; no cache, nothing to fetch it from."""
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    files = {"images": idx(images), "labels": idx(np.array([0, 1, 0, 1, 1], np.uint8))}
    (tmp_path / "system").mkdir()
    for name, content in files.items():
        (tmp_path / "system" / f"{name}.gz").write_bytes(gzip.compress(content))
    sums = {f"{name}_sha256": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content = {
        "name": "tiny",
        "title": "Tiny",
        "system_folder": str(tmp_path / "system"),
        "debian_package": "dataset-that-does-not-exist",
        "home": "http://127.0.0.1:9/not-https",
        "classes": ["cat", "dog"],
        "parts": [{"split": "test", "images": "images", "labels": "labels", **sums}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_described_set_gives_its_images_and_labels(described: Path) -> None:
    source = open_source(str(described / "tiny.yaml"), "nowhere")
    assert [(r.path, r.label, r.given_split) for r in source.records[:2]] == [
        ("test/0", "cat", "test"),
        ("test/1", "dog", "test"),
    ]
    assert source.read(source.records[1])[:, :, 0].tolist() == np.arange(16, 32).reshape(4, 4).tolist()


def test_damaged_copy_is_named_and_the_cache_used(described: Path) -> None:
    kept = described / "cache" / "datasets" / "tiny"
    kept.mkdir(parents=True)
    for file in (described / "system").iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    (described / "system" / "images.gz").write_bytes(gzip.compress(b"other"))
    source = open_source(str(described / "tiny.yaml"), "nowhere")
    assert len(source.records) == 5
    assert "another content than described" in source.notes[0]


def test_set_that_is_nowhere_is_refused_with_the_three_ways(described: Path) -> None:
    (described / "system" / "labels.gz").unlink()
    with pytest.raises(KingletError, match="found nowhere") as refused:
        open_source(str(described / "tiny.yaml"), "nowhere")
    for way in ("apt-get install", "reach", "copy images.gz"):
        assert way in refused.value.hint
    assert not list((described / "cache" / "datasets").iterdir())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_further_columns_of_a_table_stay_with_their_images(tmp_path: Path, picture: Picture, suffix: str) -> None:
    for seed, name in enumerate(("a", "b")):
        picture(tmp_path / f"{name}.png", seed)
    table = pd.DataFrame(
        {"camera": [7, 8], "path": ["b.png", "a.png"], "light": ["day", None], "label": ["cat", "dog"]}
    )
    if suffix == "csv":
        table.to_csv(tmp_path / "list.csv", index=False)
    else:
        table["histogram"] = [[1, 2], [3]]  # nothing that images could be told apart by
        table.to_parquet(tmp_path / "list.parquet")
    records = open_source(str(tmp_path / f"list.{suffix}"), str(tmp_path)).records
    assert [record.further for record in records] == [
        (("camera", "8"), ("light", "")),
        (("camera", "7"), ("light", "day")),
    ]


def test_a_repeated_row_with_another_value_in_any_column_is_refused(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "a.png", 0)
    (tmp_path / "list.csv").write_text("path,label,camera\na.png,cat,7\na.png,cat,8\n")
    with pytest.raises(KingletError, match=r"line 3: a\.png has the camera '8', but '7' in line 2"):
        open_source(str(tmp_path / "list.csv"), str(tmp_path))
