"""Domains of a folder: which row of its domains.csv holds for an image or a video, and what a bad file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.data.sources.domains import read_domains
from kinglet.errors import KingletError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("north/a.jpg", "north/gate/b.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_nearest_row_above_an_image_names_its_domain(folder: Path) -> None:
    (folder / "domains.csv").write_text("path,domain\nnorth,day\nnorth\\gate/,night\nnorth/gate/b.jpg,dusk\n")
    found = read_domains(folder)
    paths = ["north/a.jpg", "north/gate/b.jpg", "north/gate/film.mp4#000002", "c.jpg", "northern/a.jpg"]
    assert [found.of(path) for path in paths] == ["day", "dusk", "night", "", ""]


def test_a_folder_without_the_file_names_no_domain(folder: Path) -> None:
    assert read_domains(folder).of("c.jpg") == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,site\nc.jpg,day\n", "domains.csv, line 1: column 'domain' is missing"),
        (b"path,domain\nc.jpg,\n", "domains.csv, line 2: path or domain is empty"),
        (b"path,domain\nc.jpg\n", "domains.csv, line 2: path or domain is empty"),
        (b"path,domain\nc.jpg,day\nd.jpg,day\n", "domains.csv, line 3: d.jpg is not in "),
        (b"path,domain\nc.jpg,day\nc.jpg,night\n", "line 3: c.jpg is of the domain 'day' before, and 'night' here"),
        (b"path,domain\nc.jpg,\xff\n", "domains.csv is not UTF-8 text"),
        (b'path,domain\nc.jpg,"day\n', "domains.csv, line 1: unexpected end of data"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named_with_its_line(folder: Path, content: bytes, words: str) -> None:
    (folder / "domains.csv").write_bytes(content)
    with pytest.raises(KingletError) as error:
        read_domains(folder)
    assert words in error.value.message
