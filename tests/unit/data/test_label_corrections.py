"""Decisions about labels: read, followed, and refused with the line where they cannot be followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.label_corrections import Correction, correct, merged, read_corrections
from kinglet.data.sources.records import Record
from kinglet.errors import KingletError

HEAD = "path,label,new_label,confidence,decision\n"
RECORDS = [Record(f"{label}/{number}.png", "", label) for label in ("cat", "dog") for number in range(3)]


def written(folder: Path, rows: str) -> str:
    path = folder / "corrections.csv"
    path.write_text(HEAD + rows)
    return str(path)


def test_decisions_are_followed_and_the_undecided_changes_nothing(tmp_path):
    location = written(
        tmp_path,
        "cat/0.png,cat,dog,0.98,relabel\n"
        "cat/1.png,cat,dog,0.9, Drop \n"
        "dog/0.png,dog,cat,0.8,keep\n"
        "dog/1.png,dog,cat,0.7,\n",
    )
    records, dropped = correct(RECORDS, read_corrections(location))
    labels = {record.path: record.label for record in records}
    assert dropped == ["cat/1.png"]
    assert labels == {"cat/0.png": "dog", "cat/2.png": "cat", **{f"dog/{n}.png": "dog" for n in range(3)}}


def test_no_file_is_asked_for_where_none_is_named():
    assert read_corrections("") == []
    assert correct(RECORDS, []) == (RECORDS, [])


def test_a_source_that_was_corrected_itself_stays_as_it_is(tmp_path):
    location = written(tmp_path, "dog/0.png,cat,dog,0.98,relabel\n")
    assert correct(RECORDS, read_corrections(location)) == (RECORDS, [])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("cat/0.png,cat,dog,0.9,delete\n", "line 2: the decision is 'delete'; allowed: keep, relabel, drop"),
        ("cat/0.png,cat,,0.9,relabel\n", "line 2: relabel without a new label"),
        ("cat/0.png,cat,bird,0.9,relabel\n", "line 2: the new label 'bird' is no class; classes: cat, dog"),
        ("cat/9.png,cat,dog,0.9,drop\n", "line 2: data.source holds no image cat/9.png"),
        ("cat/0.png,dog,cat,0.9,drop\n", "said to carry the label 'dog', but data.source gives it 'cat'"),
        (",cat,dog,0.9,drop\n", "line 2: the path is empty"),
        ("cat/0.png,cat,dog,0.9,\ncat/0.png,cat,dog,0.9,drop\n", "line 3: cat/0.png stands in .*line 2 already"),
    ],
)
def test_what_cannot_be_followed_is_named_with_its_line(tmp_path, rows, said):
    with pytest.raises(KingletError, match=said):
        correct(RECORDS, read_corrections(written(tmp_path, rows)))


def test_a_file_that_is_missing_or_no_table_is_named(tmp_path):
    with pytest.raises(KingletError, match=r"nowhere\.csv does not exist") as caught:
        read_corrections(str(tmp_path / "nowhere.csv"))
    assert "kinglet labels review" in caught.value.hint
    (tmp_path / "other.csv").write_text("path,label\n")
    with pytest.raises(KingletError, match="column 'new_label' and 'confidence' and 'decision' is missing"):
        read_corrections(str(tmp_path / "other.csv"))
    (tmp_path / "other.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KingletError, match="not a readable CSV file"):
        read_corrections(str(tmp_path / "other.csv"))


def test_decisions_survive_the_next_list_and_what_is_suspicious_no_more_goes():
    decided, undecided, new = (
        Correction("a", "cat", "dog", "0.9", "keep"),
        Correction("b", "cat", "dog", "0.9", ""),
        Correction("c", "cat", "dog", "0.8", ""),
    )
    again = Correction("a", "cat", "dog", "0.95", "")
    assert merged([decided, undecided], [again, new]) == [decided, new]
