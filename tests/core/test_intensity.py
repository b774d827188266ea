import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.core import intensity
from segpipe.core.intensity import Statistics


def ball(shape=(12, 14, 16), radius=4.0):
    grid = np.indices(shape).astype(float)
    middle = (np.array(shape) - 1) / 2
    return ((grid - middle[:, None, None, None]) ** 2).sum(axis=0) <= radius**2


def stripped(background, dtype):
    brain = ball()
    image = np.full(brain.shape, background, dtype)
    image[brain] = np.arange(1, brain.sum() + 1) + 50
    return image, brain


@pytest.mark.parametrize(("background", "dtype"), [(0, "i2"), (-1024, ">i2"), (0.0, "f4"), (np.nan, "f4"), (7, "u1")])
def test_the_brain_of_a_stripped_scan_is_what_differs_from_its_background(background, dtype):
    image, brain = stripped(background, dtype)
    image[brain] = 9
    np.testing.assert_array_equal(intensity.brain_mask([image]), brain)


def test_negative_voxels_of_a_stripped_brain_are_brain():
    image, brain = stripped(0, "f4")
    image[brain] -= 60
    assert (image[brain] < 0).any()
    np.testing.assert_array_equal(intensity.brain_mask([image]), brain & (image != 0))


def test_a_brain_that_reaches_the_border_is_still_told_from_its_background():
    image, brain = stripped(0, "i2")
    image[0, 2:10, 2:10] = 100
    brain[0, 2:10, 2:10] = True
    np.testing.assert_array_equal(intensity.brain_mask([image]), brain)


def test_the_brain_is_the_union_over_modalities():
    first, brain = stripped(0, "i2")
    second = first.copy()
    first[:6], second[6:] = 0, 0
    np.testing.assert_array_equal(intensity.brain_mask([first, second]), brain)


def test_a_modality_with_skull_does_not_widen_the_brain_of_stripped_ones():
    image, brain = stripped(0, "i2")
    noisy = np.random.default_rng(0).integers(1, 500, brain.shape).astype("i2")
    np.testing.assert_array_equal(intensity.brain_mask([noisy, image]), brain)


def test_without_stripping_the_head_is_what_stands_out_of_the_noise():
    rng = np.random.default_rng(1)
    head = ball((20, 24, 24), 8)
    image = np.where(head, rng.normal(400, 40, head.shape), np.abs(rng.normal(0, 15, head.shape))).astype("f4")
    image[0, 0, 0] = 1e6
    found = intensity.brain_mask([image])
    assert (found != head).sum() <= 2


def test_voxels_that_are_not_finite_are_no_brain():
    image, brain = stripped(0, "f4")
    spots = np.argwhere(brain)[:2]
    image[tuple(spots[0])], image[tuple(spots[1])] = np.nan, np.inf
    expected = brain.copy()
    expected[tuple(spots.T)] = False
    np.testing.assert_array_equal(intensity.brain_mask([image]), expected)


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_a_constant_volume_has_no_brain(value):
    assert not intensity.brain_mask([np.full((4, 4, 4), value, "f4")]).any()


@pytest.mark.parametrize("channels", [[], [np.zeros((2, 2))], [np.zeros((2, 2, 2)), np.zeros((2, 2, 3))]])
def test_modalities_on_no_common_3d_grid_are_refused(channels):
    with pytest.raises(ValueError, match="not one 3D grid"):
        intensity.brain_mask(channels)


def plain_statistics(values):
    exact = values.astype(np.float64)
    percentiles = np.percentile(exact, (0, 1, 50, 99, 100))
    return [exact.size, exact.mean(), exact.std(), *percentiles]


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", "i4", ">f4", "f8"])
@given(data=st.data())
def test_statistics_equal_numpys(dtype, data):
    elements = st.integers(0, 100) if dtype in ("i1", "u1") else st.integers(0, 30_000)
    if dtype in ("i1", "<i2", ">i2", "i4"):
        elements = elements.map(lambda value: value - 27)
    values = data.draw(hnp.arrays(dtype, st.integers(1, 60), elements=elements))
    found = intensity.statistics(values)
    names = ("voxels", "mean", "std", "min", "p01", "median", "p99", "max")
    np.testing.assert_allclose([getattr(found, name) for name in names], plain_statistics(values), rtol=1e-9, atol=1e-9)


def test_statistics_cover_the_whole_range_of_16_bits():
    found = intensity.statistics(np.array([-32768, 32767], "i2"))
    assert (found.min, found.max, found.median) == (-32768.0, 32767.0, -0.5)


def test_statistics_pass_over_what_is_not_finite():
    found = intensity.statistics(np.array([1, np.nan, 3, np.inf, -np.inf], "f4"))
    assert (found.voxels, found.mean, found.max) == (2, 2.0, 3.0)


@pytest.mark.parametrize("values", [np.array([], "i2"), np.array([np.nan], "f4")], ids=["none", "nan"])
def test_statistics_of_nothing_are_nan(values):
    found = intensity.statistics(values)
    assert found.voxels == 0
    assert np.isnan([found.mean, found.std, found.min, found.max]).all()


@given(hnp.arrays("i2", st.integers(1, 40)), st.floats(-3, 3), st.floats(-100, 100))
def test_scaled_statistics_are_those_of_scaled_values(values, slope, inter):
    found = intensity.statistics(values).scaled(slope, inter)
    wanted = intensity.statistics(values.astype(np.float64) * slope + inter)
    for name in Statistics.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-6, err_msg=name)


def test_normalised_brain_has_mean_0_and_deviation_1_per_channel():
    image = np.random.default_rng(0).normal((5, 900), (2, 70), (30, 30, 2)).astype("f4")
    result = intensity.normalise(image, image.mean(axis=(0, 1)), image.std(axis=(0, 1)))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(result.std(axis=(0, 1)), 1, atol=1e-4)


@given(
    hnp.arrays("f4", 5, elements=st.floats(width=32)),
    st.floats(allow_nan=True, width=32),
    st.floats(allow_nan=True, width=32),
)
def test_normalise_is_finite_whatever_comes(image, mean, std):
    untouched = image.copy()
    assert np.isfinite(intensity.normalise(image, mean, std)).all()
    np.testing.assert_array_equal(image, untouched)


@pytest.mark.real
@pytest.mark.parametrize("folder", ["brats2021/BraTS2021_00006", "open_ms/xs_patient07"])
def test_the_brain_of_real_stripped_scans_is_all_that_is_not_zero(real_data, folder):
    import nibabel as nib

    files = [
        path for path in (real_data / folder).glob("*.nii.gz") if "seg" not in path.name and "GOLD" not in path.name
    ]
    assert len(files) == 4
    channels = [np.asarray(nib.load(path).dataobj).T for path in sorted(files)]
    brain = intensity.brain_mask(channels)
    np.testing.assert_array_equal(brain, np.any([channel != 0 for channel in channels], axis=0))
    assert 1000 < np.count_nonzero(brain) / 1000 < 1900
