"""How far prepared scans are from the right answer: every figure that can be had from the open scans, a line each.

The pairs, the follow-up and the brain masks are compared with what the authors of the open MS data published; the
glioma scans must be recognised as prepared. `BENCH_PARTS` names the parts that are wanted, of `pairs headers masks
gliomas`; all without it. `BENCH_HEADERS` names the headers that are wanted, such as `4-7`; all 20 without it. The last
line sets the mean displacement of the pairs inside the brain beside the 0.5 mm that is wanted.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks._real import labelled_subjects, real_folders
from segpipe.core.orientation import axis_codes
from segpipe.errors import BadInput, UsageError
from segpipe.prepare import atlas
from segpipe.prepare.grids import LPS, Grid, resample
from segpipe.prepare.native import to_native
from segpipe.prepare.raw import Raw
from segpipe.prepare.register import rotation
from segpipe.prepare.scan import Baseline, Prepared, baseline_of, prepare, recognised

WANTED_MM = 0.5
_ROLES = {"FLAIR": "FLAIR", "T1": "T1W", "T2": "T2W"}
_VISITS = (("01", "study1"), ("01", "study2"), ("04", "study1"))
_HEADERS, _DEGREES, _SHIFT_MM = 20, 30.0, 40.0
_EVERY = 7


def main() -> None:
    """Measure the wanted parts."""
    wanted = os.environ.get("BENCH_PARTS", " ".join(_PARTS)).split()
    unknown = [name for name in wanted if name not in _PARTS]
    if unknown:
        raise UsageError(f"No part `{unknown[0]}`", f"name some of these in BENCH_PARTS: {' '.join(_PARTS)}")
    for name in wanted:
        _PARTS[name]()
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    if "pairs" in wanted:
        report("prepare-quality", _mean_pair(), WANTED_MM, "mm", less_is_better=True)


# The open MS data


def _pairs() -> None:
    """T1 and T2 to FLAIR of every visit, then the second visit to the first, both as `prepare` has chained them."""
    for patient, study in _VISITS:
        start = time.process_time()
        done = visit(patient, study)
        seconds = time.process_time() - start
        found = ", ".join(f"{role} {error:.3f}" for role, error in _pair_errors(patient, study).items())
        print(
            f"patient {patient} {study}: to FLAIR {found} mm; {seconds:.1f} processor s; flags {done.flags}", flush=True
        )
    first, second = visit("01", "study1"), visit("01", "study2")
    between = matrix(second, "FLAIR") @ np.linalg.inv(matrix(first, "FLAIR"))
    truth = theirs("01", "study2_FLAIR_to_common_space") @ np.linalg.inv(theirs("01", "study1_FLAIR_to_common_space"))
    print(f"follow-up to baseline: {displacement_mm(first, truth, between):.3f} mm", flush=True)
    again = prepare("again", raws("01", "study1"), [], "SPL")
    same = all(np.array_equal(again.images[role], image) for role, image in first.images.items())
    print(f"the same bits twice: {same}", flush=True)


def _headers() -> None:
    """Headers of T1 or T2 that are off by up to 30 degrees about each axis and 40 mm: near the truth, or flagged."""
    rng = np.random.default_rng(20)
    wanted = _numbers(os.environ.get("BENCH_HEADERS", f"0-{_HEADERS - 1}"))
    right = flagged = 0
    for number in range(_HEADERS):
        patient, study = _VISITS[number % len(_VISITS)]
        role = ("T1", "T2")[number % 2]
        wrong = off_by(
            rng.uniform(-_DEGREES, _DEGREES, 3), rng.uniform(-_SHIFT_MM, _SHIFT_MM, 3), _centre(patient, study)
        )
        if number not in wanted:
            continue
        flair, other = (one for one in raws(patient, study) if one.role in ("FLAIR", role))
        moved = Raw(role, other.name, other.voxels, wrong @ other.affine, other.orientation)
        try:
            done = prepare("header", [flair, moved], [], "SPL")
        except BadInput as error:
            flagged += 1
            print(f"header {number}: rejected, {error}", flush=True)
            continue
        between = np.linalg.inv(wrong) @ matrix(done, role) @ np.linalg.inv(matrix(done, "FLAIR"))
        error_mm = displacement_mm(done, theirs(patient, f"{study}_{_ROLES[role]}_intrastudy_to_FLAIR"), between)
        right += error_mm < 1
        flagged += bool(done.flags)
        print(f"header {number}: {error_mm:.3f} mm, flags {done.flags}", flush=True)
    print(f"headers: {right} of {len(wanted)} within 1 mm, {flagged} flagged or rejected", flush=True)


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or found[-1] >= _HEADERS:
        raise UsageError(f"No headers `{text}`", f"name the first and the last of 0 to {_HEADERS - 1} in BENCH_HEADERS")
    return found


def _masks() -> None:
    """The brain of FLAIR beside the authors' and a second mask; to the space and back; volumes there and here."""
    from segpipe.prepare.brain import find_brain

    for patient in ("01", "04"):
        done = visit(patient, "study1")
        flair = next(one for one in raws(patient, "study1") if one.role == "FLAIR")
        mine = find_brain(flair.scaled).mask
        rough, grid = volume(_reference(patient) / "brainmask.nii.gz")
        there = (
            resample(mine.astype(np.float32), flair.grid, grid, theirs(patient, "study1_FLAIR_to_common_space")) > 0.5
        )
        second, _ = volume(_reference(patient) / "study1_FLAIR_second_brainmask.nii.gz")
        change, space = matrix(done, "FLAIR"), atlas.grid()
        ours = resample(mine.astype(np.float32), flair.grid, space, change) > 0.5
        back = to_native(ours.astype(np.uint8), space, flair.grid, change) > 0
        print(
            f"patient {patient}: brain Dice {dice(there, rough > 0.5):.3f} (authors' rough mask),"
            f" {dice(mine, second > 0.5):.3f} (second mask); there and back {dice(mine, back):.4f}",
            flush=True,
        )
        for ml in (1, 5, 30):
            ball = _ball(done, ml)
            volumes = [
                np.count_nonzero(to_native(ball, space, one.grid, matrix(done, one.role))) * one.grid.voxel_ml
                for one in raws(patient, "study1")
            ]
            wanted = np.count_nonzero(ball) / 1000
            worst = max(abs(value / wanted - 1) for value in volumes)
            print(
                f"patient {patient}: {wanted:.2f} ml differ by {100 * worst:.2f} % at most on native grids", flush=True
            )


