"""From slice tables and settings to the plan of a training; what can be refused is refused here."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segpipe.core.prediction import AS_INGESTED, ScanInput
from segpipe.core.regions import CONVENTIONS
from segpipe.core.splits import SplitRule
from segpipe.errors import NotFound, TableError, UsageError
from segpipe.models.bundle import SLICES
from segpipe.registry import TRAINERS
from segpipe.settings import (
    LEAST_EPOCHS,
    LEAST_POOLED_STEPS,
    LEAST_STEPS,
    PATCHES_PER_STEP,
    SHARED_EPOCHS,
    SHARED_POOLED_EPOCHS,
    SHARED_POOLED_STEPS,
    SHARED_STEPS,
    SLICES_PER_STEP,
    TrainSettings,
)
from segpipe.storage.filesystem import join
from segpipe.trainers.contract import ScanPlan, SliceIndex, TrainPlan
from segpipe.trainers.meeting import port_range
from segpipe.trainers.order import steps_for_all
from segpipe.trainers.patches import patch_index, patch_shape
from segpipe.trainers.pooled import pooled_index
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import SlicePart, Store

_COLUMNS = (
    "scan_id",
    "subject",
    "split",
    "split_rule",
    "label_convention",
    "modalities",
    "orientation",
    "space",
    "spacing_mm",
    "shape",
    "brain_box",
    "files",
    "intensity",
    "label_counts",
)
_SPLITS = ("train", "validation")
_PATCH_SIZE = 64  # voxels that the network sees, an edge
_CUBIC = 1.5  # longest edge of a voxel over its shortest
_LARGE_ML = 5.0  # median labelled volume of a scan
_SHORTEST_BRAIN = 64  # voxels


def make_plan(settings: TrainSettings) -> TrainPlan:
    """The plan of a training that starts again.

    Raises UsageError for settings that cannot work, NotFound for a missing cohort or an empty split, and TableError for
    scans that do not go together. Reads the scans table and two count columns of the slices, no image.
    """
    check_settings(settings)
    warehouse = Store(settings.warehouse)
    rows, left_out = complete(_labelled(warehouse, settings.cohort))
    _check_splits(settings, rows)
    modalities, orientation, convention, space = (
        _same(settings, rows, name) for name in ("modalities", "orientation", "label_convention", "space")
    )
    settings = fitted(settings, rows)
    check_settings(settings)
    groups, scans = _located(rows, warehouse.slice_parts(settings.cohort, _SPLITS))
    crop, slices = _shown(settings, warehouse, rows, groups, scans)
    batch = batch_size(settings)
    steps = settings.steps_per_epoch or steps_for_all(slices, batch, settings.foreground_share)
    decided = replace(
        settings,
        epochs=settings.epochs or _epochs(settings, steps),
        batch_size=batch,
        patch_size=longest_patch(settings),
        mirror=settings.sees_mirror_images,
        slices=settings.has_slices,
        neighbours=settings.neighbours if settings.axes == 2 else 0,
    )
    return TrainPlan(
        settings=decided,
        modalities=tuple(modalities),
        orientation=orientation,
        convention_name=convention,
        crop=crop,
        scans=scans,
        groups=groups,
        slices=slices,
        split_rule=rows[0]["split_rule"],
        steps=steps,
        space=space or AS_INGESTED,
        left_out=left_out,
    )


def slices_plan(settings: TrainSettings) -> TrainPlan:
    """The plan of the 2D network that answers together with the 3D one that is trained with these settings.

    It has a directory of its own inside of the model's, and sees each slice as a 2D network that is trained alone does.
    Raises what `make_plan` raises.
    """
    workers = _workers(settings)
    alone = replace(
        settings,
        dimensions=2,
        pool=1,
        slices=False,
        patch_size=None,
        tile_overlap=TrainSettings.tile_overlap,
        batch_size=-(-SLICES_PER_STEP // workers) * workers,
        mirror=settings.sees_mirror_images,
        model=join(settings.model, SLICES),
    )
    plan = make_plan(alone)
    if settings.epochs is not None:
        return plan
    epochs = max(SHARED_EPOCHS, math.ceil(SHARED_STEPS / plan.steps))
    return replace(plan, settings=replace(plan.settings, epochs=epochs))


def _labelled(warehouse: Store, cohort: str) -> list[dict[str, Any]]:
    """The scans of both splits that have a mask."""
    rows = warehouse.scans(cohort, _COLUMNS).to_pylist()
    return [row for row in rows if row["split"] in _SPLITS and row["label_counts"] is not None]


def _shown(
    settings: TrainSettings,
    warehouse: Store,
    rows: Sequence[dict[str, Any]],
    groups: Sequence[tuple[str, int]],
    scans: Sequence[ScanPlan],
) -> tuple[tuple[int, ...], SliceIndex]:
    """What the network is shown at once, voxels, and the slices or patches that there are of it."""
    crop: tuple[int, ...]
    if settings.dimensions == 3:
        labelled = [_labelled_voxels(row) > 0 for row in rows]
        crop = patch_shape(scans, settings.pool << settings.depth, longest_patch(settings))
        slices = patch_index(scans, labelled, crop) if settings.pool == 1 else pooled_index(scans, labelled)
    else:
        crop = crop_size(scans, 1 << settings.depth + bool(settings.coarse_share))
        slices = _index(warehouse, groups, scans)
    if not slices.foreground.any():
        raise TableError(
            f"No training slice of cohort {settings.cohort!r} has a label",
            "ingest scans with masks, or into another cohort with another --split-salt",
        )
    return crop, slices


def _epochs(settings: TrainSettings, steps: int) -> int:
    """As many epochs of these steps as a training needs at least."""
    if settings.has_slices:
        return max(SHARED_POOLED_EPOCHS, math.ceil(SHARED_POOLED_STEPS / steps))
    least_steps = LEAST_STEPS if settings.pool == 1 else LEAST_POOLED_STEPS
    return max(LEAST_EPOCHS, math.ceil(least_steps / steps))


def complete(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The scans that have all modalities that most of the cohort have, and the scan_ids of those that lack one.

    A damaged file drops out of its scan alone when it is ingested: that must not stop the training of all others.
    """
    found = Counter(frozenset(row["modalities"]) for row in rows)
    usual, number = max(found.items(), key=lambda item: item[1], default=(frozenset(), 0))
    lacking = {row["scan_id"] for row in rows if frozenset(row["modalities"]) < usual and 2 * number > len(rows)}
    return [row for row in rows if row["scan_id"] not in lacking], tuple(sorted(lacking))


