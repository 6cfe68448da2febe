"""Step `plan`: say what the test images can prove, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.power import images_for_margin, power_to_prove, provable_margin
from tasks.artifacts import PLAN, SPLIT
from tasks.detection_plan import plan_of_boxes
from tasks.parameters import Parameters
from tasks.segmentation_plan import plan_of_masks
from tasks.stage import run_stage

# Other shares of disagreement that the plan is reckoned for, as nobody knows it beforehand.
DISAGREEMENTS = (0.01, 0.02, 0.05, 0.1)


def run(parameters: Parameters) -> None:
    """Write plan.json; warn of what the test images are too few for."""
    write_json(PLAN / "plan.json", PLANS[parameters.network](parameters))


def plan_of_images(parameters: Parameters) -> dict[str, Any]:
    """Return what the test images can prove; warn if `select.max_accuracy_drop` is below that.

    Raises KingletError if there are none.
    """
    n_images = sum(read_json(SPLIT / "counts.json").get("test", {}).values())
    if not n_images:
        raise KingletError("The test split has no images to prove anything on.", "Raise split.test in params.yaml.")
    plan = plan_of(
        n_images,
        parameters.select.max_accuracy_drop,
        parameters.plan.disagreement,
        parameters.evaluate.confidence,
        parameters.plan.power,
    )
    if not plan["is_enough"]:
        print(f"warning: {warning(plan, parameters.several)}", file=sys.stderr)
    return plan


def plan_of(n_images: int, margin: float, disagreement: float, confidence: float, power: float) -> dict[str, Any]:
    """Return what this many test images can prove, JSON-ready; shares and margins in [0, 1]."""

    def reckoned(share: float) -> dict[str, Any]:
        return {
            "disagreement": share,
            "provable_margin": round(provable_margin(n_images, share, confidence=confidence, power=power), 6),
            # No number of images proves that nothing at all was lost.
            "images_needed": images_for_margin(margin, share, confidence=confidence, power=power) if margin else None,
        }

    provable = provable_margin(n_images, disagreement, confidence=confidence, power=power)
    return {
        "test_images": n_images,
        "max_accuracy_drop": margin,
        "confidence": confidence,
        "power": power,
        **reckoned(disagreement),
        "chance": round(power_to_prove(n_images, margin, disagreement, confidence=confidence), 4) if margin else 0.0,
        "is_enough": provable <= margin,
        "by_disagreement": [reckoned(share) for share in sorted({*DISAGREEMENTS, disagreement})],
    }


def warning(plan: dict[str, Any], shown: str = "images") -> str:
    """Return the sentence for a test set that is too small for the margin. shown: what it consists of."""
    needed = plan["images_needed"]
    remedy = "widen it" if needed is None else f"that takes about {needed:,} {shown}, so widen it or add {shown}"
    return (
        f"{plan['test_images']:,} test {shown} can prove that a model is at most "
        f"{100 * plan['provable_margin']:.2g} points worse (at {100 * plan['power']:g} % power, if only one of two "
        f"models is right on {100 * plan['disagreement']:g} % of them), not the "
        f"{100 * plan['max_accuracy_drop']:g} of select.max_accuracy_drop: {remedy}."
    )


PLANS: dict[str, Callable[[Parameters], dict[str, Any]]] = {
    "classification": plan_of_images,
    "detection": plan_of_boxes,
    "segmentation": plan_of_masks,
    "video": plan_of_images,
}

if __name__ == "__main__":
    run_stage(run)
