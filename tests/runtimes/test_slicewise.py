"""The window that the network sees, and what is done to voxels before."""

import numpy as np
import pytest

from segpipe.core.intensity import normalise
from segpipe.core.prediction import ScanInput
from segpipe.runtimes.slicewise import finite, request_dtype
from segpipe.runtimes.windows import Windows, span
from segpipe.trainers.contract import ScanPlan
from segpipe.trainers.feed import crop


@pytest.mark.parametrize(
    ("first", "last", "limit", "size"),
    [(10, 30, 64, 32), (0, 5, 64, 32), (60, 64, 64, 32), (3, 9, 20, 32), (0, 21, 21, 32), (7, 30, 64, 24)],
)
def test_the_window_is_that_of_training(first: int, last: int, limit: int, size: int) -> None:
    slices = np.arange(1, limit * limit + 1).reshape(1, limit, limit)
    plan = ScanPlan("s", "s", "train", (1, limit, limit), (0, 1, first, last, first, last), np.zeros(1), np.ones(1))
    axis = span(first, last, limit, size, multiple=8)
    seen = np.zeros((1, size, size), slices.dtype)
    seen[:, axis.there, axis.there] = slices[:, axis.here, axis.here]
    np.testing.assert_array_equal(seen, crop(slices, plan, (size, size)))


@pytest.mark.parametrize("first", range(0, 40, 7))
@pytest.mark.parametrize("last", range(40, 64, 5))
def test_the_window_holds_the_brain(first: int, last: int) -> None:
    axis = span(first, last, limit=64, least=16, multiple=8)
    assert axis.length % 8 == 0
    assert axis.here.start <= first
    assert axis.here.stop >= last
    assert axis.there.stop - axis.there.start == axis.here.stop - axis.here.start


@pytest.mark.parametrize(
    ("dtypes", "wanted"),
    [
        (["<i2", "u1"], "int16"),
        (["i1"], "int16"),
        (["<i2", "<u2"], "float32"),
        (["<i4"], "float32"),
        (["<f8"], "float32"),
    ],
)
def test_what_fits_travels_as_int16(dtypes: list[str], wanted: str) -> None:
    assert request_dtype([np.zeros((1, 2, 2), dtype) for dtype in dtypes]) == wanted


@pytest.mark.parametrize(
    ("std", "slope", "inter"), [(4.0, 1.0, 0.0), (0.5, 0.1, -3.0), (0.0, 2.0, 1.0), (np.nan, 1.0, 0.0)]
)
def test_stored_statistics_normalise_as_core_does(std: float, slope: float, inter: float) -> None:
    stored = np.array([0, 3, 250], np.int16)
    scan = ScanInput((1, 1, 3), (7.0,), (std,), (slope,), (inter,), (0, 1, 0, 1, 0, 3))
    mean, inverse = scan.stored_statistics()
    np.testing.assert_allclose(
        (stored - mean) * inverse, normalise(stored * slope + inter, 7.0, std), rtol=1e-5, atol=1e-4
    )


def test_what_is_not_finite_becomes_the_mean() -> None:
    image = np.array([np.nan, np.inf, -np.inf, 2.0], np.float32).reshape(1, 1, 2, 2)
    assert finite(image, np.array([5.0], np.float32)).ravel().tolist() == [5, 5, 5, 2]


def test_a_slice_gets_the_smallest_window_that_shows_it() -> None:
    windows = Windows.around((10, 58, 4, 64), limits=(70, 70), crop=(48, 48), multiple=8)
    assert windows.whole.size == (48, 64)
    expected = {(0, 30): (32, 48), (0, 38): (40, 56), (0, 44): (48, 64)}
    for (first, last), size in expected.items():
        plane = np.zeros((70, 70), np.int16)
        plane[10 + first : 10 + last, 20] = 1
        plane[30, 20:50] = -1
        seen = windows.of([np.zeros_like(plane), plane])
        assert seen.size == size
        assert np.count_nonzero(plane[seen.here]) == np.count_nonzero(plane)
    assert windows.of([np.zeros((70, 70))]) == windows.whole
    plane = np.zeros((70, 70))
    plane[0], plane[30, 30] = 1, 1  # beyond the brain of the scan
    assert windows.of([plane]).size == (32, 48)


def test_windows_of_a_size_have_the_slice_at_one_place() -> None:
    """Requests share their bounds; here windows are larger than the slices."""
    windows = Windows.around((0, 20, 0, 20), limits=(20, 20), crop=(48, 48), multiple=8)
    places = set()
    for row in range(18):
        plane = np.zeros((20, 20))
        plane[row : row + 2, 3] = 1
        places.add((windows.of([plane]).size, tuple(windows.of([plane]).bounds.tolist())))
    assert places == {((32, 32), (6, 26, 6, 26))}
