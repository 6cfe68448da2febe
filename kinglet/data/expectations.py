"""The data checks as Great Expectations suites: what is expected of the images, the classes and the data set.

What is expected of boxes stands in `kinglet.data.box_expectations`, of masks in `kinglet.data.mask_expectations`.

Each check is one expectation with a severity. What fails with "critical" must stop a run; a "warning"
goes into the report. The suites are built from code and held in memory: nothing is kept between runs.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Both are read when the package is imported: no analytics, and no progress bars of its own.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ.setdefault("TQDM_DISABLE", "1")

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier

from kinglet.atomic import atomic_folder

IMAGES, CLASSES, DATA_SET, BOXES, MASKS = "images", "classes", "data_set", "boxes", "masks"
KEY_COLUMNS = {IMAGES: "path", CLASSES: "label", DATA_SET: "name", BOXES: "name", MASKS: "name"}
PATHS_LISTED = 20
NOTHING_LEFT = "no usable image is left"
ONE_RUN = RunIdentifier("check", datetime(2000, 1, 1, tzinfo=UTC))
SITE = "docs"
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Check:
    """One expectation about one column.

    table: "images" (a row per image), "classes" (a row per class), "data_set" (one row), "boxes" or "masks" (a row per
    annotation). sentence: what is wrong if it fails, with the fields {count}, {total}, {value} and {limit}. expected:
    the value that a yes-or-no column must have; without it the column must lie in [low, high]. mostly: share of rows
    that must do.
    """

    name: str
    severity: str
    table: str
    column: str
    sentence: str
    expected: bool | None = None
    low: float | None = None
    high: float | None = None
    mostly: float = 1.0


@dataclass(frozen=True)
class Finding:
    """What a check found: how many rows failed, and the first of them by path (or class)."""

    check: str
    severity: str
    passed: bool
    count: int
    paths: list[str]
    message: str


def checks(
    *,
    min_images_per_class: int,
    max_class_imbalance: float,
    max_unreadable: float,
    max_conflicting: float,
    drift_threshold: float,
    drift_columns: list[str],
) -> list[Check]:
    """Return all checks, critical ones first. drift_columns: columns `drift_NAME` of the data-set table."""
    few = f"{{count}} classes have fewer than {min_images_per_class} usable images (check.min_images_per_class)"
    return [
        Check("not empty", "critical", DATA_SET, "n_usable", NOTHING_LEFT, low=1),
        Check(
            "two classes",
            "critical",
            DATA_SET,
            "n_classes",
            "there must be two classes or more with usable images, found {value:g}",
            low=2,
        ),
        Check("class size", "critical", CLASSES, "n_usable", few, low=min_images_per_class),
        unreadable_share(max_unreadable),
        conflicting_share(max_conflicting, "another label"),
        flag("readable", "readable", True, "{count} of {total} files cannot be read as images and are left out"),
        flag("labelled", "labelled", True, "{count} of {total} images have no label and are left out"),
        flag("conflicting labels", "conflicting", False, "{count} images have the same pixels as one of another class"),
        *picture_checks(),
        class_balance(max_class_imbalance, "images"),
        *drift_checks(drift_threshold, drift_columns),
    ]


def flag(name: str, column: str, expected: bool, sentence: str, table: str = IMAGES) -> Check:
    """Return the check that a yes-or-no column has this value in every row, a warning."""
    return Check(name, "warning", table, column, sentence, expected=expected)


def unreadable_share(most: float) -> Check:
    """Return the check that not more than this share of the files cannot be read."""
    return Check(
        "unreadable share",
        "critical",
        IMAGES,
        "readable",
        f"{{count}} of {{total}} files cannot be read, more than the share of {most:g} that "
        "check.max_unreadable allows",
        expected=True,
        mostly=1 - most,
    )


def conflicting_share(most: float, other: str) -> Check:
    """Return the check that not more than this share of the images contradict one of the same pixels.

    other: what that one has, such as "another label".
    """
    return Check(
        "conflicting share",
        "critical",
        IMAGES,
        "conflicting",
        f"{{count}} of {{total}} images have the same pixels as one with {other}, more than the share of {most:g} that "
        "check.max_conflicting allows",
        expected=False,
        mostly=1 - most,
    )


def class_balance(most: float, things: str) -> Check:
    """Return the check that no class has many times more of what is counted than another, a warning."""
    return Check(
        "class balance",
        "warning",
        DATA_SET,
        "class_imbalance",
        f"the largest class has {{value:.1f}} times as many {things} as the smallest (check.max_class_imbalance: "
        f"{most:g})",
        high=most,
    )


def picture_checks() -> list[Check]:
    """Return the checks of what the images look like, whatever is to be learned of them."""
    return [
        flag("mode", "usual_mode", True, "{count} of {total} images have another mode (colours, depth) than most"),
        flag("size", "usual_size", True, "{count} of {total} images have another size than the most frequent one"),
        flag("too dark", "too_dark", False, "{count} of {total} images are much darker than the rest"),
        flag("too bright", "too_bright", False, "{count} of {total} images are much brighter than the rest"),
        flag("blurred", "blurred", False, "{count} of {total} images are much less sharp than the rest"),
        flag("blank", "blank", False, "{count} of {total} images show nothing: all pixels are alike"),
        flag("exact duplicates", "exact_duplicate", False, "{count} of {total} images have the pixels of another one"),
        flag("near duplicates", "near_duplicate", False, "{count} of {total} images look nearly like another one"),
        flag(
            "leakage", "leaking", False, "{count} images have a duplicate in another part of the split the set brings"
        ),
    ]


def drift_checks(threshold: float, columns: list[str]) -> list[Check]:
    """Return the checks that nothing moved far from the accepted version; columns: see `checks`."""
    return [
        Check(
            f"drift of {name}",
            "warning",
            DATA_SET,
            f"drift_{name}",
            f"{name}: the distribution moved from the accepted version, stability index {{value:.2f}} "
            f"(check.drift_threshold: {threshold:g})",
            high=threshold,
        )
        for name in columns
    ]


def expectation_of(check: Check) -> Any:
    """Return the Great Expectations expectation for a check."""
    shared: dict[str, Any] = {
        "column": check.column,
        "severity": check.severity,
        "mostly": check.mostly,
        "meta": {"check": check.name},
    }
    if check.expected is not None:
        return gxe.ExpectColumnValuesToBeInSet(value_set=[check.expected], **shared)
    return gxe.ExpectColumnValuesToBeBetween(min_value=check.low, max_value=check.high, **shared)


def validate(tables: dict[str, pd.DataFrame], expected: list[Check], docs: Path) -> list[Finding]:
    """Return what the checks find in the tables, in their order, and write the Data Docs into the folder `docs`.

    tables: by name, see `Check`. Two runs on the same tables write the same bytes.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    pandas_source = context.data_sources.add_pandas("kinglet")
    results: dict[str, Any] = {}
    for name, table in tables.items():
        suite = gx.ExpectationSuite(
            name, expectations=[expectation_of(item) for item in expected if item.table == name]
        )
        batch = pandas_source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": [KEY_COLUMNS[name]],
                "return_unexpected_index_query": False,
            },
        )
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table}, run_id=ONE_RUN)
        for validation in outcome.run_results.values():
            results |= {name_of(result): result for result in validation.results}
    with atomic_folder(docs) as folder:
        write_docs(context, folder)
        make_reproducible(folder)
    return [finding_of(item, results[item.name], tables[item.table]) for item in expected]


