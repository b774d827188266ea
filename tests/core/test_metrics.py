import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from segpipe.core import metrics
from segpipe.readers.synthetic import glioma
from segpipe.warehouse.tables import SEGMENTATIONS

NAN = pytest.approx(math.nan, nan_ok=True)
EMPTY = np.zeros((4, 5, 6), bool)
SPL = np.array([[0, 0, -0.5, 40], [0, -1, 0, 50], [3, 0, 0, -60], [0, 0, 0, 1]], float)


def cuboid(shape=(12, 20, 24), start=(2, 3, 4), size=(4, 6, 10)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))] = True
    return mask


def sphere(radius_mm, spacing_mm, shift_mm=(0, 0, 0), extent_mm=40):
    axes = [np.arange(-extent_mm, extent_mm, mm) for mm in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (z - shift_mm[0]) ** 2 + (y - shift_mm[1]) ** 2 + (x - shift_mm[2]) ** 2 <= radius_mm**2


def small_masks(shape=(3, 5, 5)):
    return hnp.arrays(bool, shape)


spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, 3.0])] * 3)


# Overlap


@pytest.mark.parametrize(
    ("counts", "value"),
    [((10, 0, 0), 1.0), ((1, 1, 1), 0.5), ((0, 5, 0), 0.0), ((0, 0, 5), 0.0), ((6, 2, 2), 0.75), ((0, 0, 0), NAN)],
)
def test_dice_by_hand(counts, value):
    assert metrics.dice(*counts) == value


def test_counts_of_two_shifted_cuboids():
    pred, truth = cuboid(), cuboid(start=(3, 3, 6))
    assert metrics.counts(pred, truth) == (3 * 6 * 8, 240 - 144, 240 - 144)
    assert metrics.dice(*metrics.counts(pred, truth)) == 0.6


@pytest.mark.parametrize("distance", [0, 5, 12, 19])
def test_dice_of_two_spheres_is_that_of_their_lens(distance):
    radius, spacing = 15, (1.5, 1.0, 0.8)
    lens = math.pi * (4 * radius + distance) * (2 * radius - distance) ** 2 / 12
    expected = lens / (4 / 3 * math.pi * radius**3)
    pred, truth = sphere(radius, spacing), sphere(radius, spacing, (0, distance, 0))
    assert metrics.dice(*metrics.counts(pred, truth)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("pred", "truth"), [(EMPTY, EMPTY[1:]), (EMPTY.astype("u1"), EMPTY), (EMPTY, EMPTY.astype(float))]
)
@pytest.mark.parametrize("measure", [metrics.counts, lambda pred, truth: metrics.hd95_mm(pred, truth, (1, 1, 1))])
def test_masks_of_two_grids_or_of_numbers_are_refused(measure, pred, truth):
    with pytest.raises(ValueError, match="masks"):
        measure(pred, truth)


# Distance


def naive_hd95(pred, truth, spacing):
    def directed(one, other):
        surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
        return np.percentile(ndimage.distance_transform_edt(~surfaces[1], spacing)[surfaces[0]], 95)

    return max(directed(pred, truth), directed(truth, pred))


@given(small_masks(), small_masks(), spacings)
def test_hd95_equals_the_distance_transform_on_the_whole_grid(pred, truth, spacing):
    assume(pred.any() and truth.any())
    assert metrics.hd95_mm(pred, truth, spacing) == pytest.approx(naive_hd95(pred, truth, spacing), abs=1e-9)


@given(small_masks(), small_masks(), spacings)
def test_hd95_is_symmetric_and_nan_exactly_where_a_mask_is_empty(pred, truth, spacing):
    there, back = metrics.hd95_mm(pred, truth, spacing), metrics.hd95_mm(truth, pred, spacing)
    assert there == pytest.approx(back, nan_ok=True)
    assert math.isnan(there) == (not (pred.any() and truth.any()))


def test_hd95_of_a_mask_with_itself_is_0():
    assert metrics.hd95_mm(cuboid(), cuboid(), (3, 1, 0.5)) == 0


