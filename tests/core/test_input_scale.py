"""Rules of scaling, on numbers that can be computed in the head."""

import numpy as np
import pytest

from segpipe.core.input_scale import Scaling, scale_channels
from segpipe.core.resize import resize

VALUES = np.array([0.0, 2, 4, 6, 8])
CASES = {
    "z over all": (Scaling(), (VALUES - 4) / np.sqrt(8)),
    "z over what is not 0": (Scaling("zscore", "non-zero"), (VALUES - 5) / np.sqrt(5)),
    "z, the rest 0": (Scaling("zscore", "non-zero", "zero"), np.array([0.0, -3, -1, 1, 3]) / np.sqrt(5)),
    "z over the brain": (Scaling("zscore", "brain"), (VALUES - 3) / 2),
    "percentiles": (Scaling("percentiles", low=25, high=75), (VALUES - 2) / 4),
    "percentiles of what is not 0": (Scaling("percentiles", "non-zero", low=0, high=100), (VALUES - 2) / 6),
    "percentiles, clipped": (Scaling("percentiles", low=25, high=75, clip=True), np.array([0, 0, 0.5, 1, 1])),
    "range": (Scaling("range", low=0, high=4, to_low=-1, to_high=1), VALUES / 2 - 1),
    "fixed": (Scaling("fixed", low=1, high=6, mean=2, std=2), np.array([-0.5, 0, 1, 2, 2])),
    "none": (Scaling("none"), VALUES),
}


@pytest.mark.parametrize(("rule", "wanted"), CASES.values(), ids=CASES.keys())
def test_rules(rule: Scaling, wanted: np.ndarray) -> None:
    assert not rule.faults()
    found = scale_channels(VALUES.reshape(1, 1, 1, -1), (rule,), ((3.0, 2.0),))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-6)


def test_where_some_channel_is_not_zero_holes_filled() -> None:
    one, other = np.zeros((2, 5, 5, 5))
    one[1:4, 1:4, 1:4] = 3
    one[2, 2, 2] = 0  # a hole of both
    other[1, 1, 1] = 27
    rule = Scaling("zscore", "any-non-zero", "zero")
    found = scale_channels(np.stack([one, other]), (rule, rule), ((0.0, 1.0),) * 2)
    inside = found[1] != 0
    assert inside.sum() == 27
    assert inside[2, 2, 2]
    assert found[1][inside].mean() == pytest.approx(0, abs=1e-6)
    assert found[1][inside].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["zscore", "percentiles", "range"])
@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_constant_and_not_finite_channels_stay_finite(method: str, value: float) -> None:
    rule = Scaling(method, low=1, high=99) if method != "zscore" else Scaling()
    found = scale_channels(np.full((1, 2, 2, 2), value), (rule,), ((np.nan, 0.0),))
    assert np.isfinite(found).all()
    assert np.unique(found).size == 1


def test_resizing_keeps_a_ramp_and_the_mean() -> None:
    ramp = np.arange(12.0).reshape(1, 12, 1) * np.ones((2, 1, 3))
    fine = resize(ramp, (24, 3))
    np.testing.assert_allclose(fine[0, 2:-2, 0], np.arange(24)[2:-2] / 2 - 0.25, rtol=1e-6)
    np.testing.assert_allclose(resize(fine, (12, 3))[0, 1:-1, 0], np.arange(1, 11), rtol=1e-6)
    assert resize(ramp, (12, 3)).dtype == np.float32
    with pytest.raises(ValueError, match="at least one voxel"):
        resize(ramp, (0, 3))
