"""The slices that a worker trains on, streamed from the warehouse."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from segpipe.core.augment import augment, augment_patch
from segpipe.core.neighbours import around, as_channels
from segpipe.core.regions import to_regions
from segpipe.trainers.contract import ScanPlan, TrainPlan
from segpipe.trainers.order import epoch_order
from segpipe.trainers.records import telling

if TYPE_CHECKING:
    import tensorflow as tf

Example = tuple[np.ndarray, np.ndarray]

_PREFETCH_BATCHES = 4
_REMEMBERED = 64
CACHE_BYTES = 512 << 20


class Feed:
    """One worker's share of the training slices, epoch after epoch without end.

    It holds the decoded crops of the row groups that its lanes stand in, and of others up to a fixed number of bytes:
    what it needs in memory depends on batch and row group, not on the cohort.
    """

    regions_dtype: type[np.generic] = np.uint8

    def __init__(self, plan: TrainPlan, rank: int, size: int, cache_bytes: int = CACHE_BYTES):
        self._plan = plan
        self._lanes = range(rank, plan.batch_size, size)
        self._groups = RowGroups(plan, cache_bytes, keep=len(self._lanes))
        self._recent: deque[tuple[int, int, list[str]]] = deque(maxlen=_REMEMBERED)

    @property
    def batch_size(self) -> int:
        """Slices of this worker in each step."""
        return len(self._lanes)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Spatial sides of an example; None if they change from epoch to epoch."""
        return (None, None) if self._plan.coarse_epochs else self._plan.crop

    def scans_of(self, epoch: int, step: int) -> list[str]:
        """The scans that a recent step took its slices from; empty when it is too long ago."""
        return next((scans for *when, scans in self._recent if when == [epoch, step]), [])

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Example]]:
        """The batches of an epoch from a step on: lists of image float32 (H, W, C) and regions uint8 (H, W, R).

        In a coarse epoch H and W are half of the crop's. In 3D these are patches, with D slices in front.
        """
        plan, settings = self._plan, self._plan.settings
        share = settings.foreground_share
        order = epoch_order(plan.slices, plan.batch_size, share, plan.steps, settings.seed, epoch)
        for step, lanes in enumerate(order[first_step:], first_step):
            chosen = [int(lanes[lane]) for lane in self._lanes]
            self._recent.append(
                (epoch, step, sorted({plan.scans[plan.slices.scan[place]].scan_id for place in chosen}))
            )
            yield [self._example(place, epoch, step, lane) for lane, place in zip(self._lanes, chosen, strict=True)]

    def dataset(self) -> "tf.data.Dataset":
        """All epochs from where `plan` begins as one endless dataset of batches."""
        import tensorflow as tf

        plan, batch = self._plan, self.batch_size
        shape = self.shape

        def examples() -> Iterator[Example]:
            epoch, step = plan.initial_epoch, plan.initial_step
            with telling(plan.settings.model):
                while True:
                    for examples in self.epoch(epoch, step):
                        yield from examples
                    epoch, step = epoch + 1, 0

        signature = (
            tf.TensorSpec((*shape, plan.channels), tf.float32),
            tf.TensorSpec((*shape, len(plan.regions)), tf.as_dtype(self.regions_dtype)),
        )
        dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        # Nothing here is to be tuned, and whoever lets go of a dataset waits for its tuner: up to a minute.
        options.autotune.enabled = False
        batches = dataset.batch(batch, drop_remainder=True).prefetch(_PREFETCH_BATCHES).with_options(options)
        # Said to be endless, its batches keep their size where Orca distributes them, and workers need not ask each
        # other before each step whether there is one more.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _example(self, place: int, epoch: int, step: int, lane: int) -> Example:
        plan, settings = self._plan, self._plan.settings
        scan = plan.scans[plan.slices.scan[place]]
        rng = np.random.default_rng((settings.seed, epoch, step, lane))
        stored, labels = self._groups.held(int(plan.slices.group[place]))
        # A neighbour that lies in another row group is not read: the last row on that side stands for it.
        rows = around(int(plan.slices.row[place]), settings.neighbours, len(labels))
        image, labels = normalise_stored(stored[rows], scan), labels[rows]
        if epoch < plan.coarse_epochs:
            image, labels = (np.stack(parts) for parts in zip(*map(halve, image, labels), strict=True))
        if settings.neighbours:
            if settings.augment:
                image, labels = augment_patch(image, labels, (len(labels), image.shape[1], image.shape[2]), rng)
            return as_channels(image), to_regions(labels[len(labels) // 2], plan.convention)
        image, labels = augment(image[0], labels[0], rng) if settings.augment else (image[0], labels[0])
        return image, to_regions(labels, plan.convention)


class RowGroups:
    """Decoded crops of row groups, the least recently used given up first.

    At least `keep` row groups stay, however large, because so many are walked through at the same time. A subclass may
    hold something larger than row groups.
    """

    def __init__(self, plan: TrainPlan, cache_bytes: int, keep: int):
        self._plan = plan
        self._limit = cache_bytes
        self._keep = keep
        self._held: OrderedDict[int, Example] = OrderedDict()
        self._bytes = 0
        self._scan_of = {group: scan for scan in plan.scans for group in scan.groups}

    def held(self, group: int) -> Example:
        """All rows of a group: stored voxels (N, H, W, C) of any dtype and labels uint8 (N, H, W)."""
        if group in self._held:
            self._held.move_to_end(group)
        else:
            self._add(group)
        return self._held[group]

    def _read(self, group: int) -> Example:
        return read_group(self._plan, self._scan_of[group], group)

    def _add(self, group: int) -> None:
        images, labels = self._read(group)
        self._held[group] = images, labels
        self._bytes += images.nbytes + labels.nbytes
        while self._bytes > self._limit and len(self._held) > self._keep:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= sum(array.nbytes for array in dropped)


def read_group(plan: TrainPlan, scan: ScanPlan, group: int) -> Example:
    """The slices of a row group, cropped: stored voxels (N, H, W, C) and labels uint8 (N, H, W)."""
    from segpipe.storage.filesystem import filesystem
    from segpipe.warehouse.slices import stream

    path, number = plan.groups[group]
    fs, _ = filesystem(plan.settings.warehouse)
    batches = list(stream(path, fs, [number], ["image", "mask"]))
    images, labels = [], []
    for batch in batches:
        assert batch.image is not None  # asked for, as is the mask
        assert batch.mask is not None
        images.append(np.stack([crop(channel, scan, plan.crop) for channel in batch.image], axis=-1))
        labels.append(crop(batch.mask, scan, plan.crop).astype(np.uint8))
    return np.concatenate(images), np.concatenate(labels)


def crop(slices: np.ndarray, scan: ScanPlan, size: tuple[int, ...]) -> np.ndarray:
    """Slices (N, H, W) cut to `size` around the middle of the scan's brain box; stored zeros outside the image."""
    window = np.zeros((len(slices), *size), slices.dtype)
    (there_rows, here_rows), (there_columns, here_columns) = windows(scan, size)
    window[:, there_rows, there_columns] = slices[:, here_rows, here_columns]
    return window


def uncrop(window: np.ndarray, scan: ScanPlan) -> np.ndarray:
    """The inverse of `crop` for (N, H, W) or (N, H, W, R): zeros around the window."""
    slices = np.zeros((len(window), *scan.shape[1:], *window.shape[3:]), window.dtype)
    (there_rows, here_rows), (there_columns, here_columns) = windows(scan, window.shape[1:3])
    slices[:, here_rows, here_columns] = window[:, there_rows, there_columns]
    return slices


def windows(scan: ScanPlan, size: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """For rows and columns: the part of the window that lies in the image, and the part of the image that it shows."""
    spans = []
    for axis, length in enumerate(size):
        first, last = scan.brain_box[2 + 2 * axis : 4 + 2 * axis]
        limit = scan.shape[1 + axis]
        start = (first + last - length) // 2
        start = min(max(start, 0), limit - length) if length <= limit else (limit - length) // 2
        inside = slice(max(start, 0), min(start + length, limit))
        spans.append((slice(inside.start - start, inside.stop - start), inside))
    return spans


def halve(image: np.ndarray, labels: np.ndarray) -> Example:
    """An image (H, W, C) and its labels (H, W) with half as many rows and columns, both even.

    Four pixels become their mean and the label of the first, whose place the lower levels of the decoder have as well.
    """
    mean = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) * np.float32(0.25)
    return mean, np.ascontiguousarray(labels[::2, ::2])


def normalise_stored(stored: np.ndarray, scan: ScanPlan) -> np.ndarray:
    """Stored voxels (..., C) as float32, normalised over the brain; voxels that are not finite become 0, the mean."""
    image = (stored.astype(np.float32) - scan.mean) * scan.inverse_std
    if stored.dtype.kind == "f":
        np.nan_to_num(image, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return image