@pytest.mark.parametrize(("axis", "steps", "distance"), [(0, 2, 6.0), (1, 3, 3.0), (2, 4, 2.0)])
def test_hd95_of_shifted_sheets_is_their_distance_in_mm(axis, steps, distance):
    size = [6, 6, 6]
    size[axis] = 1
    start = [2, 3, 4]
    pred = cuboid(start=start, size=size)
    start[axis] += steps
    assert metrics.hd95_mm(pred, cuboid(start=start, size=size), (3, 1, 0.5)) == distance


def test_hd95_of_concentric_spheres_is_the_difference_of_their_radii():
    spacing = (1.5, 1.0, 1.0)
    assert metrics.hd95_mm(sphere(20, spacing), sphere(12, spacing), spacing) == pytest.approx(8, abs=1.0)


@pytest.mark.parametrize(("outliers", "value"), [(1, 0.0), (5, 0.0), (6, 37.5), (7, 50.0)])
def test_hd95_forgives_five_in_a_hundred_surface_voxels(outliers, value):
    """Of 106 sorted distances the percentile lies at rank 99.75, between the last 0 and the first 50."""
    truth = np.zeros((12, 20, 20), bool)
    truth[0, :10, :10] = True
    pred = truth.copy()
    pred[10, 0, :outliers] = True
    assert metrics.hd95_mm(pred, truth, (5, 1, 1)) == value


def test_hd95_takes_the_worse_direction_and_does_not_pool_them():
    truth = np.zeros((21, 10, 10), bool)
    truth[0] = True
    pred = np.zeros_like(truth)
    pred[0, 0, 0] = pred[20, 0, 0] = True
    there = 0.95 * 20
    assert metrics.hd95_mm(pred, truth, (1, 0.1, 0.1)) == pytest.approx(there)


# Size and place


def test_volume_of_a_cuboid():
    assert metrics.volume_ml(cuboid(), SPL) == pytest.approx(240 * 1.5 / 1000)
    assert metrics.volume_ml(EMPTY, SPL) == 0


def test_volume_of_a_sphere():
    affine = np.diag([1.5, 1.0, 0.8, 1])
    assert metrics.volume_ml(sphere(15, (1.5, 1.0, 0.8)), affine) == pytest.approx(4 / 3 * math.pi * 3.375, rel=0.01)


def test_volume_of_sheared_voxels_is_their_determinant():
    affine = np.eye(4)
    affine[0, 1] = 1
    assert metrics.volume_ml(cuboid(), affine) == pytest.approx(0.24)


def test_centroid_and_box_of_a_cuboid_are_in_ras():
    mask = cuboid()
    assert metrics.centroid_mm(mask, SPL) == pytest.approx((40 - 0.5 * 8.5, 50 - 5.5, -60 + 3 * 3.5))
    assert metrics.box_mm(mask, SPL) == pytest.approx((40 - 0.5 * 13, 50 - 8, -54, 40 - 0.5 * 4, 50 - 3, -45))


def test_box_of_a_turned_grid_is_that_of_its_voxels_not_of_its_corners():
    turn = math.sqrt(0.5)
    affine = np.array([[1, 0, 0, 0], [0, turn, -turn, 0], [0, turn, turn, 0], [0, 0, 0, 1]])
    mask = np.zeros((1, 5, 5), bool)
    mask[0, range(5), range(5)] = True
    assert metrics.box_mm(mask, affine) == pytest.approx((0, 0, 0, 0, 0, 8 * turn), abs=1e-12)


@pytest.mark.parametrize(
    ("second", "number"),
    [((1, 1, 1), 1), ((1, 2, 2), 1), ((2, 2, 2), 1), ((3, 1, 1), 2), ((1, 3, 1), 2), ((3, 3, 3), 2)],
    ids=str,
)
def test_lesions_are_joined_by_faces_edges_and_corners(second, number):
    mask = np.zeros((5, 5, 5), bool)
    mask[1, 1, 1] = mask[second] = True
    assert metrics.lesions(mask) == number


