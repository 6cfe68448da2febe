"""The chapter `settings`: params.yaml as this run had it."""

from __future__ import annotations

from typing import Any

from tasks.parameters import Parameters


def settings_rows(parameters: Parameters) -> dict[str, list[tuple[str, str]]]:
    """Return the settings by section as (key, value) pairs; `general` holds those without a section."""
    sections: dict[str, list[tuple[str, str]]] = {"general": []}
    for key, value in parameters.model_dump(mode="json").items():
        if isinstance(value, dict):
            sections[key] = [(name, plain_text(inner)) for name, inner in value.items()]
        else:
            sections["general"].append((key, plain_text(value)))
    return sections


def plain_text(value: Any) -> str:
    """Return a setting as a reader would write it."""
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain_text(item) for item in value) or "none"
    if isinstance(value, dict):
        # What a student of another problem would have is left out.
        return "; ".join(f"{key} {plain_text(inner)}" for key, inner in value.items() if inner not in (None, []))
    return str(value)
