"""What a test set can prove about two models before they exist: margins, images, and the chance of success.

All of it rests on the share of images on which exactly one of the two models is right: on these alone can a
comparison of the same images see a difference.
"""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri

CONFIDENCE, POWER = 0.95, 0.8


def images_for_margin(
    margin: float,
    disagreement: float,
    *,
    difference: float = 0.0,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> int:
    """Return the test images it takes to prove "not worse by more than `margin`" with this power.

    margin: of accuracy, in (0, 1). disagreement: share of images on which exactly one model is right, in [0, 1].
    difference: true accuracy minus that of the reference; must lie above -margin. confidence: one-sided.
    For margin 0.005 and no true difference: about 247,000 times the disagreement.
    Raises ValueError for values out of range.
    Source: Connett, Smith and McHugh 1987, "Sample size and power for pair-matched case-control studies", applied to
    a shifted null hypothesis as in Nam 1997; without disagreement, what Tango's score bound needs.
    """
    check_disagreement(disagreement, difference)
    if not 0 < margin < 1:
        raise ValueError(f"margin must lie between 0 and 1, got {margin}")
    if difference <= -margin:
        raise ValueError(f"no number of images proves that a model {difference} worse is within {margin}")
    spread = max(0.0, disagreement - difference**2)
    needed = (z_sum(confidence, power) / (margin + difference)) ** 2 * spread
    return max(math.ceil(needed), fewest_images(margin, confidence))


def provable_margin(
    n_images: int, disagreement: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """Return the smallest margin that this many test images prove with this power, in (0, 1].

    It holds for a model that is in truth as good as the reference; of a worse one less can be proved.
    Raises ValueError for values out of range.
    """
    check_disagreement(disagreement, 0.0)
    if n_images < 1:
        raise ValueError(f"n_images must be at least 1, got {n_images}")
    needed = z_sum(confidence, power) * math.sqrt(disagreement / n_images)
    z = float(ndtri(confidence))
    return min(1.0, max(needed, z**2 / (n_images + z**2)))


def power_to_prove(
    n_images: int, margin: float, disagreement: float, *, difference: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Return the probability that the test images prove "not worse by more than `margin`", in [0, 1].

    Raises ValueError for values out of range.
    """
    check_disagreement(disagreement, difference)
    if n_images < fewest_images(margin, confidence):
        return 0.0
    spread = math.sqrt(max(0.0, disagreement - difference**2) / n_images)
    room = margin + difference
    return float(ndtr(room / spread - ndtri(confidence))) if spread else float(room > 0)


def fewest_images(margin: float, confidence: float = CONFIDENCE) -> int:
    """Return the images it takes where the models never disagree: margin in (0, 1).

    Source: Tango 1998, equation 8, with no discordant pair.
    """
    z = float(ndtri(confidence))
    return max(1, math.ceil(z**2 * (1 - margin) / margin))


def z_sum(confidence: float, power: float) -> float:
    """Return the distance in standard errors between no difference and a margin that is proved with this power."""
    if not (0.5 < confidence < 1 and 0 < power < 1):
        raise ValueError(f"confidence must lie in (0.5, 1) and power in (0, 1), got {confidence} and {power}")
    return max(0.0, float(ndtri(confidence) + ndtri(power)))


def check_disagreement(disagreement: float, difference: float) -> None:
    """Raise ValueError unless a difference can come from this share of disagreements."""
    if not 0 <= disagreement <= 1:
        raise ValueError(f"disagreement must lie in 0..1, got {disagreement}")
    if abs(difference) > disagreement:
        raise ValueError(f"a difference of {difference} needs at least as many disagreements, got {disagreement}")
