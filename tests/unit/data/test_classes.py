"""Class names in the order of a model's outputs, and what does not fit together."""

from __future__ import annotations

import pytest

from kinglet.data.classes import number_labels, read_class_names
from kinglet.errors import KingletError


@pytest.mark.parametrize("text", ["cat\ndog\n\nemu\n", '["cat", "dog", "emu"]', "\ufeffcat\r\ndog\r\nemu"])
def test_names_are_read_line_by_line_or_as_json(tmp_path, text):
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / "classes") == ["cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"cat\ncat\n", "names cat twice"), (b"\xff\xfe\x00", "not UTF-8"), (b'{"cat": 0}', "no list of names")],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, words):
    (tmp_path / "classes").write_bytes(content)
    with pytest.raises(KingletError, match=words):
        read_class_names(tmp_path / "classes")
    with pytest.raises(KingletError, match="is no file"):
        read_class_names(tmp_path / "other")


def test_labels_are_numbered_by_their_sorted_names_or_by_the_names_of_the_outputs():
    names, numbers = number_labels(["b", "a", "b"], 2, None, "m")
    assert (names, numbers.tolist()) == (["a", "b"], [1, 0, 1])
    # Fewer classes in the data than outputs, where the outputs have names.
    names, numbers = number_labels(["b", "a"], 3, ["b", "c", "a"], "m")
    assert (names, numbers.tolist()) == (["b", "c", "a"], [0, 2])


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        (["a", "b", "c"], None, r"m\.onnx has 4 outputs, and the data 3 classes \(a, b, c\)"),
        (["a", "b"], ["a", "b"], r"m\.onnx has 4 outputs, and 2 class names are given"),
        (["a", "x", "y"], ["a", "b", "c", "d"], r"m\.onnx knows no class x, y; it knows a, b, c, d"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(labels, names, words):
    with pytest.raises(KingletError, match=words) as caught:
        number_labels(labels, 4, names, "m.onnx")
    assert "--classes FILE" in caught.value.hint
