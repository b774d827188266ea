"""Grids of networks as their tools make them, on numbers that can be computed in the head."""

import numpy as np
import pytest

from segpipe.core.resize import RESAMPLINGS, Regridding, resize


def ramp(length: int) -> np.ndarray:
    """A volume whose values are the places along its first axis, in voxels."""
    return np.broadcast_to(np.arange(length, dtype=np.float32)[None, :, None, None], (1, length, 4, 5)).copy()


def test_monai_starts_at_the_first_voxel_and_linear_at_its_edge() -> None:
    grids = [Regridding(kind, (13, 4, 5), (1.0, 1.0, 1.0), (1.5, 1.0, 1.0)) for kind in ("monai", "linear")]
    assert [one.target for one in grids] == [(9, 4, 5), (9, 4, 5)]
    monai, linear = (one.there(ramp(13)) for one in grids)
    np.testing.assert_allclose(monai[0, :, 2, 3], np.arange(9) * 1.5, rtol=1e-6)
    np.testing.assert_allclose(linear[0, 1:-1, 2, 3], (np.arange(9)[1:-1] + 0.5) * 13 / 9 - 0.5, rtol=1e-6)
    np.testing.assert_allclose(grids[0].back(monai), ramp(13), atol=1e-5)


def test_thick_slices_are_taken_as_they_are_by_nnunet() -> None:
    thick, volume = Regridding("nnunet", (6, 4, 5), (4.0, 1.0, 1.0), (1.0, 1.0, 1.0)), ramp(6) ** 2
    np.testing.assert_array_equal(thick.there(volume), np.repeat(volume, 4, axis=1))
    np.testing.assert_array_equal(thick.back(np.repeat(volume, 4, axis=1)), volume)
    other = Regridding("nnunet", (6, 4, 5), (3.0, 1.0, 1.0), (1.0, 1.0, 1.0))  # not more than three times as long
    assert not np.array_equal(other.there(volume), np.repeat(volume, 3, axis=1))


def test_planes_of_thick_slices_are_moved_along_any_axis() -> None:
    """A plane of a cubic curve: splines give it exactly, straight lines do not."""
    curve = (np.arange(40.0) - 20) ** 3
    volume = np.broadcast_to(curve[:, None], (3, 40, 4)).transpose(2, 1, 0)[None]  # (1, 4, 40, 3)
    grids = Regridding("nnunet", (4, 40, 3), (1.0, 1.0, 5.0), (1.0, 0.5, 2.5))
    assert grids.target == (4, 80, 6)
    found = grids.there(volume)
    wanted = (np.arange(80) / 2 - 0.25 - 20) ** 3
    np.testing.assert_allclose(found[0, 2, 20:-20], np.repeat(wanted[20:-20, None], 6, 1), atol=1e-2)
    assert np.abs(resize(volume, (4, 80, 6))[0, 2, 20:-20, 0] - wanted[20:-20]).max() > 1
    assert found.max() <= curve.max()


def test_answers_come_back_linearly_from_nnunet() -> None:
    grids = Regridding("nnunet", (12, 4, 5), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    answer = np.array([0.0, 0, 0, 1, 0, 0], np.float32)[None, :, None, None] * np.ones((1, 6, 4, 5), np.float32)
    np.testing.assert_allclose(grids.back(answer), resize(answer, (12, 4, 5)), atol=1e-6)


@pytest.mark.parametrize("kind", RESAMPLINGS)
@pytest.mark.parametrize("wanted", [(), (0.0, 0.0, 0.0), (1.0, 2.0, 3.0)])
def test_the_same_grid_is_left_alone(kind: str, wanted: tuple[float, ...]) -> None:
    grids, volume = Regridding(kind, (7, 4, 5), (1.0, 2.0, 3.0), wanted), ramp(7) ** 0.5
    assert (grids.target, grids.moves) == ((7, 4, 5), False)
    np.testing.assert_array_equal(grids.there(volume), volume)
    np.testing.assert_array_equal(grids.back(volume), volume)


def test_what_counts_as_the_same_grid() -> None:
    """MONAI resamples where a voxel differs by more than a micrometre, nnU-Net where the number of voxels does."""
    close = {kind: Regridding(kind, (240, 4, 5), (1.0, 1.0, 1.0), (1.004, 1.0, 1.0)) for kind in RESAMPLINGS}
    assert {kind: (one.target[0], one.moves) for kind, one in close.items()} == {
        "linear": (240, False),
        "monai": (239, True),
        "nnunet": (239, True),
    }
    unknown = Regridding("nnunet", (8, 4, 5), (0.0, 1.0, 1.0), (0.0, 0.5, 0.5))  # a slice axis that nobody measured
    assert unknown.there(ramp(8)).shape == (1, 8, 8, 10)
