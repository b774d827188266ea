"""The atlas's own brain, moved by known transforms and shown with another contrast, is brought back.

It is shown smaller than it is, because the time of a registration grows with the volume of a brain.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from segpipe.prepare import atlas
from segpipe.prepare.grids import Grid, resample
from segpipe.prepare.register import (
    Head,
    _Pair,
    _poses,
    _square_turns,
    _turned,
    mirror_similarity,
    moved_mm,
    nearest_rigid,
    rigid,
    rotation,
    shares_inside,
    upright,
)

_SCALE, _EVERY = 0.6, 2


@lru_cache(maxsize=1)
def template() -> Head:
    """The atlas in 0.6 of its size, of every second voxel along each axis."""
    head = atlas.head()
    values, brain = (array[::_EVERY, ::_EVERY, ::_EVERY] for array in (head.values, head.brain))
    affine = np.diag([_SCALE] * 3 + [1.0]) @ head.grid.affine @ np.diag([_EVERY] * 3 + [1.0])
    return Head(values, Grid(values.shape, affine), brain)


def off_by(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    """What a wrong header does to points."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.radians(degrees).tolist())
    matrix[:3, 3] = shift
    return matrix


def other(wrong: np.ndarray) -> Head:
    """The brain of the template with fluid bright, in thick slices, its header wrong."""
    brain = template()
    values = np.where(brain.brain, 300 - brain.values, 0).astype(np.float32)
    affine = np.diag([*(_SCALE * np.array([1.5, 1.5, 4.0])), 1.0])
    affine[:3, 3] = brain.grid.affine[:3, 3]
    grid = Grid((131, 155, 48), affine)
    mask = resample(brain.brain.astype(np.float32), brain.grid, grid) > 0.5
    return Head(resample(values, brain.grid, grid), Grid(grid.shape, wrong @ affine), mask)


def error_mm(found: np.ndarray, wrong: np.ndarray) -> float:
    return moved_mm(template(), np.linalg.inv(wrong) @ found)


@pytest.mark.slow
def test_a_header_that_is_far_off_is_found_out() -> None:
    wrong = off_by((24, -17, 21), (22, -25, 18))
    found = rigid(template(), other(wrong))
    assert found.starts > 100  # the header's own pose was not good enough
    assert error_mm(found.matrix, wrong) < 0.7


def test_the_nearest_pose_is_among_the_first() -> None:
    wrong = off_by((13, -17, 28), (30, 0, -20))
    moving = other(wrong)
    poses = _poses(template(), moving)
    nearest = int(np.argmin([np.abs(pose - wrong)[:3, :3].sum() for pose in poses]))
    pair = _Pair.of(template(), moving, 4.0)
    found = pair.evaluate([*poses, wrong])
    assert nearest in np.argsort(found[:-1])[:3]
    assert nearest in np.argsort(-shares_inside(template(), moving, poses))[:3]
    assert found[-1] < found[:-1].min() - 0.1


@pytest.mark.slow
def test_a_registration_gives_the_same_bits_twice() -> None:
    pair = replace(_Pair.of(template(), other(np.eye(4)), 4.0), share=0.5)  # at random
    found = [pair.optimise(off_by((3, 2, 1), (2, 3, 4)), step_mm=2.0).matrix for _ in range(4)]
    assert all(np.array_equal(found[0], one) for one in found[1:])


def test_a_pose_that_shows_nothing_tells_nothing() -> None:
    pair = _Pair.of(template(), other(np.eye(4)), 4.0)
    assert pair.evaluate([off_by((0, 0, 0), (500, 0, 0))])[0] == pytest.approx(0, abs=1e-6)


def test_the_nearest_rotation_of_a_scaled_one_is_that_rotation() -> None:
    turn = off_by((10, 20, -5), (3, 4, 5))
    centre = np.array([10.0, -20.0, 30.0])
    found = nearest_rigid(turn @ np.diag([1.1, 0.9, 1.2, 1.0]), centre)
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(found[:3, :3], turn[:3, :3], atol=1e-9)
    np.testing.assert_allclose(found @ [*centre, 1], turn @ np.diag([1.1, 0.9, 1.2, 1.0]) @ [*centre, 1], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "turn",
    [
        pytest.param((0, 0, 180), id="back to front"),
        pytest.param((180, 0, 0), id="upside down", marks=pytest.mark.long),
    ],
)
def test_a_header_that_is_wrong_by_half_a_turn_is_told(turn: tuple[float, float, float]) -> None:
    """The descent from such a header ends at a pose whose outline fits nearly as well."""
    moving = other(off_by(turn, (0, 0, 0)) @ off_by((8, -6, 5), (0, 0, 0)))
    pair = _Pair.of(moving, template(), 4.0)
    header = off_by((0, 0, 0), (template().centre_mm - moving.centre_mm).tolist())
    fitted = pair.optimise(pair.optimise(header, step_mm=2.0).matrix, step_mm=1.0, affine=True)
    assert _turned(pair, moving, template(), fitted.matrix) > 1


@pytest.mark.slow
def test_upright_tells_of_a_header_with_a_mirrored_axis() -> None:
    found = upright(other(np.diag([1.0, -1.0, 1.0, 1.0])), template())
    assert found.turned > 1.2


@pytest.mark.slow
@pytest.mark.long
def test_upright_does_not_doubt_a_header_that_is_right_although_the_head_is_tilted() -> None:
    assert upright(other(off_by((8, -6, 5), (0, 0, 0))), template()).turned < 0.8


def test_square_turns_are_the_other_23_rotations_of_a_cube() -> None:
    turns = _square_turns()
    assert len({turn.tobytes() for turn in turns}) == 23
    for turn in turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        assert not np.allclose(turn, np.eye(3))


@lru_cache(maxsize=2)
def lopsided(fluid_is_bright: bool) -> Head:
    """The brain of the template, which is its own mirror image, with convolutions that are not."""
    head, edges = template(), 12 // _EVERY
    coarse = np.random.default_rng(1).normal(0, 60, [-(-edge // edges) for edge in head.values.shape])
    pattern = resample(coarse, Grid(coarse.shape, head.grid.affine @ np.diag([edges, edges, edges, 1])), head.grid)
    values = 300 - head.values - pattern if fluid_is_bright else head.values + pattern
    return replace(head, values=np.where(head.brain, values, 0).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("exchanged", [False, True])
def test_a_modality_whose_left_is_right_is_told(exchanged: bool) -> None:
    fixed, moving = lopsided(False), lopsided(True)
    if exchanged:
        moving = replace(moving, values=moving.values[::-1], brain=moving.brain[::-1])
    found = mirror_similarity(fixed, moving, np.eye(4), np.eye(4))
    assert found > 1.2 if exchanged else found < 0.9
