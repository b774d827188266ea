"""Outlines enclose exactly the mask; pictures hold exactly the grey values."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segpipe.report import overlays


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres an SVG path of straight lines covers by the even-odd rule, (H, W) bool."""
    inside = np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    for ring in path.split("M")[1:]:
        corners = [tuple(map(float, corner.split())) for corner in ring.removesuffix("Z").split("L")]
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                crosses = (np.minimum(y0, y1) <= rows) & (rows < np.maximum(y0, y1))
                inside ^= crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    return inside


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_outline_encloses_exactly_the_mask(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(overlays.outline(mask), mask.shape), mask)


def test_outline_of_a_square_is_one_ring_without_points_on_straight_lines() -> None:
    mask = np.zeros((6, 6), bool)
    mask[2:4, 1:5] = True
    assert overlays.outline(mask).count("M") == 1
    assert overlays.outline(mask).count("L") == 7


def test_outline_of_nothing_is_empty() -> None:
    assert overlays.outline(np.zeros((3, 4), bool)) == ""


def test_picture_is_the_grey_values() -> None:
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    header, data = overlays.png(grey).split(",")
    assert header == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), grey)


def test_grey_of_a_constant_image_is_black_and_finite() -> None:
    assert overlays.grey(np.full((2, 2), 3.0), 3.0, 3.0).tolist() == [[0, 0], [0, 0]]


@given(
    counts=arrays(np.int64, 20, elements=st.integers(0, 50)),
    wrong=arrays(np.int64, 20, elements=st.integers(0, 50)),
    number=st.integers(1, 6),
)
def test_telling_slices_show_the_lesion_and_the_worst_slice(counts: np.ndarray, wrong: np.ndarray, number: int) -> None:
    wrong = np.minimum(wrong, counts)
    chosen = overlays.telling_slices(counts, wrong, (4, 16), number)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= number
    if counts.any():
        assert all(counts[index] > 0 for index in chosen)
    else:
        assert chosen == [9]
    if wrong.any():
        assert int(wrong.argmax()) in chosen


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(10, 12, slice(3, 23)), (2, 12, slice(0, 23)), (10, 29, slice(3, 30))],
    ids=["inside the box", "before it", "behind it"],
)
def test_window_holds_the_box_and_the_lesion(low: int, high: int, expected: slice) -> None:
    assert overlays.window((5, 21), low, high, 30, 2) == expected
