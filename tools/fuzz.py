"""Spoils small archives at random and ingests them, without Spark: `python tools/fuzz.py --minutes 5 [--keep FOLDER]`.

Whatever the bytes and names, an ingest ends with tables that are whole or with an error that says what to do, in
bounded time and memory. An archive that does anything else is kept in the folder, for a test to be made of it. The same
seed gives the same archives.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402

from segpipe.core.splits import SplitRule  # noqa: E402
from segpipe.errors import BadInput, NotFound, Reason, UsageError  # noqa: E402
from segpipe.pipelines.ingest_task import IngestJob, PartTask, quarantine_row, write_part  # noqa: E402
from segpipe.pipelines.verify import verify_part  # noqa: E402
from segpipe.readers.generate import write_brats  # noqa: E402
from segpipe.readers.naming import Naming, SubjectKey  # noqa: E402
from segpipe.readers.sources import find  # noqa: E402
from segpipe.settings import IngestSettings  # noqa: E402
from segpipe.storage.lock import lock  # noqa: E402
from segpipe.warehouse.store import Store  # noqa: E402
from segpipe.warehouse.tables import TABLES  # noqa: E402
from tests.readers.test_dicom import data_of, image, stack  # noqa: E402

KEY = b"a key for fuzzing, of no other use"
SECONDS, MEMORY = 60, 6 << 30
NAMES = (
    "..t1.nii.gz", "=cmd|' C calc'!A0.nii.gz", "a\nb_flair.nii.gz", "x" * 240 + "_t1.nii.gz", "Ärzte_t1.nii.gz",
    "A\u0308rzte_t1.nii.gz", "a:b_t2.nii.gz", "\udcff\udcfe_flair.nii.gz", "ses-1_ses-2_t1.nii.gz", "-rf_t1.nii.gz",
    "1" * 200, "dataset.json", "participants.tsv", "t1.nii.gz.nii.gz", "a__::b.hdr", "\u202etxt.nii", "DICOMDIR",
)  # fmt: skip
NUMBERS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\0\0\x80\x7f", b"\0\0\xc0\x7f")
VALUES: tuple[Any, ...] = ("\ud800", "x" * 100_000, -1, 10**400, 1e308, None, [], {}, True, [[[[]]]], {"0": "\udfff"})


def main(argv: list[str] | None = None) -> int:
    """Fuzz until the time is over; 1 where an archive did what none may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    end, fates, number = time.monotonic() + 60 * options.minutes, Counter[str](), options.seed
    with tempfile.TemporaryDirectory(prefix="segpipe-fuzz-") as scratch:
        seeds = _seeds(Path(scratch))
        while time.monotonic() < end:
            number += 1
            folder = Path(scratch) / f"{number}"
            fault = _one(random.Random(number), seeds, folder, fates)
            if fault:
                fates["FOUND"] += 1
                print(f"seed {number}: {fault}", flush=True)
                shutil.copytree(folder / "source", options.keep / str(number), symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{number - options.seed} archives: {dict(sorted(fates.items()))}")
    return 1 if fates["FOUND"] else 0


def _one(dice: random.Random, seeds: list[Path], folder: Path, fates: Counter[str]) -> str | None:
    """Spoil and ingest one archive; what it did that none may."""
    source = folder / "source"
    shutil.copytree(dice.choice(seeds), source)
    for _ in range(dice.choice((1, 1, 2, 5))):
        _spoil(source, dice)
    signal.alarm(SECONDS)
    try:
        return _ingest(source, folder / "w", fates)
    except (UsageError, NotFound) as error:
        fates[f"refused: {type(error).__name__}"] += 1
        str(error).encode()
        return None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.alarm(0)


def _ingest(source: Path, url: Path, fates: Counter[str]) -> str | None:
    settings = IngestSettings(source=str(source), warehouse=str(url), cohort="c", max_voxels=1 << 24)
    listing = find(settings.source, subject_key=KEY)
    with lock(settings.warehouse, "slices-c", 0, "r1") as fence:
        job = IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence, Naming(SubjectKey(KEY)))
        for one in listing.rejected:
            row = quarantine_row(job, one, one.paths, BadInput(one.reason, one.message, one.remedy))
            json.dumps(row, default=str).encode()
            "".join([row["message"], *row["paths"]]).encode()
        outcome = write_part(PartTask("c.part", tuple(listing.scans)), job)
    warehouse = Store(settings.warehouse)
    if outcome.written:
        warehouse.slice_parts("c")
    for table in TABLES:
        for name in warehouse.parts(table):
            problem = verify_part(warehouse.url, table, name, rebuild=True).problem
            if problem:
                return f"{table}: {problem}"
    rows = warehouse.table("quarantine").to_table().to_pylist() if warehouse.parts("quarantine") else []
    fates.update(row["reason"] for row in rows)
    fates.update(str(one.reason) for one in listing.rejected)
    fates["written"] += len(outcome.written)
    crashed = [row["message"] for row in rows if row["reason"] == "crashed"]
    crashed += [one.message for one in listing.rejected if one.reason is Reason.CRASHED]
    return f"crashed: {crashed[0]}" if crashed else None


