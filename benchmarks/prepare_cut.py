"""Whole-tumour Dice of glioma scans that were moved, cut into slices of 5 mm and prepared again, beside the untouched.

Each modality of a BraTS scan is turned by up to 6 degrees about each axis, moved by up to 6 mm along each, and averaged
over slices of 5 mm, so that each lies on a grid of its own. The files are read and prepared as `segment --source
--prepare` does it, and segmented by the model that `BENCH_MODEL` names; its masks are compared with the true one,
which is carried to the space by what is known of the moves. `BENCH_SUBJECTS` names the scans: such as the model has not
learnt from, or the figure means little. Without it, the first three.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import report
from benchmarks._real import labelled_subjects
from benchmarks.prepare_quality import dice, off_by, volume
from segpipe.core.orientation import reorient
from segpipe.core.prediction import Predictor, SliceBatch
from segpipe.core.splits import SplitRule
from segpipe.errors import UsageError
from segpipe.models.bundle import Bundle
from segpipe.pipelines.ingest_task import IngestJob, load, scan_row
from segpipe.prepare import atlas
from segpipe.prepare.grids import Grid, resample
from segpipe.readers import sources
from segpipe.readers.scan import LoadedScan
from segpipe.runtimes.contract import PredictorSpec
from segpipe.settings import IngestSettings
from segpipe.storage.lock import Fence
from segpipe.warehouse.scan_slices import scan_input

WHOLE_TUMOUR = (1, 2, 4)
_MODALITIES = ("flair", "t1", "t1ce", "t2")
_SPACINGS = ((0.9, 0.9, 5.0), (0.7, 0.7, 5.0))
_DEGREES = _SHIFT_MM = 6.0
_BATCH = 16


def main() -> None:
    """Segment each scan as it is and as it was cut, and report the mean Dice of both."""
    model = os.environ.get("BENCH_MODEL")
    if model is None:
        raise UsageError("No model to segment with", "name a trained and exported one in BENCH_MODEL")
    bundle = Bundle.load(model)
    predictor = PredictorSpec(model).open(len(os.sched_getaffinity(0)))
    untouched, cut = [], []
    for number, folder in enumerate(_subjects()):
        with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
            truth, grid = volume(folder / f"{folder.name}_seg.nii.gz")
            whole = np.isin(truth, WHOLE_TUMOUR)
            moves = write_cut(folder, Path(scratch) / folder.name, np.random.default_rng(number))
            plain = _read(folder.parent, folder.name, prepare=False)
            untouched.append(dice(_whole(predictor, bundle, plain), whole))
            start = time.process_time()
            scan = _read(Path(scratch), folder.name, prepare=True)
            seconds = time.process_time() - start
            there = resample(whole.astype(np.float32), grid, atlas.grid(), moves["T1ce"] @ _matrix(scan, "T1ce")) > 0.5
            found = _whole(predictor, bundle, scan)
            cut.append(dice(found, there))
        print(
            f"{folder.name}: untouched {untouched[-1]:.3f}, cut and prepared {cut[-1]:.3f}"
            f" ({cut[-1] - untouched[-1]:+.3f}); {seconds:.0f} processor s; flags {scan.flags}",
            flush=True,
        )
    report("prepare-cut", statistics.mean(cut), statistics.mean(untouched), "Dice")


def _subjects() -> list[Path]:
    folders = {folder.name: folder for folder in labelled_subjects()}
    named = os.environ.get("BENCH_SUBJECTS", " ".join(list(folders)[:3])).split()
    if missing := [name for name in named if name not in folders]:
        raise UsageError(f"No scan `{missing[0]}`", f"name some of these in BENCH_SUBJECTS: {' '.join(folders)}")
    return [folders[name] for name in named]


def write_cut(folder: Path, target: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write the modalities of a scan moved and cut; gives, by role, how points of the new file map to the old one's."""
    target.mkdir()
    moves = {}
    for number, name in enumerate(_MODALITIES):
        values, grid = volume(folder / f"{folder.name}_{name}.nii.gz")
        centre = (grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3]
        move = off_by(rng.uniform(-_DEGREES, _DEGREES, 3), rng.uniform(-_SHIFT_MM, _SHIFT_MM, 3), centre)
        spacing = np.array(_SPACINGS[number % 2])
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = grid.affine[:3, 3] + (spacing - 1) / 2
        shape = tuple(np.ceil(np.array(grid.shape) / spacing).astype(int).tolist())
        planes = []
        for step_mm in range(-2, 3):
            at = affine.copy()
            at[2, 3] += step_mm
            planes.append(resample(values, grid, Grid((shape[0], shape[1], shape[2]), at), move))
        mean = np.mean(planes, axis=0)
        voxels = np.where(mean < 1, 0, np.rint(mean)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), target / f"{folder.name}_{name}.nii.gz")
        moves[{"flair": "FLAIR", "t1ce": "T1ce"}.get(name, name.upper())] = move
    return moves


def _read(root: Path, subject: str, prepare: bool) -> LoadedScan:
    settings = IngestSettings(source=str(root), warehouse=str(root), cohort="cut", prepare=prepare)
    source = next(one for one in sources.find(str(root)).scans if one.files[0].path.startswith(f"{subject}/"))
    return load(source, IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), Fence(str(root), "cut", 1, "cut")))


def _whole(predictor: Predictor, bundle: Bundle, scan: LoadedScan) -> np.ndarray:
    """The whole tumour that the model finds, bool along R, A, S."""
    row: dict[str, Any] = {**_row(scan), "scan_id": "cut"}
    labels = predictor.segment(scan_input(row, bundle.modalities), _slices(scan, bundle)).labels
    return reorient(np.isin(labels, WHOLE_TUMOUR), scan.orientation, "RAS")


def _row(scan: LoadedScan) -> dict[str, Any]:
    settings = IngestSettings(source="", warehouse="", cohort="cut")
    return scan_row(scan, IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), Fence("", "cut", 1, "cut")))


def _slices(scan: LoadedScan, bundle: Bundle) -> Iterator[SliceBatch]:
    brain = np.flatnonzero(scan.brain_pixels)
    for start in range(0, len(brain), _BATCH):
        chosen = brain[start : start + _BATCH]
        yield chosen.tolist(), [scan.images[name][chosen] for name in bundle.modalities]


def _matrix(scan: LoadedScan, role: str) -> np.ndarray:
    assert scan.preparation is not None  # it was asked for
    return np.reshape(next(one["matrix"] for one in scan.preparation["transforms"] if one["role"] == role), (4, 4))
