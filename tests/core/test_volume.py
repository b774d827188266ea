import numpy as np
import pytest

from segpipe.core.volume import Volume, scale


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", ">f4", "<f8"])
def test_scale_gives_native_float32(dtype):
    result = scale(np.array([[0, 3]], dtype), 2.0, -1.0)
    assert result.dtype == np.float32
    assert result.dtype.isnative
    assert result.tolist() == [[-1.0, 5.0]]


def test_scale_works_in_double_precision_before_it_rounds():
    stored = np.array([2**31 - 1], "i4")
    assert scale(stored, 1.0, -(2.0**31 - 3)).tolist() == [2.0]


def test_a_volume_scales_by_its_own_slope_and_leaves_its_voxels_alone():
    volume = Volume(np.array([1, 2], ">i2"), np.eye(4), slope=0.5, inter=1.0)
    assert volume.scaled().tolist() == [1.5, 2.0]
    assert volume.voxels.tolist() == [1, 2]
    assert volume.voxels.dtype == ">i2"