def fitted(settings: TrainSettings, rows: Sequence[dict[str, Any]]) -> TrainSettings:
    """The settings with dimensions that fit the scans, where none were asked for.

    A whole head at half the resolution tells more about a lesion that is large there than single slices do
    (docs/decisions/0014-network.md). Thick slices lose too much when they are pooled, and so do small lesions.
    """
    if settings.dimensions is not None:
        return settings
    if settings.coarse_share or settings.pool != 1 or not all(map(_is_nearly_cubic, rows)):
        return replace(settings, dimensions=3 if settings.pool != 1 else 2)
    volumes = [_labelled_voxels(row) * math.prod(row["spacing_mm"]) / 1000 for row in rows]
    lesions = [volume for volume in volumes if volume]
    if not lesions or float(np.median(lesions)) < _LARGE_ML or _shortest_edge(rows) < _SHORTEST_BRAIN:
        return replace(settings, dimensions=2)
    return replace(settings, dimensions=3, pool=2)


def _is_nearly_cubic(row: dict[str, Any]) -> bool:
    return max(row["spacing_mm"]) <= _CUBIC * min(row["spacing_mm"])


def _labelled_voxels(row: dict[str, Any]) -> int:
    return sum(entry["voxels"] for entry in row["label_counts"])


def _shortest_edge(rows: Sequence[dict[str, Any]]) -> int:
    """Voxels of the shortest edge of the smallest brain's box."""
    boxes = np.array([row["brain_box"] for row in rows]).reshape(-1, 3, 2)
    return int((boxes[..., 1] - boxes[..., 0]).min())


