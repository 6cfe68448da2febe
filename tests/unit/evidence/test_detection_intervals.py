import numpy as np
import pytest
from scipy.stats import bootstrap

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.detection_intervals import draw_scores
from kinglet.evidence.detection_matches import LOOSEST_IOU, WHOLE, Objects, match_objects
from kinglet.evidence.detection_scores import map_50
from kinglet.evidence.image_bootstrap import bounds_of_difference, intervals_of
from kinglet.evidence.non_inferiority import NOT_ESTABLISHED, NOT_WORSE, WORSE, verdict_of_bounds
from tests.unit.evidence.found_objects import made_detections, made_objects


def drawn_of(seed, n_images=20, resamples=400, method="percentile", **detector):
    truths = made_objects(0, n_images)
    found = made_detections(truths, seed, n_images, **detector)
    return draw_scores(match_objects(truths, found, n_images, 3), 0.3, method=method, resamples=resamples)


@pytest.fixture(scope="module")
def drawn():
    return {name: drawn_of(seed) for name, seed in (("one", 1), ("other", 2))}


def test_an_interval_encloses_its_score_and_stays_on_the_scale(drawn):
    found = intervals_of(drawn["one"])
    every = [*found.overall.values(), *(item for of_score in found.by_class.values() for item in of_score)]
    assert len(every) == 10 + 5 * 3
    assert all(0 <= item.low <= item.value <= item.high <= 1 for item in every if item)
    assert found.overall["map_50"].high - found.overall["map_50"].low > 0.02
    wide = intervals_of(drawn["one"], confidence=0.99).overall["map_50"]
    assert wide.low <= found.overall["map_50"].low < found.overall["map_50"].high <= wide.high


