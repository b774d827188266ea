"""The table `series`: what every DICOM series of an archive is and what became of it, kept up run after run."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from segpipe.errors import NotFound, UsageError
from segpipe.readers.names import MASK, MODALITIES
from segpipe.readers.series import ALSO, IGNORE, NOT_SELECTED, OVERRIDE, RULES_VERSION, SELECTED, Judged, Options
from segpipe.settings import SeriesSettings
from segpipe.storage import url_to_fs
from segpipe.storage.lock import Fence
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import SEGMENTATIONS, SERIES

_OF_A_RUN = ("run_id",)  # columns that do not make a row another one


def options(settings: SeriesSettings, warehouse: Store | None = None, cohort: str = "") -> Options:
    """How the settings want series to become scans; with a warehouse, what earlier runs selected is kept in mind.

    Raises UsageError for an unknown kind in `also` and for a map that cannot be read as one.
    """
    also = tuple(word.strip().upper() for word in (settings.also or "").split(",") if word.strip())
    wrong = [word for word in also if word not in ALSO]
    if wrong:
        raise UsageError(f"--also names {', '.join(wrong)}", f"choose among {', '.join(ALSO)}")
    if warehouse is None:
        return Options(settings.session, settings.prefer, also, series_map(settings.series_map))
    earlier, visits = selected(warehouse, cohort), partial(_segmented, warehouse, cohort)
    return Options(settings.session, settings.prefer, also, series_map(settings.series_map), earlier, visits=visits)


def series_map(url: str | None) -> dict[str, str]:
    """Roles by description, protocol or series UID, lower case; with a vendor, `vendor<tab>text`.

    Commas, semicolons or tabs part its columns, as spreadsheets write them. Raises NotFound if there is no such file,
    UsageError if it is no map.
    """
    if url is None:
        return {}
    fs, path = url_to_fs(url)
    if not fs.isfile(path):
        raise NotFound(f"--series-map {url} is not a file", "name a CSV file with columns text and role")
    try:
        text = fs.cat_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--series-map {url} is not in UTF-8", "save it as CSV UTF-8") from None
    heading = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=next((d for d in ";\t" if d in heading), ","))
    columns = [str(name).strip() for name in reader.fieldnames or ()]
    if not {"text", "role"} <= set(columns):
        told = f"--series-map {url} has the columns {', '.join(columns) or 'of an empty file'}"
        raise UsageError(told, "begin it with the line text,role, or vendor,text,role")
    rows = [{str(k).strip(): (v or "").strip() for k, v in row.items() if k} for row in reader]
    allowed = {role.casefold(): role for role in (*MODALITIES, *ALSO, IGNORE)}
    found = {}
    for number, row in enumerate(rows, start=2):
        if not row.get("text") or row.get("role", "").casefold() not in allowed:
            message = f"--series-map {url} line {number} lacks its text, or its role is not a known one"
            raise UsageError(message, f"write a text and one of {', '.join(allowed.values())}")
        vendor = f"{row['vendor'].casefold()}\t" if row.get("vendor") else ""
        found[f"{vendor}{row['text'].casefold()}"] = allowed[row["role"].casefold()]
    return found


def rows(
    judged: Sequence[Judged],
    cohort: str,
    run_id: str,
    rejected_scans: Collection[str] = (),
    entered: Mapping[str, Collection[str]] | None = None,
) -> list[dict[str, Any]]:
    """The rows of all series; those of `rejected_scans` are in no scan.

    `entered` are the modalities of the scans that stand in the tables: a series that dropped out of its scan is told.
    """
    return [_row(one, cohort, run_id, rejected_scans, entered or {}) for one in judged]


def _row(
    one: Judged, cohort: str, run_id: str, rejected_scans: Collection[str], entered: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    facts, series = one.facts, one.series
    scan_id, decision, reason = _outcome(one, f"{cohort}:{facts.subject}:{one.session}", rejected_scans, entered)
    return {
        "series_id": facts.series,
        "cohort": cohort,
        "subject": facts.subject,
        "session": one.session,
        "study": facts.study,
        "scan_id": scan_id,
        "role": one.role,
        "confidence": one.certain,
        "evidence": list(one.evidence),
        "decision": decision,
        "reason": reason,
        "rules": RULES_VERSION,
        "seconds": one.seconds,
        "moment": series.moment if facts.day is not None else None,  # a time of day alone orders no visits
        "instances": series.count,
        "slices": len(series.places),
        "times": series.times,
        "rows": facts.rows,
        "columns": facts.columns,
        "pixel_mm": list(facts.pixel_mm),
        "step_mm": series.step_mm,
        "plane": facts.plane,
        "modality": facts.modality,
        "body_part": facts.body,
        "vendor": facts.vendor,
        "image_type": list(facts.image_type),
        "sequence": [*facts.sequence, *facts.variant],
        "dimensions": facts.dimensions,
        "acquisition_contrast": facts.acquisition_contrast,
        "echo_time_ms": facts.echo_time,
        "repetition_time_ms": facts.repetition_time,
        "inversion_time_ms": facts.inversion_time,
        "flip_angle": facts.flip_angle,
        "b_values": list(facts.b_values),
        "agent": facts.agent,
        "words": list(dict.fromkeys((*facts.said.words, *facts.protocol_said.words))),
        "text_hash": facts.text,
        "bytes": series.size,
        "run_id": run_id,
    }


def _outcome(
    one: Judged, scan_id: str, rejected_scans: Collection[str], entered: Mapping[str, Collection[str]]
) -> tuple[str | None, str, str]:
    """The scan that a series is in, if it is in one, what was decided, and why."""
    if one.decision not in (SELECTED, OVERRIDE) or one.role is None:
        return None, one.decision, one.reason
    if scan_id in rejected_scans:
        if one.role in entered.get(scan_id, ()):
            return scan_id, one.decision, "its scan stands as it was: it could not be made again, see `quarantine`"
        return None, NOT_SELECTED, "its scan was rejected, see `quarantine`"
    if one.role != MASK and one.role not in entered.get(scan_id, (one.role,)):
        return None, NOT_SELECTED, "it cannot be used or does not fit its scan, see `quarantine`"
    return scan_id, one.decision, one.reason


def keep(warehouse: Store, fence: Fence, cohort: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Bring the table up to date and give the number of new or changed rows.

    Rows stand in a part per first digit of the subject, and only parts in which something changed are written. Series
    that are no longer in the source keep their row.
    """
    known = _known(warehouse, cohort)
    changed = [row for row in rows if _content(row) != _content(known.get(row["series_id"], {}))]
    wanted = {row["subject"][:1] for row in changed}
    merged = {**known, **{row["series_id"]: dict(row) for row in changed}}
    by_part = sorted(merged.values(), key=lambda row: (row["subject"], row["session"], row["series_id"]))
    for digit, group in itertools.groupby(by_part, key=lambda row: row["subject"][:1]):
        if digit in wanted:
            name = f"{cohort_slug(cohort)}.series-{digit}"
            with PartWriter(warehouse, (SERIES,), name, fence.run_id, fence) as part:
                part.write(SERIES.name, pa.Table.from_pylist(list(group), SERIES.schema))
    return len(changed)


