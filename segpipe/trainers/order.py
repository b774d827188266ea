"""Which slices make up each step of an epoch: a pure function of seed and epoch, whatever the number of workers.

A global batch has as many lanes as slices. Each lane walks through its own run of the training slices, row group by row
group, so that a worker, who serves every size-th lane, streams. The first lanes hold the slices with a label, the
others those without; the kind that runs out first starts over, which is how foreground is oversampled. Each slice is
used at least once an epoch.
"""

import math
from itertools import pairwise

import numpy as np

from segpipe.trainers.contract import SliceIndex


def foreground_lanes(slices: SliceIndex, batch_size: int, share: float) -> int:
    """How many lanes of a batch hold slices with a label: their natural share, but at least `share`."""
    labelled = int(slices.foreground.sum())
    if labelled in (0, len(slices)) or batch_size == 1:
        return batch_size if labelled == len(slices) else 0
    wanted = max(math.ceil(share * batch_size), round(labelled / len(slices) * batch_size))
    return min(max(wanted, 1), batch_size - 1)


def steps_for_all(slices: SliceIndex, batch_size: int, share: float) -> int:
    """The number of steps in which every slice is used at least once."""
    labelled = int(slices.foreground.sum())
    lanes = foreground_lanes(slices, batch_size, share)
    kinds = [(labelled, lanes), (len(slices) - labelled, batch_size - lanes)]
    if batch_size == 1:
        kinds = [(len(slices), 1)]
    return max(math.ceil(count / width) for count, width in kinds if width)


def epoch_order(slices: SliceIndex, batch_size: int, share: float, steps: int, seed: int, epoch: int) -> np.ndarray:
    """The slices of each step and lane: (steps, batch_size) int64 indices into `slices`."""
    rng = np.random.default_rng((seed, epoch))
    place_of_group = rng.permutation(int(slices.group.max()) + 1)
    shuffled = rng.permutation(len(slices))
    walk = shuffled[np.argsort(place_of_group[slices.group[shuffled]], kind="stable")]
    lanes = foreground_lanes(slices, batch_size, share)
    labelled = slices.foreground[walk]
    if lanes in (0, batch_size):
        return _lanes(walk, batch_size, steps)
    return np.concatenate(
        [_lanes(walk[labelled], lanes, steps), _lanes(walk[~labelled], batch_size - lanes, steps)], axis=1
    )


def _lanes(walk: np.ndarray, lanes: int, steps: int) -> np.ndarray:
    """A walk cut into `lanes` runs of (nearly) equal length, each repeated or cut to `steps`: (steps, lanes)."""
    bounds = [len(walk) * lane // lanes for lane in range(lanes + 1)]
    runs = [walk[start:stop] if stop > start else walk[start - 1 :][:1] for start, stop in pairwise(bounds)]
    return np.stack([np.resize(run, steps) for run in runs], axis=1)