def _ball(done: Prepared, ml: float) -> np.ndarray:
    space = atlas.grid()
    brain = np.ascontiguousarray(done.brain[:, ::-1, ::-1].transpose(2, 1, 0))  # SPL to RAS
    centre = np.array([places.mean() + 12 for places in np.nonzero(brain)])
    places = np.indices(space.shape, np.float32) - centre[:, None, None, None].astype(np.float32)
    radius = (3000 * ml / (4 * np.pi)) ** (1 / 3)
    return (np.square(places).sum(axis=0) < radius**2).astype(np.uint8)


# The gliomas


def _gliomas() -> None:
    """The BraTS scans, skull off and on one grid: all are to be left alone."""
    found = 0
    for folder in labelled_subjects():
        modalities = [
            _raw(role, folder / f"{folder.name}_{theirs_}.nii.gz")
            for role, theirs_ in (("T1ce", "t1ce"), ("FLAIR", "flair"), ("T1", "t1"), ("T2", "t2"))
        ]
        found += recognised(modalities) is not None
    print(f"recognised as prepared: {found} of {len(labelled_subjects())}", flush=True)


_PARTS: dict[str, Callable[[], None]] = {"pairs": _pairs, "headers": _headers, "masks": _masks, "gliomas": _gliomas}


# Reading, and distances


def _real() -> Path:
    return real_folders("open_ms")[0].parent


def _reference(patient: str) -> Path:
    return _real() / "raw_reference" / f"patient{patient}"


def volume(path: Path) -> tuple[np.ndarray, Grid]:
    """The voxels of a file along R, A, S, and its grid."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), Grid(image.shape, image.affine)


def _raw(role: str, path: Path) -> Raw:
    voxels, grid = volume(path)
    return Raw(role, path.name, voxels, grid.affine, "".join(axis_codes(grid.affine)))


@lru_cache(maxsize=2)
def raws(patient: str, study: str) -> tuple[Raw, ...]:
    """FLAIR, T1 and T2 of a visit."""
    folder = _real() / f"long_patient{patient}"
    return tuple(_raw(role, folder / f"{study}_{name}.nii.gz") for role, name in _ROLES.items())


@lru_cache(maxsize=3)
def visit(patient: str, study: str) -> Prepared:
    """A visit prepared; the second one follows the first."""
    return prepare(
        f"{patient} {study}", raws(patient, study), [], "SPL", _baseline(patient) if study != "study1" else None
    )


def _baseline(patient: str) -> Baseline:
    done = visit(patient, "study1")
    return baseline_of("study1", "", done.images[done.record["reference"]], "SPL")


def theirs(patient: str, name: str) -> np.ndarray:
    """The authors' transform (4, 4) of RAS+ mm: points of FLAIR, or of their space, to points of the moving image."""
    lines = (_reference(patient) / f"{name}.txt").read_text().splitlines()
    values, centre = (np.array(line.partition(":")[2].split(), float) for line in lines[3:5])
    lps = np.eye(4)
    lps[:3, :3] = values[:9].reshape(3, 3)
    lps[:3, 3] = values[9:] + centre - lps[:3, :3] @ centre
    return LPS @ lps @ LPS


def matrix(done: Prepared, role: str) -> np.ndarray:
    """Points of the space to points of a modality's file."""
    return np.reshape(next(one["matrix"] for one in done.record["transforms"] if one["role"] == role), (4, 4))


def displacement_mm(done: Prepared, truth: np.ndarray, found: np.ndarray) -> float:
    """How far two transforms of points of FLAIR are apart inside the brain, on average."""
    places = np.array(np.nonzero(done.brain))[:, ::_EVERY]
    points = matrix(done, "FLAIR") @ done.affine @ np.vstack([places, np.ones(places.shape[1])])
    return float(np.sqrt(np.square(((truth - found) @ points)[:3]).sum(axis=0)).mean())


def _pair_errors(patient: str, study: str) -> dict[str, float]:
    done = visit(patient, study)
    return {
        role: displacement_mm(
            done,
            theirs(patient, f"{study}_{_ROLES[role]}_intrastudy_to_FLAIR"),
            matrix(done, role) @ np.linalg.inv(matrix(done, "FLAIR")),
        )
        for role in ("T1", "T2")
    }


def _mean_pair() -> float:
    return float(np.mean([error for one in _VISITS for error in _pair_errors(*one).values()]))


def _centre(patient: str, study: str) -> np.ndarray:
    grid = raws(patient, study)[0].grid
    return np.asarray((grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3])


def off_by(degrees: np.ndarray, shift_mm: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """What a wrong header does to points: a turn about a centre, and a shift."""
    found = np.eye(4)
    found[:3, :3] = rotation(np.radians(degrees).tolist())
    found[:3, 3] = centre_mm + shift_mm - found[:3, :3] @ centre_mm
    return found


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks."""
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))
