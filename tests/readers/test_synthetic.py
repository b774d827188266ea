import hashlib

import numpy as np
import pytest
from scipy import ndimage

from segpipe.core import intensity, metrics
from segpipe.core.orientation import axis_codes
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.readers import synthetic
from segpipe.readers.synthetic import MODALITIES, glioma

SHAPE = (32, 64, 64)
SEEDS = range(12)


@pytest.fixture(scope="module")
def cohort():
    return [glioma(np.random.default_rng(seed), SHAPE) for seed in SEEDS]


def digest(scan):
    arrays = [scan.mask, scan.affine, *(scan.images[modality] for modality in MODALITIES)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_the_rng_alone_decides():
    digests = [digest(glioma(np.random.default_rng(seed), (16, 32, 32))) for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


def test_a_scan_is_like_one_of_brats(cohort):
    for scan in cohort:
        assert tuple(scan.images) == MODALITIES
        assert all((image.dtype, image.shape) == (np.int16, SHAPE) for image in scan.images.values())
        assert (scan.mask.dtype, scan.mask.shape) == (np.uint8, SHAPE)
        assert axis_codes(scan.affine) == "SPL"
        assert axis_codes(scan.affine[:, [2, 1, 0, 3]]) == "LPS"
        assert set(np.unique(scan.mask)) <= {0, 1, 2, 4}


def test_background_is_exactly_0_and_the_same_in_every_modality(cohort):
    for scan in cohort:
        brains = [image > 0 for image in scan.images.values()]
        assert all(np.array_equal(brain, brains[0]) for brain in brains)
        assert min(image.min() for image in scan.images.values()) == 0
        np.testing.assert_array_equal(intensity.brain_mask(list(scan.images.values())), brains[0])
        assert not (scan.mask[~brains[0]]).any()


def test_brains_have_the_size_of_brains(cohort):
    for scan in cohort:
        brain = scan.images["t1"] > 0
        assert 1000 < metrics.volume_ml(brain, scan.affine) < 1900
        low, high = np.array(metrics.box_mm(brain, scan.affine)).reshape(2, 3)
        assert ((high - low > (110, 140, 100)) & (high - low < (155, 190, 150))).all()
        assert metrics.lesions(brain) == 1


def test_brains_stay_within_the_field_of_view(cohort):
    """Only the brainstem may go on below the lowest slice, as it does in real scans."""
    for scan in cohort:
        brain = scan.images["t1"] > 0
        faces = [np.take(brain, side, axis=axis) for axis in range(3) for side in (0, -1)]
        assert not any(face.any() for face in faces[1:])


def test_tumours_have_the_size_of_tumours_and_vary(cohort):
    volumes = [metrics.volume_ml(scan.mask > 0, scan.affine) for scan in cohort]
    assert min(volumes) > 4
    assert max(volumes) < 260
    assert np.std(volumes) > 10


def test_regions_are_nested_shells(cohort):
    for scan in cohort:
        whole, core, enhancing = np.moveaxis(to_regions(scan.mask, CONVENTIONS["brats"]).astype(bool), -1, 0)
        assert ndimage.label(whole)[1] == 1
        assert 0 < core.sum() < whole.sum()
        assert enhancing.sum() < core.sum()
        necrotic = core & ~enhancing
        if enhancing.any():
            depth = ndimage.distance_transform_edt(core, scan.spacing_mm)
            assert depth[necrotic].mean() > depth[enhancing].mean()


def test_tumours_are_irregular(cohort):
    """A ball fills its ellipsoid of inertia; an irregular one leaves room there."""
    fills = []
    for scan in cohort:
        points = np.argwhere(scan.mask > 0) * scan.spacing_mm
        spread = np.linalg.eigvalsh(np.cov(points.T))
        ellipsoid_ml = 4 / 3 * np.pi * np.sqrt(5**3 * spread.prod()) / 1000
        fills.append(metrics.volume_ml(scan.mask > 0, scan.affine) / ellipsoid_ml)
    assert np.median(fills) < 0.95


def test_contrasts_are_those_of_glioma(cohort):
    for scan in cohort:
        healthy = ndimage.binary_erosion(scan.images["t1"] > 0, iterations=2) & (scan.mask == 0)
        means = {
            modality: {label: image[scan.mask == label].mean() for label in np.unique(scan.mask) if label}
            | {0: np.median(image[healthy])}
            for modality, image in scan.images.items()
        }
        assert means["flair"][2] > 1.15 * means["flair"][0]
        assert means["t2"][2] > 1.1 * means["t2"][0]
        assert means["t1ce"][1] < 0.9 * means["t1ce"][0]
        assert means["t1"][2] < np.percentile(scan.images["t1"][healthy], 75)
        if 4 in means["t1ce"]:
            assert means["t1ce"][4] > 1.1 * means["t1ce"][0]
            assert means["t1ce"][4] > 1.4 * means["t1ce"][1]


def test_no_threshold_finds_the_tumour(cohort):
    """The best threshold of the best modality, chosen with the truth in hand, stays far from a good Dice."""
    best = []
    for scan in cohort:
        truth = scan.mask > 0
        scores = [
            metrics.dice(*metrics.counts(image > level, truth))
            for image in scan.images.values()
            for level in np.percentile(image[image > 0], range(50, 100, 2))
        ]
        best.append(max(scores))
    assert 0.3 < np.mean(best) < 0.85


def test_some_tumours_do_not_enhance():
    masks = [glioma(np.random.default_rng(seed), (12, 24, 24)).mask for seed in range(60)]
    plain = sum(not (mask == 4).any() for mask in masks)
    assert 2 <= plain <= 20


def test_tumours_lie_in_either_hemisphere(cohort):
    sides = [metrics.centroid_mm(scan.mask > 0, scan.affine)[0] > 0 for scan in cohort]
    assert 0 < sum(sides) < len(sides)


def test_the_intensity_scale_varies_between_scans_and_modalities(cohort):
    gains = np.array([[np.median(image[image > 0]) for image in scan.images.values()] for scan in cohort])
    assert (gains.max(axis=0) / gains.min(axis=0) > 1.5).all()


def test_given_spacing_is_kept_and_the_tumour_in_view():
    scan = glioma(np.random.default_rng(0), (20, 30, 30), (1.0, 1.0, 1.0))
    assert scan.spacing_mm == (1.0, 1.0, 1.0)
    assert scan.mask.any()


@pytest.mark.parametrize("shape", [(7, 64, 64), (64, 64)])
def test_a_shape_that_holds_no_brain_is_refused(shape):
    with pytest.raises(ValueError, match="at least 8 voxels"):
        glioma(np.random.default_rng(0), shape)


def test_the_tumour_pushes_tissue_outwards():
    spacing = np.array([8.0, 6.0, 6.0])
    points = synthetic._grid((20, 32, 32), spacing)
    middle = np.array([10, 5, 30], np.float32)
    near = np.sqrt(((points - middle[:, None, None, None]) ** 2).sum(axis=0)) < 25
    ratios = []
    for seed in range(20):
        placed = synthetic._deformed(points, spacing, middle, 25.0, np.random.default_rng(seed))[:, near]
        ratios.append(np.std(placed, axis=1).sum() / np.std(points[:, near], axis=1).sum())
    assert np.mean(ratios) < 0.93


def test_a_brain_voxel_without_signal_is_still_above_the_background():
    shape = (16, 48, 48)
    nothing = np.zeros(shape, np.float32)
    anatomy = synthetic._Anatomy(np.ones(shape, bool), nothing, nothing, nothing, nothing)
    shares = dict.fromkeys(synthetic._TISSUES, nothing)
    image = synthetic._image("t1", shares, anatomy, np.ones(3), np.random.default_rng(0))
    assert image.min() == 1


@pytest.mark.parametrize("knot_mm", [5, 16])
def test_smooth_noise_has_deviation_1_and_changes_its_sign_about_every_third_knot(knot_mm):
    noise = synthetic._smooth((60, 160, 160), np.array([2.0, 1.5, 1.5]), knot_mm, np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, abs=0.1)
    changes = np.diff(noise > 0, axis=1).mean() / 1.5
    assert 1 / changes / knot_mm == pytest.approx(2.8, abs=0.5)
