"""The window that the network sees, and what is done to voxels before."""

import numpy as np
import pytest

from segpipe.core.intensity import normalise
from segpipe.core.prediction import ScanInput
from segpipe.runtimes.slicewise import finite, request_dtype, window
from segpipe.trainers.contract import ScanPlan
from segpipe.trainers.feed import crop


@pytest.mark.parametrize(
    ("first", "last", "limit", "size"),
    [(10, 30, 64, 32), (0, 5, 64, 32), (60, 64, 64, 32), (3, 9, 20, 32), (0, 21, 21, 32), (7, 30, 64, 24)],
)
def test_the_window_is_that_of_training(first: int, last: int, limit: int, size: int) -> None:
    slices = np.arange(1, limit * limit + 1).reshape(1, limit, limit)
    plan = ScanPlan("s", "s", "train", (1, limit, limit), (0, 1, first, last, first, last), np.zeros(1), np.ones(1))
    span = window(first, last, limit, size, multiple=8)
    seen = np.zeros((1, size, size), slices.dtype)
    seen[:, span.there, span.there] = slices[:, span.here, span.here]
    np.testing.assert_array_equal(seen, crop(slices, plan, (size, size)))


@pytest.mark.parametrize("first", range(0, 40, 7))
@pytest.mark.parametrize("last", range(40, 64, 5))
def test_the_window_holds_the_brain(first: int, last: int) -> None:
    span = window(first, last, limit=64, crop=16, multiple=8)
    assert span.length % 8 == 0
    assert span.here.start <= first
    assert span.here.stop >= last
    assert span.there.stop - span.there.start == span.here.stop - span.here.start


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
