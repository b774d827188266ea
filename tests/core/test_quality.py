"""Flags of masks whose state is plain to see."""

import numpy as np
import pytest

from segpipe.core.quality import qc_flags

SHAPE = (12, 12, 12)


def cube(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


MIDDLE = (slice(4, 8), slice(4, 8), slice(4, 8))
CORNER_MM = (slice(1, 5), slice(1, 5), slice(1, 5))
APART = (slice(7, 11), slice(7, 11), slice(7, 11))
SPECK = (slice(10, 11), slice(10, 11), slice(10, 11))


@pytest.mark.parametrize(
    ("mask", "volume_ml", "probability", "flags"),
    [
        pytest.param(cube(MIDDLE), 50.0, 0.9, [], id="sound"),
        pytest.param(cube(), 0.0, None, [], id="empty"),
        pytest.param(cube((slice(4, 12), *MIDDLE[1:])), 50.0, 0.9, ["touches_border"], id="last slice"),
        pytest.param(cube((*MIDDLE[:2], slice(0, 8))), 50.0, 0.9, ["touches_border"], id="first column"),
        pytest.param(cube(CORNER_MM, APART), 50.0, 0.9, [], id="two halves"),
        pytest.param(cube(MIDDLE, SPECK), 50.0, 0.9, [], id="a speck beside"),
        pytest.param(
            cube(*((slice(x, x + 2), slice(4, 6), slice(4, 6)) for x in (1, 4, 7))),
            50.0,
            0.9,
            ["disconnected"],
            id="three thirds",
        ),
        pytest.param(cube(MIDDLE), 0.05, 0.9, ["implausible_volume"], id="too small"),
        pytest.param(cube(MIDDLE), 501.0, 0.9, ["implausible_volume"], id="more than half of the brain"),
        pytest.param(cube(MIDDLE), 50.0, 0.65, ["low_confidence"], id="unsure"),
        pytest.param(cube(MIDDLE), 50.0, None, [], id="probability unknown"),
        pytest.param(
            np.ones(SHAPE, bool),
            1000.0,
            0.5,
            ["touches_border", "implausible_volume", "low_confidence"],
            id="everything",
        ),
    ],
)
def test_flags(mask: np.ndarray, volume_ml: float, probability: float | None, flags: list[str]) -> None:
    assert qc_flags(mask, volume_ml, brain_ml=1000.0, mean_probability=probability) == flags