def crop_size(scans: Sequence[ScanPlan], multiple: int) -> tuple[int, int]:
    """Rows and columns that hold the brain of every scan, in steps of `multiple` pixels."""
    boxes = np.array([scan.brain_box for scan in scans])
    rows, columns = (int((boxes[:, axis + 1] - boxes[:, axis]).max()) for axis in (2, 4))
    return -(-rows // multiple) * multiple, -(-columns // multiple) * multiple


def batch_size(settings: TrainSettings) -> int:
    """Slices or patches per step over all workers together: what was asked for, or fits the dimensions."""
    if settings.batch_size or settings.dimensions != 3:
        return settings.batch_size or SLICES_PER_STEP
    workers = _workers(settings) if settings.pool > 1 else 1
    return -(-PATCHES_PER_STEP // workers) * workers  # the default fits any number of workers


def longest_patch(settings: TrainSettings) -> int:
    """Longest edge of a patch, voxels: what was asked for, or what shows as much of a pooled volume as of another."""
    return settings.patch_size or _PATCH_SIZE * settings.pool


def _workers(settings: TrainSettings) -> int:
    return settings.workers if TRAINERS[settings.trainer].on_spark else 1


def check_settings(settings: TrainSettings) -> None:
    """Raise UsageError for settings that cannot work together, whatever the tables."""
    if settings.dimensions == 2 and settings.slices:
        raise UsageError("A 2D network sees slices alone", "leave out --slices, or use --dimensions 3")
    if settings.dimensions == 3 and not settings.has_slices and settings.neighbours:
        raise UsageError(
            f"--neighbours {settings.neighbours} is for networks of slices alone", "leave it out, or use --slices"
        )
    if settings.dimensions == 2 and settings.pool > 1:
        raise UsageError(f"Slices cannot be pooled by --pool {settings.pool}", "use --dimensions 3, or leave it out")
    _check_dimensions(settings)
    least = settings.pool << settings.depth
    if settings.dimensions == 3 and longest_patch(settings) < least:
        raise UsageError(
            f"A patch of {longest_patch(settings)} voxels cannot be halved {least.bit_length() - 1} times",
            f"use --patch-size {least} or more, or a smaller --depth",
        )
    port_range(settings.ports)
    workers = _workers(settings)
    if settings.normalisation == "batch" and workers > 1:
        raise UsageError(
            f"Batch normalisation would see only a part of the batch in each of {workers} workers",
            "use --normalisation instance, or --workers 1",
        )
    batch = batch_size(settings)
    if batch % workers:
        fit = max(workers, batch // workers * workers)
        kind = "patches" if settings.dimensions == 3 else "slices"
        raise UsageError(
            f"A batch of {batch} {kind} cannot be shared equally by {workers} workers",
            f"use --batch-size {fit}",
        )


def _check_dimensions(settings: TrainSettings) -> None:
    """Raise UsageError for an option that networks of these dimensions do not read."""
    volumes = settings.dimensions == 3 or settings.pool > 1
    default = TrainSettings()
    unread = ("coarse_share",) if volumes else ("patch_size", "tile_overlap") if settings.dimensions == 2 else ()
    for name in unread:
        if (value := getattr(settings, name)) != getattr(default, name):
            given, wanted = f"--{name.replace('_', '-')} {value}", f"--dimensions {2 if volumes else 3}"
            raise UsageError(f"{given} is for {wanted} alone", f"leave it out, or use {wanted}")
    steps = settings.pool << settings.depth
    if settings.patch_size is not None and settings.patch_size % steps and settings.patch_size > steps:
        raise UsageError(
            f"--patch-size {settings.patch_size} is no multiple of {steps}, which is 2^depth times --pool",
            f"use --patch-size {settings.patch_size // steps * steps}",
        )


def _check_splits(settings: TrainSettings, rows: list[dict[str, Any]]) -> None:
    for split in _SPLITS:
        if split == "validation" and rows and SplitRule.parse(rows[0]["split_rule"]).validation == 0:
            continue  # asked for: all epochs are done, and the last one is kept
        if not any(row["split"] == split for row in rows):
            raise NotFound(
                f"Cohort {settings.cohort!r} has no scan with a mask in its {split} split",
                f"ingest more subjects, or into another cohort with a larger --{split}-fraction or other --split-salt",
            )


def _same(settings: TrainSettings, rows: list[dict[str, Any]], name: str) -> Any:
    """The value that all scans share."""
    first = rows[0]
    for row in rows:
        if row[name] != first[name]:
            raise TableError(
                f"Scans of cohort {settings.cohort!r} differ in {name}: {first['scan_id']} has {_text(first[name])}, "
                f"{row['scan_id']} has {_text(row[name])}",
                "ingest them as two cohorts, with a --cohort for each",
            )
    if name == "label_convention" and first[name] not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise TableError(f"Label convention {first[name]!r} is unknown", f"ingest with one of {known}")
    return first[name]


def _text(value: Any) -> str:
    return "+".join(value) if isinstance(value, list) else str(value)


def _scan(row: dict[str, Any], groups: tuple[int, ...]) -> ScanPlan:
    files = {file["role"]: file for file in row["files"]}
    intensity = {entry["modality"]: entry for entry in row["intensity"]}
    scan = ScanInput(
        shape=tuple(row["shape"]),
        mean=tuple(intensity[modality]["mean"] for modality in row["modalities"]),
        std=tuple(intensity[modality]["std"] for modality in row["modalities"]),
        slope=tuple(files[modality]["slope"] for modality in row["modalities"]),
        inter=tuple(files[modality]["inter"] for modality in row["modalities"]),
        brain_box=tuple(row["brain_box"]),
    )
    mean, inverse_std = scan.stored_statistics()  # the same as in segmentation
    return ScanPlan(
        scan_id=row["scan_id"],
        subject=row["subject"],
        split=row["split"],
        shape=scan.shape,
        brain_box=scan.brain_box,
        mean=mean,
        inverse_std=inverse_std,
        groups=groups,
    )


def _located(
    rows: Sequence[dict[str, Any]], parts: Sequence[SlicePart]
) -> tuple[tuple[tuple[str, int], ...], tuple[ScanPlan, ...]]:
    """The row groups of these scans, and the scans, both in the order of `rows`.

    Not in that of the parts, because `compact` changes those: a training that goes on after it sees the same slices in
    the same order.
    """
    held = {scan.scan_id: (part.path, scan.row_groups) for part in parts for scan in part.scans}
    groups: list[tuple[str, int]] = []
    scans = []
    for row in rows:
        path, numbers = held[row["scan_id"]]
        scans.append(_scan(row, tuple(range(len(groups), len(groups) + len(numbers)))))
        groups += [(path, number) for number in numbers]
    return tuple(groups), tuple(scans)


def _index(warehouse: Store, groups: Sequence[tuple[str, int]], scans: Sequence[ScanPlan]) -> SliceIndex:
    """The training slices that show brain."""
    columns: list[tuple[np.ndarray, ...]] = []
    for place, scan in enumerate(scans):
        for group in scan.groups if scan.split == "train" else ():
            path, number = groups[group]
            counts = list(stream(path, warehouse.fs, [number], ["foreground_pixels", "brain_pixels"]))
            foreground = np.concatenate([batch.foreground_pixels for batch in counts])
            rows = np.flatnonzero(np.concatenate([batch.brain_pixels for batch in counts]))
            scan_column, group_column = (np.full(len(rows), number, np.int32) for number in (place, group))
            columns.append((scan_column, group_column, rows.astype(np.int32), foreground[rows] > 0))
    if not any(len(entry[0]) for entry in columns):
        raise TableError(
            f"No training slice in {warehouse.url} shows brain", "look at `brain_pixels` of the slices table"
        )
    return SliceIndex(*(np.concatenate(column) for column in zip(*columns, strict=True)))