def _known(warehouse: Store, cohort: str) -> dict[str, dict[str, Any]]:
    if not warehouse.exists() or not warehouse.parts(SERIES.name):
        return {}
    table = warehouse.table(SERIES.name).to_table(filter=ds.field("cohort") == cohort)
    return {row["series_id"]: row for row in table.to_pylist()}


def selected(warehouse: Store, cohort: str) -> dict[str, tuple[str, str, str]]:
    """Subject, session and role of every series that is in a scan."""
    if not warehouse.exists() or not warehouse.parts(SERIES.name):
        return {}
    wanted = (ds.field("cohort") == cohort) & pc.is_valid(ds.field("scan_id"))
    columns = ["series_id", "subject", "session", "role"]
    table = warehouse.table(SERIES.name).to_table(columns, filter=wanted)
    return {row["series_id"]: (row["subject"], row["session"], row["role"]) for row in table.to_pylist()}


def _segmented(warehouse: Store, cohort: str) -> dict[str, str]:
    """The subject of every session in `segmentations` that one subject alone has: `segment` writes no `series`."""
    if not warehouse.exists() or not warehouse.parts(SEGMENTATIONS.name):
        return {}
    rows = warehouse.rows(SEGMENTATIONS, ["session", "subject"], cohort).group_by(["session", "subject"]).aggregate([])
    found: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["session"], set()).add(row["subject"])
    return {session: next(iter(subjects)) for session, subjects in found.items() if len(subjects) == 1}


def _content(row: Mapping[str, Any]) -> str:
    content = [(name, row.get(name)) for name in SERIES.schema.names if name not in _OF_A_RUN]
    return hashlib.sha256(repr(content).encode()).hexdigest()
