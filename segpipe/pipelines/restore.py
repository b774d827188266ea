"""A scan's rows back to the files that it was made from; works without Spark, on one scan at a time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from segpipe.core.orientation import reorient_affine, same_grid
from segpipe.core.volume import Volume
from segpipe.errors import NotFound, TableError
from segpipe.pipelines.arrange import is_resampled
from segpipe.readers import nifti
from segpipe.readers import scan as scan_reader
from segpipe.settings import RestoreSettings
from segpipe.storage import filesystem as files
from segpipe.warehouse.scan_slices import read_planes
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import SCANS

_LOG = logging.getLogger(__name__)


def restore(settings: RestoreSettings, tell: Callable[[str], None] = _LOG.warning) -> list[str]:
    """Write the source files of a scan below `settings.output`, under the paths that they had, and give these paths.

    The uncompressed bytes of NIfTI and MGH files are those of the source, except free text that ingest did not keep;
    the voxels are compared with the checksum that ingest took. A DICOM series is written as NIfTI, named after scan and
    modality; a file that was resampled at ingest cannot be rebuilt; `tell` is told of either, and of each file in how
    far it is its source. Raises NotFound if there is no such scan, and TableError if none of its files can be
    rebuilt, one is not what was ingested, or a path of the table leads out of the output folder.
    """
    warehouse = Store(settings.warehouse)
    row = _scan_row(warehouse, settings.scan)
    if is_resampled(row):
        raise TableError(
            f"Scan {settings.scan} was prepared: its slices hold resampled brains, from which its"
            f" {len(row['files'])} source files cannot be rebuilt",
            "use the source files; transforms and native grids are in `scans.preparation` and `scans.files`",
        )
    planes = read_planes(warehouse, row)
    written = []
    for path, rows in _by_path(row["files"]).items():
        if not all(_on_own_grid(one, row) for one in rows):
            tell(f"{path} was resampled to {row['resampled_to']} at ingest and cannot be rebuilt: use the source file")
            continue
        name = path
        if not rows[0]["header"]:
            name = f"{cohort_slug(settings.scan)}_{rows[0]['role']}.nii.gz"
            tell(f"{rows[0]['role']} was not a NIfTI file and is not rebuilt: {name} holds its voxels as NIfTI")
        target, whole = _write(settings.output, name, rows, planes, row["orientation"])
        written.append(target)
        tell(f"{name} {whole}")
    if not written:
        raise TableError(f"No file of scan {settings.scan} can be rebuilt", "ingest it without --resample-to")
    return written


def prove(warehouse: Store, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each source file of a scan that can be rebuilt, and in how far it is the one that was ingested.

    `row` is the scan's row of `scans`; nothing is written. Raises TableError if one is not what was ingested.
    """
    planes = read_planes(warehouse, row)
    for path, rows in _by_path(row["files"]).items():
        if all(_on_own_grid(one, row) for one in rows):
            yield path, _proof(path, _rebuilt(rows, planes, row["orientation"]), rows)


def _scan_row(warehouse: Store, scan_id: str) -> dict[str, Any]:
    known = warehouse.rows(SCANS, ["scan_id"])["scan_id"].to_pylist()
    if scan_id not in known:
        like = min((one for one in known if scan_id in one.split(":")), default=min(known, default=None))
        example = "" if like is None else f", such as {like}"
        raise NotFound(f"Scan {scan_id} is not in {warehouse.url}", f"take a scan_id from the table scans{example}")
    rows = warehouse.scans(scan_id.split(":")[0]).to_pylist()
    return next(row for row in rows if row["scan_id"] == scan_id)


def _by_path(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    paths: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        paths.setdefault(row["path"], []).append(row)
    return paths


def _on_own_grid(file: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether the slices hold the file's own voxels: turned, at most, but not resampled."""
    if is_resampled(row):
        return False
    if row["resampled_to"] is None:
        return True
    affine = np.reshape(file["affine"], (4, 4))
    turned = reorient_affine(affine, tuple(file["shape"][:3]), file["orientation"], row["orientation"])
    return sorted(file["shape"][:3]) == sorted(row["shape"]) and same_grid(turned, np.reshape(row["affine"], (4, 4)))


def _write(
    output: str, name: str, rows: list[dict[str, Any]], planes: Mapping[str, np.ndarray], orientation: str
) -> tuple[str, str]:
    """Write one file; its path, and in how far it is the one that was ingested."""
    if name.startswith("/") or ".." in name.split("/"):
        raise TableError(f"Path {name!r} leads out of {output}", "repair the column `files` of the table scans")
    volume = _rebuilt(rows, planes, orientation)
    whole = _proof(name, volume, rows)
    fs, root = files.filesystem(output)
    target = files.join(root, name)
    files.make_folder(fs, target.rpartition("/")[0])
    nifti.write(volume, fs.unstrip_protocol(target))
    return target, whole


def _rebuilt(rows: list[dict[str, Any]], planes: Mapping[str, np.ndarray], orientation: str) -> Volume:
    return scan_reader.restore(rows, [planes[row["role"]] for row in rows], orientation)


def _proof(name: str, volume: Volume, rows: list[dict[str, Any]]) -> str:
    """In how far a volume is the one that was ingested. Raises TableError if its voxels are not."""
    row = min(rows, key=lambda one: one["channel"])
    if row["voxels_crc32"] is None:
        return "was ingested by an earlier version: nothing proves its voxels"
    if nifti.voxels_crc32(volume.voxels, row["dtype"]) != row["voxels_crc32"]:
        raise _wrong(name, "its voxels have another checksum")
    if not row["header"]:
        return "has the voxels of the series (checksum)"
    if row["blanked"]:
        return f"is the source except for free text that was not kept: {', '.join(row['blanked'])} (checksum)"
    content = nifti.to_bytes(volume) + (nifti.image_bytes(volume) or b"")
    if len(content) != row["bytes"]:
        return "is the source byte for byte, once unpacked (checksum)"
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise _wrong(name, f"its SHA-256 is not {row['sha256']}")
    return "is the source byte for byte (SHA-256)"


def _wrong(name: str, why: str) -> TableError:
    return TableError(f"{name} is not restored as it was ingested: {why}", "run `verify`, and ingest the scan again")
