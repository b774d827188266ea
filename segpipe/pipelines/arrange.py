"""How `--prepare` brings the frames of a scan to one grid: between the reader and `segpipe.prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segpipe.prepare import atlas
from segpipe.prepare.raw import Raw
from segpipe.prepare.scan import PREPARED, Baseline, Prepared, prepare, recognised
from segpipe.readers.scan import Arrange, Arranged, Frame

NO_BASELINE = "baseline_missing"
"""The flag of a scan that has earlier visits, none of which can be followed."""


def preparing(name: str, orientation: str, baseline: Callable[[], Baseline | None] | None = None) -> Arrange:
    """What the reader calls with the frames, along `orientation`, of the scan that messages call `name`.

    `baseline` gives the visit that the scan is to follow; it is asked only for what is prepared, and where it has none
    to give, the scan is flagged.
    Frames of a scan that is prepared already are left as they are, and flagged if a check is in doubt. Those that
    cannot be prepared while others can are left out. Raises BadInput if a scan cannot be prepared.
    """

    def arrange(images: list[Frame], masks: list[Frame]) -> Arranged:
        raws = [_raw(frame, orientation) for frame in images]
        alone = recognised(raws)
        if alone is not None:
            return Arranged(images, masks, space=atlas.SPACE, preparation=alone.record, flags=alone.flags)
        followed = None if baseline is None else baseline()
        found = prepare(name, raws, [_raw(frame, orientation) for frame in masks], orientation, followed)
        missing = [NO_BASELINE] if baseline is not None and followed is None else []
        return Arranged(
            [_on(found, frame, found.images[frame.role]) for frame in images if frame.role in found.images],
            [_on(found, frame, labels) for frame, labels in zip(masks, found.masks, strict=True) if labels is not None],
            found.brain,
            atlas.SPACE,
            found.record,
            [*found.flags, *missing],
            found.follows,
            found.dropped,
        )

    return arrange


def is_resampled(row: Mapping[str, Any]) -> bool:
    """Whether the arrays of a scan, by its row of `scans`, are those of a preparation and not of its files."""
    return bool(row["preparation"]) and row["preparation"]["how"] == PREPARED


def _raw(frame: Frame, orientation: str) -> Raw:
    frames = int(np.prod(frame.row["shape"][3:], dtype=int))
    return Raw(
        frame.role,
        frame.path,
        frame.array,
        frame.affine,
        orientation,
        frame.slope,
        frame.inter,
        frames,
        frame.drawn_on,
    )


def _on(found: Prepared, frame: Frame, array: np.ndarray) -> Frame:
    return replace(frame, array=array, affine=found.affine)
