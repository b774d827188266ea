"""The percentile of distances against all distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from segpipe.core.metrics import hausdorff_percentile_mm

spacings = st.tuples(*[st.sampled_from([0.1, 0.5, 1.0, 1.7, 5.0])] * 3)
percents = st.sampled_from([50, 95, 100])


def all_distances(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...], percent: float) -> float:
    distances = cdist(one.T * spacing, other.T * spacing)
    return max(np.percentile(distances.min(axis=axis), percent) for axis in (0, 1))


def clusters(rng: np.random.Generator, number: int, extent: int, size: int) -> np.ndarray:
    """Indices (3, n) of points in clusters, without duplicates."""
    middles = rng.integers(0, extent, (number, 1, 3))
    return np.unique((middles + rng.integers(0, size, (number, 20, 3))).reshape(-1, 3), axis=0).T


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([3, 30, 200]),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    spacings,
    percents,
)
def test_it_is_that_of_all_distances(
    seed: int,
    numbers: tuple[int, int],
    extent: int,
    sizes: tuple[int, int],
    spacing: tuple[float, float, float],
    percent: float,
) -> None:
    rng = np.random.default_rng(seed)
    one, other = (clusters(rng, number, extent, size) for number, size in zip(numbers, sizes, strict=True))
    found = hausdorff_percentile_mm(one, other, spacing, percent)
    assert found == pytest.approx(all_distances(one, other, spacing, percent), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-9, 9)] * 3), st.integers(0, 12), spacings)
def test_it_is_that_of_all_distances_for_a_moved_surface_with_outliers(
    seed: int, shift: tuple[int, int, int], outliers: int, spacing: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(seed)
    grid = np.indices((15, 15, 15)).reshape(3, -1)
    radius = np.sqrt(((grid - 7) ** 2).sum(axis=0))
    sphere = grid[:, (radius > 5.5) & (radius < 6.5)]
    moved = np.concatenate([sphere + np.array(shift)[:, None], rng.integers(-60, 60, (3, outliers))], axis=1)
    found = hausdorff_percentile_mm(moved, sphere, spacing)
    assert found == pytest.approx(all_distances(moved, sphere, spacing, 95), abs=1e-9)


@pytest.mark.parametrize("distance", [0, 1, 4, 5, 100, 10_000])
def test_two_points_are_as_far_apart_as_they_are(distance: int) -> None:
    one, other = np.array([[3], [0], [0]]), np.array([[3], [distance], [0]])
    assert hausdorff_percentile_mm(one, other, (1.0, 0.25, 7.0)) == distance / 4


@pytest.mark.parametrize("percent", [0, 50, 95, 100])
@pytest.mark.parametrize("shift", [(0, 0, 0), (3, -5, 1), (40, 9, 0)], ids=str)
def test_of_many_points_it_is_that_of_all_distances(shift: tuple[int, int, int], percent: float) -> None:
    """Of these not every distance is looked up."""
    rng, spacing = np.random.default_rng(7), (5.0, 1.0, 0.7)
    grid = np.indices((33, 33, 33)).reshape(3, -1)
    radius = np.sqrt(((grid - 16) ** 2).sum(axis=0))
    shell = grid[:, (radius > 15) & (radius < 16)]
    found = np.concatenate([shell + np.array(shift)[:, None], rng.integers(-60, 60, (3, 200))], axis=1)
    assert shell.shape[1] > 2000
    exact = all_distances(found, shell, spacing, percent)
    assert hausdorff_percentile_mm(found, shell, spacing, percent) == pytest.approx(exact, abs=1e-9)