def test_an_empty_mask_has_no_lesions_and_no_place():
    assert metrics.lesions(EMPTY) == 0
    assert metrics.centroid_mm(EMPTY, SPL) is None
    assert metrics.box_mm(EMPTY, SPL) is None
    assert metrics.diameters_mm(EMPTY, (1, 1, 1)) == (NAN, NAN)


# Diameters


def plane(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])[None]


@pytest.mark.parametrize(
    ("mask", "spacing", "expected"),
    [
        (plane("#"), (1, 2, 2), (2, 2)),
        (plane("#"), (9, 2, 3), (3, 2)),
        (plane("#######"), (1, 2, 1.5), (7 * 1.5, 2)),
        (plane(".#.", "###", ".#."), (1, 1, 1), (3, 3)),
        (plane(".#.", ".#.", "###", ".#.", ".#."), (1, 1, 1), (5, 3)),
        (plane("##########", *["##########"] * 5), (1, 1, 0.5), (7.5, None)),
        (plane("#......", "######."), (1, 0.001, 1), (6, None)),
        (plane("#...####"), (1, 1, 1), (4, 1)),
    ],
    ids=["voxel", "flat voxel", "row", "plus", "cross", "rectangle", "corner", "largest component"],
)
def test_diameters_by_hand(mask, spacing, expected):
    longest, perpendicular = metrics.diameters_mm(mask, spacing)
    assert longest == pytest.approx(expected[0], abs=1e-3)
    if expected[1] is not None:
        assert perpendicular == pytest.approx(expected[1])


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90])
def test_diameters_of_an_ellipsoid_are_its_axes_in_the_widest_slice(degrees):
    z, y, x = np.meshgrid(np.arange(-10, 11), np.arange(-40, 41), np.arange(-40, 41), indexing="ij")
    turn = np.deg2rad(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    mask = (along / 30) ** 2 + (across / 12) ** 2 + (z / 8) ** 2 <= 1
    longest, perpendicular = metrics.diameters_mm(mask, (2, 1, 1))
    assert longest == pytest.approx(60, abs=1.2)
    assert perpendicular == pytest.approx(24, abs=1.2)


def naive_diameters(component, spacing):
    """Every pair of face middles, and chords clipped by the hull's half-planes."""
    pixels = np.argwhere(component)
    middles = np.concatenate([pixels + step for step in ([0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5])]) * spacing
    longest = pdist(middles).max()
    hull = ConvexHull(middles)
    best = 0.0
    for start in middles:
        for end in middles[np.abs(np.linalg.norm(middles - start, axis=1) - longest) < 1e-9]:
            across = np.array([[0, -1], [1, 0]]) @ (end - start) / longest
            slopes = hull.equations[:, :2] @ across
            for corner in middles[hull.vertices]:
                room = -(hull.equations[:, :2] @ corner + hull.equations[:, 2])
                high = np.min(room[slopes > 1e-12] / slopes[slopes > 1e-12])
                low = np.max(room[slopes < -1e-12] / slopes[slopes < -1e-12])
                best = max(best, high - low)
    return longest, best


@given(hnp.arrays(bool, (5, 6)), st.sampled_from([0.6, 1.0, 2.5]), st.sampled_from([0.6, 1.0, 1.3]))
def test_diameters_equal_a_search_over_all_pairs(mask, row_mm, column_mm):
    parts, number = ndimage.label(mask, np.ones((3, 3)))
    assume(number)
    sizes = np.bincount(parts.ravel())[1:]
    largest = parts == 1 + np.argmax(sizes)
    found = metrics.diameters_mm(largest[None], (1, row_mm, column_mm))
    assert found == pytest.approx(naive_diameters(largest, (row_mm, column_mm)), abs=1e-6)


@pytest.mark.parametrize("mask", [plane("##..", "##..", "#.#."), plane(".#.#", "#.#.", "...#")], ids=["one", "other"])
@pytest.mark.parametrize("flip", [np.s_[:, :, :], np.s_[:, ::-1, :], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]], ids=str)
def test_of_two_equally_long_diameters_that_with_the_longer_perpendicular_counts(mask, flip):
    found = metrics.diameters_mm(mask[flip], (1, 1, 1))
    assert found == pytest.approx(naive_diameters(mask[0], (1, 1)))


