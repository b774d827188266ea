"""Surfaces of shapes whose volume and place are known."""

import numpy as np
import pytest

from segpipe.core.surface import Mesh, surface, thinned, thinned_affine


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """How far each voxel lies inside a ball's surface, negative outside."""
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return radius - np.sqrt(((grid - centre) ** 2).sum(axis=3))


def is_closed(mesh: Mesh) -> bool:
    """Whether every directed edge has exactly one partner in the other direction."""
    edges = np.concatenate([mesh.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    codes = edges @ np.array([len(mesh.vertices), 1])
    back = edges[:, ::-1] @ np.array([len(mesh.vertices), 1])
    return len(np.unique(codes)) == len(codes) and np.array_equal(np.sort(codes), np.sort(back))


def test_ball_has_its_volume_and_its_radius() -> None:
    mesh = surface(ball((30, 34, 38), (14.3, 16.1, 18.8), 11.0), 0.0)
    distances = np.linalg.norm(mesh.vertices - (14.3, 16.1, 18.8), axis=1)
    assert np.abs(distances - 11.0).max() < 0.15
    assert mesh.volume() == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.01)
    assert is_closed(mesh)


def test_one_voxel_is_a_small_closed_body_around_it() -> None:
    field = np.zeros((3, 4, 5))
    field[1, 2, 3] = 1
    mesh = surface(field)
    assert is_closed(mesh)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), (1, 2, 3))
    assert mesh.volume() > 0


def test_shape_that_touches_the_border_is_closed() -> None:
    mesh = surface(np.ones((4, 5, 6)))
    assert is_closed(mesh)
    assert mesh.volume() == pytest.approx(4 * 5 * 6, rel=0.15)  # edges are bevelled


def test_nothing_has_no_surface() -> None:
    mesh = surface(np.zeros((4, 4, 4)))
    assert len(mesh.vertices) == 0
    assert mesh.faces.shape == (0, 3)


@pytest.mark.parametrize(
    "affine", [np.diag([2.0, 3.0, 0.5, 1.0]), np.diag([-2.0, 3.0, 0.5, 1.0])], ids=("kept", "mirrored")
)
def test_faces_look_outwards_after_any_affine(affine: np.ndarray) -> None:
    mesh = surface(ball((20, 20, 20), (9.5, 9.5, 9.5), 7.0), 0.0).moved(affine)
    assert mesh.volume() == pytest.approx(4 / 3 * np.pi * 7**3 * 3, rel=0.03)


def test_a_thinned_volume_stays_in_its_place() -> None:
    affine = np.array([[0, 0, -1.0, 90], [0, -1, 0, 126], [1, 0, 0, -72], [0, 0, 0, 1]])
    fine = ball((40, 45, 50), (19.0, 22.0, 25.0), 15.0)
    steps = (2, 3, 2)
    coarse = surface(thinned(fine, steps), 0.0).moved(thinned_affine(affine, steps))
    centre = affine @ (19.0, 22.0, 25.0, 1.0)
    distances = np.linalg.norm(coarse.vertices - centre[:3], axis=1)
    assert np.abs(distances - 15.0).max() < 0.6
