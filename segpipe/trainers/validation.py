"""Dice per patient in 3D while training; the workers share the scans out."""

from typing import TYPE_CHECKING

import numpy as np

from segpipe.core.metrics import counts, dice
from segpipe.core.neighbours import around, as_channels
from segpipe.core.regions import to_labels, to_regions
from segpipe.core.tiles import predict
from segpipe.trainers.contract import ScanPlan, TrainPlan, WorkerGroup
from segpipe.trainers.feed import crop, normalise_stored, uncrop
from segpipe.trainers.network import whole_network
from segpipe.trainers.patches import box_slices, read_scan

if TYPE_CHECKING:
    import tensorflow as tf

_BATCH = 8


class Validator:
    """Segments the scans of the validation split with a model in training."""

    def __init__(self, plan: TrainPlan, group: WorkerGroup, model: "tf.keras.Model"):
        import tensorflow as tf

        self._plan = plan
        self._group = group
        self._scans = plan.of_split("validation")
        self._tile = plan.crop
        batch = _BATCH if len(plan.crop) == 2 else 1
        signature = [tf.TensorSpec((batch, *self._tile, plan.channels), tf.float32)]
        network = whole_network(plan, model)
        self._infer = tf.function(lambda image: network(image, training=False), input_signature=signature)

    def dice(self) -> dict[str, dict[str, float]]:
        """Dice of each region by scan_id, NaN where truth and prediction are empty; the same on every worker."""
        plan, group = self._plan, self._group
        if not self._scans:
            return {}  # TensorFlow crashes on the sum of nothing over several workers
        table = np.zeros((len(self._scans), len(plan.regions), 3), np.int64)
        for place in range(group.rank, len(self._scans), group.size):
            table[place] = self._count(plan.scans[self._scans[place]])
        table = group.sum(table)
        return {
            plan.scans[scan].scan_id: dict(zip(plan.regions, (dice(*row) for row in rows.tolist()), strict=True))
            for scan, rows in zip(self._scans, table, strict=True)
        }

    def _count(self, scan: ScanPlan) -> np.ndarray:
        from segpipe.storage.filesystem import filesystem
        from segpipe.warehouse.slices import stream

        plan = self._plan
        fs, _ = filesystem(plan.settings.warehouse)
        total = np.zeros((len(plan.regions), 3), np.int64)
        for group in scan.groups:
            path, number = plan.groups[group]
            for batch in stream(path, fs, [number], ["image", "mask", "brain_pixels"]):
                assert batch.image is not None  # asked for, as are the others
                assert batch.mask is not None
                assert batch.brain_pixels is not None
                truth = to_regions(batch.mask, plan.convention).astype(bool)
                found = np.zeros(truth.shape, bool)
                brain = np.flatnonzero(batch.brain_pixels)
                if len(brain):
                    window = np.stack([crop(channel, scan, plan.crop) for channel in batch.image], axis=-1)
                    found[brain] = uncrop(self._segment(normalise_stored(window, scan), brain), scan)
                pairs = (counts(found[..., r], truth[..., r]) for r in range(len(plan.regions)))
                total += np.array([tuple(pair) for pair in pairs])
        return total

    def _nested(self, probability: np.ndarray) -> np.ndarray:
        """Regions bool (..., R) of probabilities, nested as their label map has them."""
        convention = self._plan.convention
        return to_regions(to_labels(probability > self._plan.settings.threshold, convention), convention).astype(bool)

    def _segment(self, image: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Regions bool (N, H, W, R) of N `rows` of normalised slices (..., H, W, C), nested as in their label map."""
        found = []
        for start in range(0, len(rows), _BATCH):
            chosen = rows[start : start + _BATCH]
            padded = np.zeros((_BATCH, *image.shape[1:3], self._plan.channels), np.float32)
            for place, row in enumerate(chosen.tolist()):
                padded[place] = as_channels(image[around(row, self._plan.settings.neighbours, len(image))])
            found.append(self._infer(padded).numpy()[: len(chosen)])
        return self._nested(np.concatenate(found))


class TileValidator(Validator):
    """The same with a 3D network: overlapping tiles of the brain's box, blended."""

    def _count(self, scan: ScanPlan) -> np.ndarray:
        plan = self._plan
        image, labels = read_scan(plan, scan)
        probability = predict(
            image,
            lambda tiles: self._infer(normalise_stored(tiles, scan)).numpy(),
            self._tile,
            plan.settings.tile_overlap,
        )
        truth = to_regions(labels, plan.convention).astype(bool)
        found = np.zeros(truth.shape, bool)
        found[box_slices(scan)] = self._nested(probability)
        return np.array([tuple(counts(found[..., r], truth[..., r])) for r in range(len(plan.regions))])


def mean_dice(scores: dict[str, dict[str, float]], regions: tuple[str, ...]) -> dict[str, float]:
    """The mean over patients of each region, those left out where it is undefined; NaN where it is for all."""
    means = {}
    for region in regions:
        defined = [score[region] for score in scores.values() if not np.isnan(score[region])]
        means[region] = float(np.mean(defined)) if defined else float("nan")
    return means
