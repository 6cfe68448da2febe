"""Tables of classes, as data sets bring them, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.masks.class_table import ClassRow, find_class_table
from kinglet.errors import KingletError

SKY, ROAD = ClassRow("sky", 0, (128, 128, 128)), ClassRow("road", 1, (128, 64, 128))


def rows_of(root: Path, **files: str) -> tuple[ClassRow, ...]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = find_class_table(root, list(files))
    assert found is not None
    return found.rows


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("classes.csv", "name,r,g,b\nsky,128,128,128\nroad,128,64,128\n", (SKY, ROAD)),
        ("class_dict.csv", "name, r, g, b\nsky, 128, 128, 128\n\nroad,128, 64,128\n", (SKY, ROAD)),
        ("classes.csv", "label;red;green;blue\nsky;128;128;128\nroad;128;64;128\n", (SKY, ROAD)),
        ("label_colors.txt", "128 128 128\tsky\n128 64 128\troad\n", (SKY, ROAD)),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:128,128,128::\nroad:128,64,128::\n", (SKY, ROAD)),
        (
            "_classes.csv",
            "Pixel Value, Class\n0, sky\n7, road\n",
            (ClassRow("sky", 0, None), ClassRow("road", 7, None)),
        ),
        ("classes.txt", "sky\n\ntraffic light\n", (ClassRow("sky", 0, None), ClassRow("traffic light", 1, None))),
        (
            "classes.csv",
            "name,value\nroad,3\nroad,4\n",
            (ClassRow("road", 3, None), ClassRow("road", 4, None)),
        ),
    ],
)
def test_every_kind_of_table_is_read(tmp_path: Path, name: str, text: str, rows: tuple[ClassRow, ...]) -> None:
    assert rows_of(tmp_path, **{name: text}) == rows


def test_the_parts_of_a_split_may_repeat_it_and_must_not_contradict_each_other(tmp_path: Path) -> None:
    text = "Pixel Value, Class\n0, sky\n1, road\n"
    assert len(rows_of(tmp_path, **{"train/_classes.csv": text, "valid/_classes.csv": text})) == 2
    with pytest.raises(KingletError, match=r"train/_classes\.csv and valid/_classes\.csv name different classes"):
        rows_of(tmp_path, **{"train/_classes.csv": text, "valid/_classes.csv": text.replace("road", "car")})


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert find_class_table(tmp_path, ["images/a.png", "notes.txt"]) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.csv", "sky,1\n", r"classes\.csv, line 1 names no column of class names"),
        ("classes.csv", "name,r,g,b\nsky,300,0,0\n", r"classes\.csv, line 2: '300' is no whole number from 0 to 255"),
        ("classes.csv", "name,r,g,b\nsky,1,2\n", r"classes\.csv, line 2: '' is no whole number"),
        ("classes.csv", "name,value\nsky,1\nroad,1\n", r"classes\.csv, line 3 repeats the value 1 of 'sky'"),
        ("classes.csv", "name,value\n,1\n", r"classes\.csv, line 2 has no name"),
        ("classes.csv", "name,value\n", r"classes\.csv names no class"),
        ("classes.txt", "", r"classes\.txt names no class"),
        ("label_colors.txt", "1 2 3 sky\n1 2 3 road\n", r"line 2 repeats the colour \(1, 2, 3\) of 'sky'"),
        ("label_colors.txt", "1 2 3 sky\nroad\n", r"line 2 has a colour where others have none, or none where"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(KingletError, match=said):
        rows_of(tmp_path, **{name: text})


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(KingletError, match=r"classes\.txt is not UTF-8 text"):
        find_class_table(tmp_path, ["classes.txt"])
