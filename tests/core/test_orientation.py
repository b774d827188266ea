from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.core import orientation

ALL_CODES = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(("RL", "AP", "SI"))
    for sides in product((0, 1), repeat=3)
]
codes = st.sampled_from(ALL_CODES)
shapes = st.tuples(*[st.integers(1, 5)] * 3)


@st.composite
def affines(draw):
    """An affine of known direction: a signed permutation, tilted by less than 35 degrees, anisotropic, moved."""
    code = draw(codes)
    axes = ["RL", "AP", "SI"]
    linear = np.zeros((3, 3))
    for axis, letter in enumerate(code):
        world = next(place for place, pair in enumerate(axes) if letter in pair)
        linear[world, axis] = 1 if letter in "RAS" else -1
    tilt = np.array(draw(st.tuples(*[st.floats(-0.2, 0.2)] * 3)))
    turn = np.linalg.qr(np.eye(3) + np.cross(np.eye(3), tilt))[0]
    turn *= np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn @ linear * draw(st.tuples(*[st.floats(0.2, 8)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return code, affine


@given(affines())
def test_axis_codes_are_those_of_the_construction_and_of_nibabel(case):
    code, affine = case
    assert orientation.axis_codes(affine) == code == "".join(nib.aff2axcodes(affine))


@given(codes, codes, shapes)
def test_reorient_agrees_with_nibabel(source, target, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(source), nib.orientations.axcodes2ornt(target)
    )
    expected = nib.orientations.apply_orientation(array, change)
    np.testing.assert_array_equal(orientation.reorient(array, source, target), expected)


@given(codes, codes, shapes)
def test_reorient_there_and_back_is_the_same(source, target, shape):
    array = np.arange(np.prod(shape) * 2).reshape(*shape, 2)
    there = orientation.reorient(array, source, target)
    np.testing.assert_array_equal(orientation.reorient(there, target, source), array)
    assert np.shares_memory(there, array)


@given(affines(), codes, shapes, st.data())
def test_a_voxel_keeps_its_place_in_the_world(case, target, shape, data):
    source, affine = case
    index = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    marked = np.zeros(shape)
    marked[index] = 1
    turned = orientation.reorient(marked, source, target)
    moved = np.argwhere(turned)[0]
    new_affine = orientation.reorient_affine(affine, shape, source, target)
    np.testing.assert_allclose(new_affine @ [*moved, 1], affine @ [*index, 1], atol=1e-9)
    assert orientation.axis_codes(new_affine) == target


@given(affines(), codes, shapes)
def test_reorient_affine_there_and_back(case, target, shape):
    source, affine = case
    there = orientation.reorient_affine(affine, shape, source, target)
    turned_shape = orientation.reorient(np.zeros(shape), source, target).shape
    np.testing.assert_allclose(orientation.reorient_affine(there, turned_shape, target, source), affine, atol=1e-9)


@pytest.mark.parametrize(("axis", "code"), orientation.CANONICAL.items())
def test_canonical_pictures_are_radiological(axis, code):
    """Columns of a shown slice run to the patient's left, or to the back in sagittal slices; rows run down or back."""
    down, right = {"axial": "PL", "coronal": "IL", "sagittal": "IP"}[axis]
    assert code[1:] == down + right


@pytest.mark.parametrize(
    "broken", [np.diag([0.0, 1, 1, 1]), np.diag([np.nan, 1, 1, 1]), np.diag([np.inf, 1, 1, 1])], ids=str
)
def test_an_affine_without_direction_is_refused(broken):
    with pytest.raises(ValueError, match="no orientation"):
        orientation.axis_codes(broken)


def test_two_axes_along_one_direction_still_give_three_different_codes():
    affine = np.eye(4)
    affine[:3, :3] = [[1, 1, 0], [0, 0.1, 0], [0, 0, 1]]
    assert sorted(orientation.axis_codes(affine)) == ["A", "R", "S"]


def test_spacing_is_the_length_of_each_column():
    affine = np.eye(4)
    affine[:3, :3] = [[0, 3, 0], [4, 0, 0], [3, 0, 2]]
    np.testing.assert_allclose(orientation.spacing_mm(affine), [5, 3, 2])


def test_same_grid_forgives_the_sign_of_zero_and_rounding_but_no_shift():
    affine = np.diag([-1.0, -1, 1, 1])
    other = affine.copy()
    other[0, 1] = -0.0
    other[0, 3] = 1e-4
    assert orientation.same_grid(affine, other)
    other[0, 3] = 0.5
    assert not orientation.same_grid(affine, other)
