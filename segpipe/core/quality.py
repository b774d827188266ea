"""What is suspicious about a predicted region: the `qc_flags` of `segmentations`."""

import numpy as np

from segpipe.core.runs import Runs

TOUCHES_BORDER = "touches_border"
DISCONNECTED = "disconnected"
IMPLAUSIBLE_VOLUME = "implausible_volume"
LOW_CONFIDENCE = "low_confidence"

LEAST_MAIN_SHARE = 0.5
LEAST_VOLUME_ML = 0.1
MOST_BRAIN_SHARE = 0.5
LEAST_PROBABILITY = 0.7


def qc_flags(mask: np.ndarray | Runs, volume_ml: float, brain_ml: float, mean_probability: float | None) -> list[str]:
    """Flags of a region's mask, bool (S, H, W) or its Runs; none for an empty one.

    `touches_border`: a voxel lies on the outermost layer of the volume, so that some may lie beyond it.
    `disconnected`: the largest of its 26-connected parts holds less than half of it. `implausible_volume`:
    below 0.1 ml, or more than half of the brain. `low_confidence`: its mean probability is below 0.7.

    >>> qc_flags(np.ones((1, 1, 1), bool), 0.001, 1000.0, 0.9)
    ['touches_border', 'implausible_volume']
    """
    runs = Runs.of(mask)
    if not runs.voxels:
        return []
    found = {
        TOUCHES_BORDER: _touches_border(runs),
        DISCONNECTED: _main_share(runs.components.sizes) < LEAST_MAIN_SHARE,
        IMPLAUSIBLE_VOLUME: not LEAST_VOLUME_ML <= volume_ml <= MOST_BRAIN_SHARE * brain_ml,
        LOW_CONFIDENCE: mean_probability is not None and mean_probability < LEAST_PROBABILITY,
    }
    return [flag for flag, raised in found.items() if raised]


def _main_share(sizes: np.ndarray) -> float:
    """Share of the voxels that the largest connected part holds."""
    return float(sizes.max() / sizes.sum())


def _touches_border(runs: Runs) -> bool:
    return bool((runs.first == 0).any() or (runs.last == np.array(runs.shape)[:, None] - 1).any())
