"""A bundle is served when it is whole, known, and answers here as where it was made; else the server says why not."""

import shutil

import numpy as np
import pytest

from kinglet.atomic import read_json, write_bytes, write_json, write_text
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.serving.served_model import name_in, open_model
from kinglet.serving.server import listening_socket, main
from kinglet.serving.settings import Settings, read_settings


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def change_a_byte(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["model.onnx", "preprocessing.json", "labels.json", "golden.npz", "MODEL_CARD.md"])
def test_one_changed_byte_is_refused_with_the_files_name(copy, name):
    change_a_byte(copy, name)
    with pytest.raises(KingletError, match=rf"{name} is not what SHA256SUMS says"):
        open_model(copy, threads=1)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "SHA256SUMS"])
def test_a_missing_file_is_refused_with_its_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(KingletError, match=rf"{name} is missing"):
        open_model(copy, threads=1)


def test_a_bundle_without_golden_answers_is_refused(copy):
    (copy / bundles.GOLDEN).unlink()
    bundles.seal(copy)
    with pytest.raises(KingletError, match="nothing shows that the model answers"):
        open_model(copy, threads=1)


@pytest.mark.parametrize("newer", [bundles.FORMAT + 1, "2", [1]])
def test_a_newer_format_is_refused(copy, newer):
    write_json(copy / bundles.PREPROCESSING, {**read_json(copy / bundles.PREPROCESSING), bundles.FORMAT_KEY: newer})
    bundles.seal(copy)
    with pytest.raises(
        KingletError, match=rf"of format .*; this version of Kinglet reads up to format {bundles.FORMAT}"
    ):
        open_model(copy, threads=1)


def test_a_bundle_from_before_formats_were_counted_is_read(copy):
    facts = read_json(copy / bundles.PREPROCESSING)
    del facts[bundles.FORMAT_KEY]
    write_json(copy / bundles.PREPROCESSING, facts)
    bundles.seal(copy)
    assert open_model(copy, threads=1).golden_difference < 1e-5


@pytest.mark.parametrize("value", [0.9, np.nan])
def test_other_answers_than_the_golden_ones_are_refused_with_the_first(copy, value):
    with np.load(copy / bundles.GOLDEN) as golden:
        arrays = dict(golden)
    arrays["probabilities"][[3, 7], 2] += value
    write_bytes(copy / bundles.GOLDEN, bundles.npz_bytes(arrays))
    bundles.seal(copy)
    with pytest.raises(KingletError, match=r"first in image 3, class 'right': 0\.\d{4} in place of"):
        open_model(copy, threads=1)


def test_the_version_changes_with_any_file_and_the_name_is_the_cards(copy):
    first = open_model(copy, threads=1)
    write_text(copy / bundles.CARD, "# other: model/2\n")
    bundles.seal(copy)
    second = open_model(copy, threads=1)
    assert first.name == "small-student"
    assert second.name == "other-model-2"
    assert first.version != second.version


@pytest.mark.parametrize(
    ("card", "name"), [("", "model"), ("no title", "model"), ("# ///\n", "model"), ("# a b", "a-b")]
)
def test_a_name_fits_into_a_path(card, name):
    assert name_in(card) == name


def test_options_count_more_than_the_environment_and_that_more_than_the_defaults():
    environment = {"KINGLET_PORT": "9000", "KINGLET_MAX_BODY_MB": "2.5", "KINGLET_BUNDLE": "b", "KINGLET_QUEUE": ""}
    settings = read_settings(["--port", "9001"], environment, "serve")
    assert (settings.port, settings.max_body_bytes, settings.bundle) == (9001, 2_500_000, "b")
    assert settings.queue == Settings().queue
    assert read_settings(["a"], environment, "serve").bundle == "a"


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {}, "No bundle is named"),
        (["b", "--port", "http"], {}, "--port is 'http'; it takes a whole number from 0 to 65535"),
        (["b", "--port", "70000"], {}, "--port is '70000'"),
        (["b", "--timeout", "nan"], {}, "--timeout is 'nan'; it takes a number"),
        (["b", "--max-body-mb", "0"], {}, "--max-body-mb is '0'"),
        (["b", "--log", "some"], {}, "log is 'some'; known are all, errors, none"),
        (["b"], {"KINGLET_WORKERS": "two"}, "KINGLET_WORKERS is 'two'"),
        (["b"], {"KINGLET_PORT": "tcp://10.0.0.1:80"}, "KINGLET_PORT is 'tcp://10.0.0.1:80'"),
    ],
)
def test_a_wrong_setting_is_said_with_where_it_stands(arguments, environment, said):
    with pytest.raises(KingletError) as error:
        read_settings(arguments, environment, "serve")
    assert said in error.value.message


def test_threads_and_workers_share_the_processors_that_are_granted(monkeypatch):
    monkeypatch.setattr("kinglet.serving.settings.available_processors", lambda: 6)
    found = {
        (threads, workers): (
            Settings(threads=threads, workers=workers).threads_each,
            Settings(threads=threads, workers=workers).workers_in_all,
        )
        for threads, workers in ((1, 0), (2, 0), (4, 0), (0, 0), (8, 0), (1, 3))
    }
    assert found == {(1, 0): (1, 6), (2, 0): (2, 3), (4, 0): (4, 1), (0, 0): (6, 1), (8, 0): (8, 1), (1, 3): (1, 3)}


def test_what_the_user_can_mend_is_one_sentence_and_exit_code_2(copy, capsys, monkeypatch):
    monkeypatch.setattr("kinglet.serving.server.send_logging_to", lambda log: None)
    with listening_socket("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main([str(copy), "--port", port], {}, "serve") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("{")]
    assert said[0] == f"error: 127.0.0.1:{port} cannot be listened on: Address already in use."
    assert said[1].startswith("hint: ")
    assert main([str(copy / "nothing")], {}, "serve") == 2
    assert "does not exist" in capsys.readouterr().err