def _too_long(_number: int, _frame: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _spoil(source: Path, dice: random.Random) -> None:
    files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    if not files:
        return
    path = dice.choice(files)
    kind = dice.random()
    if kind < 0.12:
        with contextlib.suppress(OSError):
            path.rename(path.with_name(os.fsdecode(os.fsencode(dice.choice(NAMES)))))
    elif kind < 0.18:
        with contextlib.suppress(OSError):
            path.parent.joinpath(dice.choice(NAMES)).symlink_to(dice.choice(["/etc/passwd", "..", "none", path.name]))
    elif kind < 0.3 and path.suffix == ".json":
        path.write_text(_spoiled_json(path.read_text("utf-8", "replace"), dice), "utf-8", "surrogatepass")
    else:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b" and dice.random() < 0.8:
            with contextlib.suppress(OSError, EOFError, ValueError, zlib.error):
                content = gzip.decompress(content)
                path.write_bytes(gzip.compress(_spoiled(content, dice), 1))
                return
        path.write_bytes(_spoiled(content, dice))


def _spoiled(content: bytes, dice: random.Random) -> bytes:
    """A few changes, most of them in the header."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = (
            min(int(dice.expovariate(1 / 300)), len(changed)) if dice.random() < 0.8 else dice.randint(0, len(changed))
        )
        how = dice.randrange(6)
        if how == 0:
            changed[place : place + 1] = bytes([dice.randrange(256)])
        elif how == 1:
            changed[place : place + 4] = dice.choice(NUMBERS)
        elif how == 2:
            del changed[place : place + dice.choice((1, 2, 8, 100))]
        elif how == 3:
            changed[place:place] = bytes(dice.choices(range(256), k=dice.choice((1, 2, 8, 100))))
        elif how == 4:
            del changed[dice.randint(0, len(changed)) :]
        else:
            piece = changed[place : place + dice.choice((8, 64, 1000))]
            changed[place:place] = piece * dice.choice((1, 3, 50))
    return bytes(changed)


def _spoiled_json(text: str, dice: random.Random) -> str:
    try:
        content = json.loads(text)
    except ValueError:
        return text
    holder = content
    while isinstance(holder, dict) and holder:
        key = dice.choice(list(holder))
        if not isinstance(holder[key], dict) or dice.random() < 0.4:
            holder[dice.choice((key, "\ud800", "9" * 5000))] = dice.choice(VALUES)
            break
        holder = holder[key]
    return json.dumps(content)


def _seeds(scratch: Path) -> list[Path]:
    """Small archives of every kind that is read."""
    makers: tuple[Callable[[Path], None], ...] = (_brats, _dicom, _packed, _decathlon, _bids, _manifest, _formats)
    seeds = []
    for maker in makers:
        folder = scratch / f"seed{maker.__name__}"
        folder.mkdir()
        maker(folder)
        seeds.append(folder)
    return seeds


def _brats(folder: Path) -> None:
    write_brats(folder, subjects=2, seed=0, shape=(8, 16, 14))


def _dicom(folder: Path) -> None:
    for number, series in enumerate((stack(3), stack(3, SeriesInstanceUID="1.2.9", SeriesDescription="AX T2 FLAIR"))):
        for index, one in enumerate(series):
            one.SOPInstanceUID = f"1.2.3.{number}.{index}"
            (folder / f"IM{number}{index}").write_bytes(data_of(one))
    frames = image(NumberOfFrames=2, SOPInstanceUID="1.7", SeriesInstanceUID="1.8", PixelData=bytes(48))
    (folder / "frames.dcm").write_bytes(data_of(frames))


def _packed(folder: Path) -> None:
    """Studies in a zip and in tar archives, packed and plain, beside one that is not packed."""
    _dicom(folder)
    files = sorted(folder.iterdir())
    for suffix, mode in ((".tar", "w"), (".tgz", "w:gz")):
        with tarfile.open(folder / f"study{suffix}", mode) as tar:
            for path in files:
                tar.add(path, f"a/{path.name}")
    for name, method in (("plain.zip", zipfile.ZIP_STORED), ("packed.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", method) as found:
            for number, one in enumerate(stack(3, SeriesInstanceUID=f"1.2.{method + 50}", StudyInstanceUID="1.2.40")):
                one.SOPInstanceUID = f"1.2.3.{method + 50}.{number}"
                found.writestr(f"b/IM{number}", data_of(one))


def _volume(seed: int, kind: str = "<i2") -> np.ndarray:
    voxels = np.zeros((7, 6, 5), kind)
    voxels[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).integers(1, 90, (5, 4, 3))
    return voxels


def _save(path: Path, voxels: np.ndarray, kind: Any = nib.Nifti1Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind(voxels, np.diag([1.0, 1.5, 2.0, 1.0])).to_filename(path)


def _decathlon(folder: Path) -> None:
    for case in range(2):
        for channel in range(2):
            _save(folder / "imagesTr" / f"c{case}_{channel:04d}.nii.gz", _volume(case + channel))
        _save(folder / "labelsTr" / f"c{case}.nii.gz", (_volume(case) > 60).astype("u1"))
    content = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"background": 0, "tumour": 1}, "name": "x"}
    (folder / "dataset.json").write_text(json.dumps(content))


def _bids(folder: Path) -> None:
    for subject in ("01", "02"):
        for name in ("T1w", "FLAIR"):
            _save(folder / f"sub-{subject}" / "ses-1" / "anat" / f"sub-{subject}_ses-1_{name}.nii.gz", _volume(1))
            side = folder / f"sub-{subject}" / "ses-1" / "anat" / f"sub-{subject}_ses-1_{name}.json"
            side.write_text(json.dumps({"EchoTime": 0.1, "Manufacturer": "x"}))
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t50\n")


def _manifest(folder: Path) -> None:
    lines = ["subject,session,modality,path"]
    for subject in ("p1", "p2"):
        for modality in ("FLAIR", "T1"):
            _save(folder / subject / f"{modality}.nii.gz", _volume(2))
            lines.append(f"{subject},1,{modality},{subject}/{modality}.nii.gz")
    (folder / "files.csv").write_text("\n".join(lines) + "\n")


def _formats(folder: Path) -> None:
    for kind in ("<i2", ">i2", "<f4", "u1"):
        _save(folder / f"s{kind[-2:]}{ord(kind[0])}_flair.nii", _volume(3, kind))
    _save(folder / "pair_t1.hdr", _volume(4), nib.Nifti1Pair)
    _save(folder / "spm_t2.hdr", _volume(4), nib.Spm2AnalyzeImage)
    _save(folder / "two_t1.nii.gz", _volume(5), nib.Nifti2Image)
    nib.MGHImage(_volume(6, ">i2"), np.eye(4)).to_filename(folder / "fs_t1.mgz")


if __name__ == "__main__":
    sys.exit(main())
