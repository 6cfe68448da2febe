"""deploy/settings.yaml: what is committed is valid, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.errors import KingletError
from tasks.deploy_settings import SETTINGS_FILE, DeploySettings, load_deploy_settings

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_settings_are_the_defaults() -> None:
    assert load_deploy_settings(ROOT / SETTINGS_FILE) == DeploySettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("front: {prot: 80}", "front.prot is not a known key; known here: address, drain_seconds, image, port"),
        ("front: {port: 70000}", "front.port is 70000"),
        ("container: {cpus: 0}", "container.cpus is 0"),
        ("container: {environment: {KINGLET_PORT: '1'}}", "container.environment is"),
        ("container: {environment: {PATH: /}}", "container.environment is"),
        ("image: {registry: 'https://registry.example.org'}", "image.registry is"),
        ("image: {name: Kinglet Serving}", "image.name is"),
        ("image: {tag: latest}", "image.tag is not a known key"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(KingletError) as raised:
        load_deploy_settings(file)
    assert said in raised.value.message
