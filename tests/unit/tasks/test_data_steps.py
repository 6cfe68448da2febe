"""ingest, profile, check_data and split on small folders of real files: what comes out, and what a user gets told."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kinglet.errors import KingletError
from kinglet.runtime.decoding import decode
from kinglet.runtime.preprocessing import match_channels, resize
from tasks import check_data, ingest, profile, split, worker_processes
from tasks.compression_settings import Prune
from tasks.opened_source import choose_sizes, sizes_of_rivals
from tasks.parameters import Parameters
from tasks.training_settings import Adapt, Stage, Student

Edit = Callable[[Path], None]
STUDENT = {"input_size": 16, "stages": [{"width": 8, "stride": 2}]}


def parameters(source: str = "photos", images: str = "photos", **data: object) -> Parameters:
    return Parameters.model_validate(
        {
            "data": {"source": source, "images": images, **data},
            "check": {"min_images_per_class": 5, "max_unreadable": 0.4, "max_conflicting": 0.4},
            "finetune": {"backbone": "efficientnet-lite0", "input_size": 32, "epochs": 1},
            "distill": {"students": {"tiny": STUDENT}, "epochs": 1},
        }
    )


def picture(path: Path, seed: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve cats and twelve dogs in `photos`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        picture(tmp_path / "photos" / "cat" / f"{number:02}.png", number)
        picture(tmp_path / "photos" / "dog" / f"{number:02}.png", 100 + number)
    return tmp_path / "photos"


def run_all(settings: Parameters) -> None:
    for step in (ingest, profile, check_data, split):
        step.run(settings)


def manifest() -> pd.DataFrame:
    return pd.read_parquet("artifacts/ingest/manifest.parquet").set_index("path")


def test_good_folder_goes_through_and_every_class_is_in_every_part(photos: Path) -> None:
    run_all(parameters())
    rows = pd.read_parquet("artifacts/split/manifest.parquet")
    assert list(rows) == ["index", "path", "label", "label_index", "group", "domain", "split", "sha256"]
    counts = json.loads(Path("artifacts/split/counts.json").read_text())
    assert all(counts[part][label] for part in ("train", "validation", "test") for label in ("cat", "dog"))
    assert json.loads(Path("artifacts/split/classes.json").read_text()) == ["cat", "dog"]
    assert pd.read_csv("artifacts/check_data/quarantine.csv").columns.tolist() == ["path", "reason"]


def test_further_columns_of_a_table_reach_the_manifest_under_names_of_their_own(photos: Path) -> None:
    lines = [f"{path.relative_to(photos)},{path.parent.name},{int(path.stem) % 2},x" for path in photos.rglob("*.png")]
    Path("photos.csv").write_text("\n".join(["path,label,camera,width", *lines]))
    run_all(parameters("photos.csv"))
    rows = pd.read_parquet("artifacts/split/manifest.parquet")
    assert list(rows)[-2:] == ["given:camera", "given:width"]
    assert [str(int(Path(row.path).stem) % 2) for row in rows.itertuples()] == rows["given:camera"].tolist()
    assert (manifest()["width"] == 40).all()


def test_a_sealed_part_takes_images_of_every_class_and_counts_them_apart(photos: Path) -> None:
    settings = parameters()
    run_all(settings)
    before = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["split"]
    split.run(settings.model_copy(update={"split": settings.split.model_copy(update={"sealed": 0.2})}))
    after = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["split"]
    counts = json.loads(Path("artifacts/split/counts.json").read_text())
    assert all(counts["sealed"][label] for label in ("cat", "dog"))
    assert sum(counts["sealed"].values()) == (after == "sealed").sum()
    assert (before[after != before] == "train").all()


def with_domains(photos: Path, domain_of: Callable[[int], str]) -> None:
    """Write photos.csv, in which the number of an image decides its domain, with four times as many images."""
    for number in range(12, 48):
        picture(photos / "cat" / f"{number:02}.png", number)
        picture(photos / "dog" / f"{number:02}.png", 100 + number)
    files = sorted(photos.rglob("*.png"))
    lines = [f"{path.relative_to(photos)},{path.parent.name},{domain_of(int(path.stem))}" for path in files]
    Path("photos.csv").write_text("\n".join(["path,label,domain", *lines]))


def adapting_to(target: str, **settings: object) -> Parameters:
    plain = parameters("photos.csv")
    return plain.model_copy(update={"adapt": Adapt(models=["tiny"], target=target, **settings)})


def test_a_target_domain_is_in_no_training_and_no_test_but_its_own(photos: Path) -> None:
    with_domains(photos, lambda number: "yard" if number % 2 else "lab")
    run_all(parameters("photos.csv"))
    before = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["split"]
    split.run(adapting_to("yard"))
    rows = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")
    counts = json.loads(Path("artifacts/split/counts.json").read_text())
    assert set(rows.loc[rows["domain"] == "yard", "split"]) == {"adaptation", "target_test"}
    assert sum(map(sum, (counts[part].values() for part in ("adaptation", "target_test")))) == 48
    assert (rows["split"] == before)[rows["domain"] == "lab"].mean() > 0.9
    split.run(adapting_to("demonstration"))
    assert pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["split"].equals(before)


@pytest.mark.parametrize(
    ("domain_of", "target", "said"),
    [
        (
            lambda number: "yard" if number % 2 else "lab",
            "roof",
            "no image is of that domain; known domains: lab, yard",
        ),
        (lambda _: "", "roof", "no image is of that domain; no image has a domain"),
        (lambda _: "lab", "lab", "all images are of that domain: none is left to train on"),
        (lambda number: "lab" if number > 8 else "yard", "yard", "The domain 'yard' has .* 16 and 20 are needed"),
    ],
    ids=["unknown", "no column", "single domain", "too few images"],
)
def test_a_target_domain_that_cannot_be_is_refused_before_anything_is_trained(
    photos: Path, domain_of: Callable[[int], str], target: str, said: str
) -> None:
    with_domains(photos, domain_of)
    run_all(parameters("photos.csv"))
    before = Path("artifacts/split/manifest.parquet").read_bytes()
    with pytest.raises(KingletError, match=said) as caught:
        split.run(adapting_to(target))
    assert caught.value.hint
    assert Path("artifacts/split/manifest.parquet").read_bytes() == before


def test_packed_images_are_those_that_serving_would_make(photos: Path) -> None:
    ingest.run(parameters())
    for row in manifest().itertuples():
        content = (photos / row.Index).read_bytes()
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        for size in (16, 32):
            packed = np.load(f"artifacts/ingest/images_{size}.npy", mmap_mode="r")
            expected = resize(match_channels(decode(content, 10**8)[0], 3), size, "stretch")
            np.testing.assert_array_equal(packed[row.index], expected)


def test_two_runs_write_the_same_bytes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")

    def contents() -> dict[str, bytes]:
        files = sorted(path for path in Path("artifacts").rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    run_all(parameters())
    before = contents()
    monkeypatch.setattr(worker_processes, "IMAGES_WORTH_PROCESSES", 10)
    monkeypatch.setattr(worker_processes, "IMAGES_PER_JOB", 8)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    run_all(parameters())
    after = contents()
    assert sorted(before) == sorted(after)
    assert before
    assert [name for name in before if before[name] != after[name]] == []


def test_gray_images_are_packed_in_one_channel(photos: Path) -> None:
    for file in sorted(photos.rglob("*.png")):
        Image.open(file).convert("L").save(file)
    ingest.run(parameters())
    packed = np.load("artifacts/ingest/images_32.npy")
    assert packed.shape == (24, 32, 32, 1)
    assert packed.dtype == np.uint8
    first = np.asarray(Image.open(photos / "cat" / "00.png"))[:, :, None]
    np.testing.assert_array_equal(packed[0], resize(first, 32, "stretch"))
    assert json.loads(Path("artifacts/ingest/source.json").read_text())["channels"] == 1
    ingest.run(parameters(color="rgb"))
    assert np.load("artifacts/ingest/images_32.npy").shape[3] == 3


def truncated(photos: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    (photos / "cat" / "x.jpg").write_bytes(buffer.getvalue()[:1500])


BAD_FILES: dict[str, tuple[Edit, str]] = {
    "zero bytes": (lambda photos: (photos / "cat" / "x.jpg").write_bytes(b"") and None, "empty file"),
    "text": (lambda photos: (photos / "cat" / "x.txt").write_text("hello") and None, "not an image"),
    "truncated": (truncated, "truncated JPEG"),
    "corrupt": (lambda photos: (photos / "cat" / "x.jpg").write_bytes(b"\xff\xd8\xff" * 9) and None, "JPEG file"),
    "dangling link": (lambda photos: (photos / "cat" / "x.jpg").symlink_to("nowhere"), "cannot be read"),
    "too large": (lambda photos: Image.new("1", (2000, 2000)).save(photos / "cat" / "x.png"), "too large"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_file_that_cannot_be_used_is_quarantined_with_the_reason(photos: Path, kind: str) -> None:
    edit, reason = BAD_FILES[kind]
    edit(photos)
    ingest.run(parameters(max_pixels=1_000_000))
    bad = manifest().loc[lambda rows: ~rows["decode_ok"]]
    assert len(bad) == 1
    assert reason in bad["problem"].iloc[0]
    assert bad["width"].iloc[0] == 0
    assert not np.load("artifacts/ingest/images_16.npy")[bad["index"].iloc[0]].any()


def test_unusual_images_are_used_and_mentioned(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(photos / "cat" / "sixteen.png")
    picture(photos / "cat" / "ink.jpg", 50, "CMYK")
    picture(photos / "dog" / "palette.png", 51, "P")
    frames = [Image.open(photos / "cat" / f"0{number}.png") for number in range(3)]
    frames[0].save(photos / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    (photos / "dog" / "notes.txt").write_text("bring milk")
    run_all(parameters())
    assert manifest().loc["dog/moving.gif", "frames"] == 3
    said = capsys.readouterr().err
    assert "1 of 29 files cannot be read as images and are left out (dog/notes.txt)" in said
    assert "have another mode" in said
    assert "show nothing" in said
    assert "cat/sixteen.png" in said
    assert "drift: no reference yet" in said
    listed = pd.read_csv("artifacts/check_data/quarantine.csv")
    assert listed.to_numpy().tolist() == [["dog/notes.txt", "unreadable: not an image"]]


def test_conflicting_labels_are_quarantined_and_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "dog" / "twin.png").write_bytes((photos / "cat" / "03.png").read_bytes())
    run_all(parameters())
    assert pd.read_csv("artifacts/check_data/quarantine.csv")["path"].tolist() == ["cat/03.png", "dog/twin.png"]
    assert "same pixels as one of another class (cat/03.png, dog/twin.png)" in capsys.readouterr().err
    assert not pd.read_parquet("artifacts/split/manifest.parquet")["path"].isin(["cat/03.png", "dog/twin.png"]).any()


def only_cats(photos: Path) -> None:
    (photos / "dog").rename(photos.parent / "elsewhere")


def two_birds(photos: Path) -> None:
    picture(photos / "bird" / "0.png", 200)
    picture(photos / "bird" / "1.png", 201)


def mostly_broken(photos: Path) -> None:
    for number in range(10):
        (photos / "cat" / f"{number:02}.png").write_bytes(b"broken")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (only_cats, "two classes or more with usable images, found 1"),
        (two_birds, r"1 classes have fewer than 5 usable images \(check.min_images_per_class\) \(bird\)"),
        (mostly_broken, r"10 of 24 files cannot be read.*cat/00.png.*not an image"),
    ],
)
def test_data_that_cannot_be_trained_on_stops_the_run_and_keeps_the_evidence(
    photos: Path, edit: Edit, message: str
) -> None:
    edit(photos)
    ingest.run(parameters())
    profile.run(parameters())
    with pytest.raises(KingletError, match=message):
        check_data.run(parameters())
    for name in ("quarantine.csv", "checks.json", "docs/index.html"):
        assert Path(".kinglet/check_data", name).exists()


def test_class_of_two_images_stops_the_split_with_its_name(photos: Path) -> None:
    two_birds(photos)
    ingest.run(parameters())
    profile.run(parameters())
    Path("artifacts/check_data").mkdir()
    Path("artifacts/check_data/quarantine.csv").write_text("path,reason\n")
    with pytest.raises(KingletError, match=r"class 'bird' \(2 images\) has none in"):
        split.run(parameters())


def test_ignored_class_is_left_out_and_an_unknown_one_refused(photos: Path) -> None:
    two_birds(photos)
    run_all(parameters(ignore_classes=["bird"]))
    assert json.loads(Path("artifacts/split/classes.json").read_text()) == ["cat", "dog"]
    with pytest.raises(KingletError, match=r"names fox, but the classes are: bird, cat, dog"):
        ingest.run(parameters(ignore_classes=["fox"]))


def test_drift_is_measured_against_the_accepted_version(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_all(parameters())
    Path("data").mkdir()
    profile.accept()
    profile.run(parameters())
    assert max(json.loads(profile.DATA_SET_FACTS.read_text())["drift"]["stability_index"].values()) == 0
    for file in sorted(photos.rglob("*.png")):
        Image.open(file).point(lambda value: value // 4).save(file)
    run_all(parameters())
    assert "brightness: the distribution moved from the accepted version" in capsys.readouterr().err


def test_data_docs_do_not_call_home_about_being_read(photos: Path) -> None:
    run_all(parameters())
    pages = list(Path("artifacts/check_data/docs").rglob("*.html"))
    assert len(pages) > 3
    assert not any("great-expectations-web-assets" in page.read_text() for page in pages)


@pytest.mark.skipif(not Path("../shared/data/trashnet").exists(), reason="../shared/data/trashnet is not there")
def test_three_conflicting_pairs_of_trashnet_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path("../shared/data/trashnet").resolve()
    pairs = {"metal/metal91.jpg", "glass/glass115.jpg", "plastic/plastic332.jpg", "glass/glass389.jpg"}
    pairs |= {"plastic/plastic152.jpg", "glass/glass176.jpg"}
    monkeypatch.chdir(tmp_path)
    for label in ("metal", "glass", "plastic"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        names = {f"{label}/{label}{number}.jpg" for number in range(1, 40)}
        for name in sorted(names | {pair for pair in pairs if pair.startswith(label)}):
            (tmp_path / "photos" / name).symlink_to(whole / name)
    run_all(parameters())
    assert set(pd.read_csv("artifacts/check_data/quarantine.csv")["path"]) == pairs


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"columns": {}}', '{"columns": {"weight": {"edges": []}}, "classes": {}}']
)
def test_damaged_reference_profile_is_named(photos: Path, content: str) -> None:
    settings = parameters()
    ingest.run(settings)
    (photos.parent / "data").mkdir()
    (photos.parent / "data" / "reference_profile.json").write_text(content)
    with pytest.raises(KingletError, match=r"data/reference_profile\.json is no profile of a data set"):
        profile.run(settings)


@pytest.fixture
def loose(photos: Path) -> Path:
    """A folder `loose` of images without a label beside `photos`: three new ones and what must not be learnt from."""
    folder = photos.parent / "loose"
    for number in range(3):
        picture(folder / "new" / f"{number}.png", 500 + number)
    picture(folder / "again.png", 500)  # the pixels of new/0.png
    (folder / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 30), (90, 90, 90)).save(folder / "blank.png")
    (folder / "README.md").write_text("Loose pictures.")
    return folder


def bytes_of_splits() -> list[bytes]:
    names = ("profile/images.parquet", "profile/dataset.json", "check_data/quarantine.csv", "split/manifest.parquet")
    return [Path("artifacts", name).read_bytes() for name in names]


def test_images_without_a_label_are_packed_and_kept_apart(
    photos: Path, loose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(parameters())
    before = bytes_of_splits()
    assert len(pd.read_parquet("artifacts/split/unlabelled.parquet")) == 0
    splits = pd.read_parquet("artifacts/split/manifest.parquet").set_index("path")["split"]
    for part in ("train", "validation", "test"):
        # The same picture again, and the picture after a JPEG: near it, but for the pixels.
        name = splits.index[splits == part][0]
        Image.open(photos / name).save(loose / f"copy-{part}.png")
        Image.open(photos / name).save(loose / f"near-{part}.jpg", quality=90)
    run_all(parameters(unlabelled="loose"))
    assert bytes_of_splits() == before
    kept = pd.read_parquet("artifacts/split/unlabelled.parquet")
    assert kept["path"].tolist() == ["again.png", "near-train.jpg", "new/1.png", "new/2.png"]
    assert (
        "4 of 12 images without a label are used; 2 are blank or cannot be read, 4 are copies, "
        "2 resemble validation or test images"
    ) in capsys.readouterr().err
    for row in kept.itertuples():
        assert row.index >= 24
        for size in (16, 32):
            packed = np.load(f"artifacts/ingest/images_{size}.npy", mmap_mode="r")
            assert len(packed) == 24 + 12
            expected = resize(match_channels(decode((loose / row.path).read_bytes(), 10**8)[0], 3), size, "stretch")
            np.testing.assert_array_equal(packed[row.index], expected)


def test_labelled_images_decide_on_the_colour_of_those_without_a_label(photos: Path, loose: Path) -> None:
    for file in sorted(photos.rglob("*.png")):
        Image.open(file).convert("L").save(file)
    run_all(parameters(unlabelled="loose"))
    packed = np.load("artifacts/ingest/images_32.npy")
    assert packed.shape == (24 + 6, 32, 32, 1)
    kept = pd.read_parquet("artifacts/split/unlabelled.parquet").set_index("path")["index"]
    content = (loose / "new" / "1.png").read_bytes()
    expected = resize(match_channels(decode(content, 10**8)[0], 1), 32, "stretch")
    np.testing.assert_array_equal(packed[kept["new/1.png"]], expected)


def test_a_folder_of_images_without_a_label_that_is_missing_is_named(photos: Path) -> None:
    with pytest.raises(KingletError, match=r"data\.unlabelled: loose is no folder") as caught:
        ingest.run(parameters(unlabelled="loose"))
    assert "an empty one" in caught.value.hint
    Path("loose").mkdir()
    run_all(parameters(unlabelled="loose"))


def test_a_student_on_a_backbone_sees_images_as_large_as_the_teachers_unless_told() -> None:
    students = {
        "anew": Student(stages=[Stage(width=16, stride=2)]),
        "alike": Student(backbone="mobilenet-v2"),
        "smaller": Student(backbone="mobilenet-v2", input_size=96),
    }
    settings = parameters()
    distill = settings.distill.model_copy(update={"students": students})
    chosen = choose_sizes(settings.model_copy(update={"distill": distill}), 200)
    assert chosen.students == {"anew": 64, "alike": chosen.teacher, "smaller": 96}


def test_sizes_of_rivals_are_packed_where_a_model_is_pruned() -> None:
    settings = parameters()
    sizes = {name: sizes_of_rivals(Prune(models=models), 48, {"tiny": 28}, [40]) for name, models in MODELS.items()}
    assert sizes == {
        "none": [],
        "teacher": [24, 32, 36, 40],
        "tiny": [16, 20, 24],
        "control": [16, 20, 24],
        "searched": [20, 24, 32, 36],
    }
    assert sizes_of_rivals(Prune(models=["teacher"], baseline="width"), 48, {}, []) == []
    assert choose_sizes(settings, 28).rivals == []
    chosen = choose_sizes(settings.model_copy(update={"prune": Prune(models=["teacher"])}), 28)
    assert chosen.rivals == [16, 20, 24, 28]
    assert set(chosen.rivals) < set(chosen.all)


MODELS = {
    "none": [],
    "teacher": ["teacher"],
    "tiny": ["tiny"],
    "control": ["tiny-untaught"],
    "searched": ["student-1"],
}
