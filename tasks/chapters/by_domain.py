"""The chapter `by_domain`: how good the teacher and the chosen model are in each domain that the data set names."""

from __future__ import annotations

from typing import Any

from tasks.domain_scores import BY_DOMAIN


def chapter(
    scores: dict[str, Any], teacher: str, chosen: str, name: str, word: str, several: str = "images"
) -> dict[str, Any] | None:
    """Return what the template shows; None where the test images are of fewer than two domains.

    scores: {model: its scores}, as in scores.json. name: of the score; word: how the page calls it. several: what is
    scored.
    """
    if BY_DOMAIN not in scores[chosen]:
        return None
    names = list(dict.fromkeys([teacher, chosen]))
    return {
        "word": word,
        "several": several,
        "models": names,
        "rows": [
            {
                "domain": domain,
                "n": of_domain["n"],
                "scores": [scores[model][BY_DOMAIN][domain][name] for model in names],
            }
            for domain, of_domain in scores[chosen][BY_DOMAIN].items()
        ],
    }
