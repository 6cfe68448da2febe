"""The bill of materials: valid against the CycloneDX schema, the same for the same image."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kinglet.deployment.bill_of_materials import Model, Package, document, package_of_wheel, packages_of_dpkg

MODEL = Model("small", "1c9d07ab52e0f3a4", "5" * 64)


def written(packages: list[Package], image: str = "sha256:" + "6" * 64) -> str:
    return document("kinglet-serving", MODEL.version, image, packages, MODEL, 1_700_000_000)


def test_it_is_valid_and_lists_everything() -> None:
    packages = [
        Package("pypi", "numpy", "2.4.6", "7" * 64, "BSD-3-Clause AND 0BSD"),
        Package("pypi", "other", "1", "8" * 64, "Some license of our own"),
        Package("deb", "libc6", "2.36-9+deb12u10"),
    ]
    text = written(packages)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = {item["name"]: item for item in json.loads(text)["components"]}
    assert found["numpy"]["purl"] == "pkg:pypi/numpy@2.4.6"
    assert found["numpy"]["hashes"] == [{"alg": "SHA-256", "content": "7" * 64}]
    assert found["numpy"]["licenses"] == [{"expression": "BSD-3-Clause AND 0BSD"}]
    assert found["other"]["licenses"][0]["license"]["name"] == "Some license of our own"
    assert found["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.36-9")
    assert found["small"]["type"] == "machine-learning-model"


def test_the_same_image_has_the_same_document_and_another_one_another() -> None:
    packages = [Package("pypi", "numpy", "2.4.6"), Package("pypi", "pillow", "13.0.0")]
    assert written(packages) == written(packages[::-1])
    assert written(packages) != written(packages, "sha256:" + "9" * 64)


@pytest.mark.parametrize(
    ("metadata", "license"),
    [
        ("Name: A\nVersion: 1\nLicense-Expression: MIT\n", "MIT"),
        ("Name: A\nVersion: 1\nLicense: Apache 2\n", "Apache 2"),
        ("Name: A\nVersion: 1\n", ""),
    ],
)
def test_a_wheel_says_what_it_is(tmp_path: Path, metadata: str, license: str) -> None:  # noqa: A002
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a-1.dist-info/METADATA", metadata)
    assert package_of_wheel(wheel, "1" * 64) == Package("pypi", "a", "1", "1" * 64, license)


def test_debian_packages_are_read_line_by_line() -> None:
    assert packages_of_dpkg("bash\t5.2\n\nlibc6\t2.36\n") == [
        Package("deb", "bash", "5.2"),
        Package("deb", "libc6", "2.36"),
    ]