@given(small_masks(), spacings)
def test_diameters_of_a_scan_are_those_of_its_best_slice(mask, spacing):
    assume(mask.any())
    alone = [metrics.diameters_mm(mask[k : k + 1], spacing) for k in range(len(mask)) if mask[k].any()]
    longest = max(diameters.longest for diameters in alone)
    perpendicular = max(d.perpendicular for d in alone if d.longest > longest - 1e-9)
    assert metrics.diameters_mm(mask, spacing) == pytest.approx((longest, perpendicular))


@pytest.mark.parametrize("seed", range(4))
def test_diameters_of_a_lesion_are_those_of_its_best_slice(seed):
    """Here the bounds leave most slices out."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(14, 60, 70)), (1, 5, 5))
    mask, spacing = noise > 0.01, (2.0, 0.8, 1.1)
    alone = [metrics.diameters_mm(mask[k : k + 1], spacing) for k in range(len(mask))]
    best = max(alone, key=lambda diameters: diameters.longest)
    assert metrics.diameters_mm(mask, spacing) == pytest.approx(best, abs=1e-9)


# All at once


@given(small_masks())
def test_measure_says_what_each_measure_says(mask):
    found = metrics.measure(mask, SPL.ravel().tolist())
    assert found.voxels == mask.sum()
    assert found.volume_ml == metrics.volume_ml(mask, SPL)
    assert found.lesions == metrics.lesions(mask)
    diameters = found.longest_diameter_mm, found.perpendicular_diameter_mm
    assert diameters == pytest.approx(metrics.diameters_mm(mask, (3, 1, 0.5)), nan_ok=True)
    if mask.any():
        assert found.centroid_mm == pytest.approx(metrics.centroid_mm(mask, SPL))
        assert found.box_mm == pytest.approx(metrics.box_mm(mask, SPL))
    else:
        assert found.centroid_mm is found.box_mm is None


def test_compare_by_hand():
    found = metrics.compare(cuboid(), cuboid(start=(3, 3, 6)), SPL)
    assert (found.tp, found.fp, found.fn, found.dice, found.truth_voxels) == (144, 96, 96, 0.6, 240)
    assert found.truth_volume_ml == pytest.approx(0.36)
    assert found.hd95_mm == pytest.approx(naive_hd95(cuboid(), cuboid(start=(3, 3, 6)), (3, 1, 0.5)))


@pytest.mark.parametrize(
    ("pred", "truth", "dice"), [(EMPTY, ~EMPTY, 0), (~EMPTY, EMPTY, 0), (EMPTY, EMPTY, NAN)], ids=str
)
def test_rules_for_empty_masks(pred, truth, dice):
    found = metrics.compare(pred, truth, np.eye(4))
    assert found.dice == dice
    assert math.isnan(found.hd95_mm)


@pytest.mark.parametrize("record", [metrics.Measures, metrics.Agreement])
def test_the_fields_are_columns_of_the_table(record):
    assert {field.name for field in fields(record)} <= set(SEGMENTATIONS.schema.names)


def test_a_tumour_turned_in_the_array_measures_the_same():
    scan = glioma(np.random.default_rng(5), (16, 40, 40))
    mask = scan.mask > 0
    shifted = np.array(mask)[:, ::-1, ::-1]
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, 1] * (mask.shape[1] - 1) + affine[:3, 2] * (mask.shape[2] - 1)
    affine[:3, 1:3] *= -1
    one, other = metrics.measure(mask, scan.affine), metrics.measure(shifted, affine)
    for field in fields(metrics.Measures):
        assert getattr(one, field.name) == pytest.approx(getattr(other, field.name)), field.name