@pytest.mark.parametrize(("method", "name"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bounds_are_those_of_scipy_on_whole_images(method, name):
    truths = made_objects(0)
    matches = match_objects(truths, made_detections(truths, 1), 20, 3)

    def score(images):
        weights = np.zeros((len(images), 20))
        np.add.at(weights, (np.arange(len(images))[:, None], images), 1)
        return map_50(matches, weights)

    expected = bootstrap(
        (np.arange(20),),
        lambda images, axis: score(np.moveaxis(images, axis, -1).reshape(-1, images.shape[axis])).reshape(
            np.delete(images.shape, axis)
        ),
        n_resamples=3000,
        method=name,
        rng=np.random.default_rng(0),
    ).confidence_interval
    drawn = draw_scores(matches, 0.3, method=method, resamples=3000)
    found = intervals_of(drawn, method=method).overall["map_50"]
    # Two drawings of 3,000 resamples differ by their own chance.
    assert found.low == pytest.approx(expected.low, abs=0.012)
    assert found.high == pytest.approx(expected.high, abs=0.012)


def test_a_paired_difference_is_drawn_over_the_same_images(drawn):
    difference = intervals_of(drawn["one"].minus(drawn["other"])).overall["map_50"]
    both = [intervals_of(item).overall["map_50"] for item in drawn.values()]
    assert difference.value == pytest.approx(both[0].value - both[1].value)
    widths = [item.high - item.low for item in both]
    # Images that are hard for one are hard for both, in part.
    assert difference.high - difference.low < sum(widths)
    assert difference.low < difference.value < difference.high


def test_a_model_and_itself_differ_by_nothing(drawn):
    found = intervals_of(drawn["one"].minus(drawn["one"], is_same=True))
    assert {item for item in found.overall.values() if item} == {Interval(0, 0, 0)}


def test_that_two_models_agree_on_these_images_does_not_make_them_one(drawn):
    found = intervals_of(drawn["one"].minus(drawn["one"])).overall["map_50"]
    assert found.value == 0
    assert -0.3 < found.low < -0.05
    assert found.high == -found.low


def test_everything_found_leaves_room_for_what_these_images_do_not_show():
    truths = made_objects(0)
    perfect = Objects(truths.images, truths.labels, truths.xyxy, np.full(len(truths), 0.9))
    found = intervals_of(draw_scores(match_objects(truths, perfect, 20, 3), 0.3, resamples=100)).overall["map"]
    assert found.value == found.high == 1
    assert 0.7 < found.low < 0.9


def test_what_no_object_defines_has_no_interval_and_what_one_image_defines_the_whole_scale():
    xyxy = np.array([[0, 0, 40, 40], [0, 0, 40, 40], [50, 50, 90, 90]], float)
    truths = Objects(np.array([0, 1, 1]), np.array([0, 0, 1]), xyxy)
    found = Objects(np.array([0, 1]), np.array([0, 1]), xyxy[[0, 2]], np.array([0.9, 0.8]))
    drawn = draw_scores(match_objects(truths, found, 2, 3), 0.3, resamples=200)
    intervals = intervals_of(drawn)
    assert intervals.overall["map_small"] is None
    assert intervals.by_class["map_50"][2] is None
    assert intervals.by_class["map_50"][1] == Interval(pytest.approx(1), 0, 1)
    with pytest.raises(ValueError, match="nothing in these images defines"):
        bounds_of_difference(drawn.minus(drawn), drawn.column("map_small"), 0.95)
    bounds = bounds_of_difference(drawn.minus(drawn), drawn.class_column("map_50", 0), 0.95)
    assert bounds.low < bounds.value == 0 < bounds.high


def test_the_same_seed_draws_the_same():
    np.testing.assert_array_equal(drawn_of(1).drawn, drawn_of(1).drawn)


def test_without_images_there_is_no_interval():
    nothing = Objects(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(ValueError, match="at least one"):
        draw_scores(match_objects(nothing, nothing, 0, 1), 0.3)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    n_worlds, n_images = 60, 40

    def scores_in(world, images, weights):
        # Without the rare class: the precision of a handful of objects is too high on average.
        truths = made_objects(world, images, most=4, n_classes=2)
        truths = truths.take(truths.labels == 0)
        found = made_detections(truths, world, images, n_classes=1, false=1)
        return map_50(match_objects(truths, found, images, 1, ious=LOOSEST_IOU, sizes=WHOLE), weights)

    (truth,) = scores_in(1000, 1000, np.ones((1, 1000)))
    weights = np.random.default_rng(0).multinomial(n_images, np.full(n_images, 1 / n_images), 200).astype(float)
    bounds = [np.quantile(scores_in(world, n_images, weights), [0.025, 0.975]) for world in range(n_worlds)]
    held = np.mean([low <= truth <= high for low, high in bounds])
    # 95 % of 60 worlds, give or take three standard errors.
    assert held >= 0.86


@pytest.mark.parametrize(
    ("bounds", "word", "would_show"),
    [
        ((0.0, -0.008, 0.01), NOT_WORSE, None),
        ((0.0, -0.01, 0.01), NOT_WORSE, None),
        ((-0.05, -0.07, -0.02), WORSE, None),
        ((-0.002, -0.02, 0.015), NOT_ESTABLISHED, NOT_WORSE),
        ((-0.02, -0.05, 0.0), NOT_ESTABLISHED, WORSE),
        ((-0.01, -0.05, 0.03), NOT_ESTABLISHED, None),
    ],
)
def test_the_verdict_goes_by_the_bounds(bounds, word, would_show):
    found = verdict_of_bounds(Interval(*bounds), 72, 0.01)
    assert (found.verdict, found.would_show, found.n) == (word, would_show, 72)
    assert (found.images_needed is not None) == (would_show is not None)


def test_images_that_would_settle_it_grow_with_the_square_of_the_width():
    needed = [verdict_of_bounds(Interval(0, -width, width), 100, 0.01).images_needed for width in (0.02, 0.04)]
    # (1.645 + 0.842) / 1.645 times a width of twice the margin.
    assert needed[0] == pytest.approx(100 * (2 * 2.4865 / 1.6449) ** 2, rel=0.01)
    assert needed[1] == pytest.approx(4 * needed[0], rel=0.01)


def test_a_model_beside_itself_is_not_worse():
    assert verdict_of_bounds(Interval(0, -0.5, 0.5), 3, 0.0, same_model=True).verdict == NOT_WORSE


@pytest.mark.parametrize(("margin", "n"), [(1.0, 10), (-0.1, 10), (0.01, 0)])
def test_margins_off_the_scale_and_no_images_are_refused(margin, n):
    with pytest.raises(ValueError, match=r"margin must|at least one image"):
        verdict_of_bounds(Interval(0, 0, 0), n, margin)