def write_docs(context: Any, folder: Path) -> None:
    """Write the Data Docs of everything that was validated in this context."""
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    context.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": backend,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    logger = logging.getLogger("great_expectations.render.renderer.site_builder")
    handler = FailedPage(logging.ERROR)
    logger.addHandler(handler)
    try:
        context.build_data_docs(site_names=[SITE])
    finally:
        logger.removeHandler(handler)


class FailedPage(logging.Handler):
    """Raises the error behind what is logged: Great Expectations logs that a page failed and goes on without it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise the error that is being handled."""
        raise sys.exc_info()[1] or RuntimeError(record.getMessage())


def name_of(result: Any) -> str:
    """Return the name of the check that a validation result belongs to."""
    return str(result.expectation_config.meta["check"])


def finding_of(check: Check, result: Any, table: pd.DataFrame) -> Finding:
    """Return what a validation result says, in words.

    Raises RuntimeError if the expectation could not be evaluated: that is a defect, not a finding.
    """
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(f"check {check.name!r}: {result.exception_info.get('exception_message')}")
    key = KEY_COLUMNS[check.table]
    # Great Expectations judges a warning by `mostly`; the rows that fail are listed either way.
    paths = sorted(str(row[key]) for row in result.result.get("unexpected_index_list") or [])
    value = float(table[check.column].iloc[0]) if check.table == DATA_SET else 0.0
    message = check.sentence.format(count=len(paths), total=len(table), value=value) if not result.success else ""
    listed = [] if check.table == DATA_SET else paths[:PATHS_LISTED]
    return Finding(check.name, check.severity, bool(result.success), len(paths), listed, message)


def make_reproducible(docs: Path) -> None:
    """Rewrite the pages so that nothing in them depends on when they were made, and nothing calls home.

    Great Expectations numbers the parts of a page with random UUIDs, writes the time into it, and loads
    its logo from its own server with that time in the address, which tells the server of every view.
    """
    for page in sorted(docs.rglob("*.html")):
        to_root = "../" * (len(page.relative_to(docs).parts) - 1)
        text = page.read_text(encoding="utf-8")
        text = re.sub(
            r"https://great-expectations-web-assets\.[^\"'\s]*", f"{to_root}static/images/logo-long.png", text
        )
        for number, identifier in enumerate(dict.fromkeys(UUID.findall(text))):
            text = text.replace(identifier, f"id-{number}")
        text = re.sub(r"\b(?!20000101T)\d{8}T\d{6}\.\d{6}Z", "not recorded", text)
        # The one run time that all runs share is shown in the time zone of the machine.
        text = re.sub(r"(?:1999-12-31|2000-01-0[12])[ T]\d\d:\d\d:\d\d(?:Z| [A-Z+-][\w:]*)?", "not recorded", text)
        page.write_text(text, encoding="utf-8")
