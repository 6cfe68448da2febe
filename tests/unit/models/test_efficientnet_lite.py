import pytest

from kinglet.models.efficientnet_lite import efficientnet_lite_spec, round_width


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (16, 16),
        (17.6, 16),  # nearest
        (44.0, 48),  # a tie goes up
        (11.9, 16),  # 8 would be more than 10 % below
        (88.0, 88),
        (123.2, 120),
        (3, 8),  # never nothing
    ],
)
def test_widths_are_multiples_of_eight_and_hardly_smaller(width, expected):
    assert round_width(width) == expected


@pytest.mark.parametrize(("depth", "n_blocks"), [(1.0, 16), (1.1, 21), (1.2, 21)])
def test_first_and_last_stage_keep_one_block_at_any_depth(depth, n_blocks):
    blocks = efficientnet_lite_spec(1.0, depth, 3, 10, 0.0).blocks
    assert len(blocks) == n_blocks
    assert [block.out for block in blocks].count(16) == 1
    assert [block.out for block in blocks].count(320) == 1


@pytest.mark.parametrize("width", [1.0, 1.1])
def test_stem_and_head_are_not_scaled(width):
    spec = efficientnet_lite_spec(width, 1.0, 3, 10, 0.0)
    assert (spec.stem, spec.head) == (32, 1280)
