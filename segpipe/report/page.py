"""The report: one HTML file that opens from disk and needs nothing else."""

import errno
import math
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from segpipe import __version__
from segpipe.core.regions import LabelConvention
from segpipe.errors import NotFound, SegpipeError
from segpipe.report import results
from segpipe.report.figures import history_charts, solid, strip, volume_charts
from segpipe.report.preparations import preparation, unlike_cohort, worst_first
from segpipe.report.results import ReportedModel, Row, Source
from segpipe.storage.filesystem import filesystem, replace
from segpipe.warehouse.store import Store

SPLITS = ("test", "validation", "train")
_GRIDS = 8
_CHANGES = 300
_RUNS = 30
_SCRIPT = ("preparations.js",)
_KINDS = 16  # of DICOM series


def build(
    warehouse: str,
    cohort: str,
    model: str,
    output: str | Path,
    *,
    note: str | None = None,
    strips: int = 24,
    slices_per_strip: int = 5,
    surfaces: int = 6,
    preparations: int = 100,
) -> str:
    """Write the report of `model` (directory, or model_id) on a cohort to the file or URL `output`; gives `output`.

    `note` is shown as a banner at the top: say there what a reader must know of the data, such as that it
    is synthetic. Pictures are made of the `strips` worst held-out scans, surfaces of the `surfaces` worst, and of the
    `preparations` worst preparations; the table holds all. Raises NotFound if there is nothing to report, TableError
    or ModelError where what there is contradicts itself.
    """
    tables = Store(str(warehouse))
    described = results.find_model(str(model))
    scans, rows = results.find_results(tables, cohort, described)
    content = _content(tables, cohort, described, scans, rows, note, (strips, slices_per_strip, surfaces))
    stored = [scan for scan in scans.values() if results.is_stored(scan)]
    content |= _preparations(Source(tables), stored, preparations)
    content["changes"], content["more_changes"] = results.changes(tables, scans, described, _CHANGES)
    _write(str(output), _render(content, "template.html", ("page.js", "solids.js", *_SCRIPT)))
    return str(output)


def build_preparations(
    warehouse: str, cohort: str, output: str | Path, *, note: str | None = None, preparations: int = 100
) -> str:
    """Write a page of the `preparations` worst preparations of a cohort, for which no model is needed; gives `output`.

    Raises NotFound if the cohort has no scans, or none that `ingest --prepare` has seen.
    """
    tables = Store(str(warehouse))
    scans = tables.scans(cohort, results.SCAN_COLUMNS).to_pylist()
    if not any(scan["preparation"] for scan in scans):
        problem = f"No scan of cohort {cohort!r} was ingested with --prepare, and without --model nothing else is shown"
        raise NotFound(problem, "give the --model whose results the page is about")
    content = {"cohort": cohort, "made": _now(), "version": __version__, "note": note}
    page = _render(content | _preparations(Source(tables), scans, preparations), "preparations_page.html", _SCRIPT)
    _write(str(output), page)
    return str(output)


def _preparations(source: Source, scans: list[Row], most: int) -> Row:
    chosen = worst_first(scans)
    alone = sum(bool(scan["preparation"]) for scan in scans) - len(chosen)
    unlike = unlike_cohort(scans)
    shown = [preparation(source, scan, unlike.get(scan["scan_id"], ())) for scan in chosen[:most]]
    return {"preparations": shown, "more_preparations": len(chosen) - len(shown), "left_alone": alone}


def _now() -> str:
    return f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _content(
    tables: Store,
    cohort: str,
    model: ReportedModel,
    scans: dict[str, Row],
    rows: list[Row],
    note: str | None,
    numbers: tuple[int, int, int],
) -> dict[str, Any]:
    convention = results.convention_of(model, scans.values())
    regions = [region for region in convention.region_names if any(row["region"] == region for row in rows)]
    splits = [split for split in SPLITS if any(row["split"] == split for row in rows)]
    judged = [row for row in rows if row["split"] == splits[0]]
    measures = [results.measures(judged, region) for region in regions]
    rejected = results.quarantined(tables, cohort)
    runs = results.runs_of(tables, cohort, model.ids)
    return {
        "cohort": cohort,
        "model_id": model.model_id,
        "made": _now(),
        "version": __version__,
        "note": _note(note, model),
        "judged": f"{splits[0]} patients",
        "cards": _cards(scans, measures[0], splits[0], sum(row["inputs"] for row in rejected)),
        "cohort_splits": results.splits_of(scans.values(), rows, regions[0]),
        "rejected": rejected,
        "measures": measures,
        "charts": history_charts(model) + volume_charts(rows, regions, splits[0]),
        "regions": regions,
        "splits": splits,
        "rows": _in_order(rows, splits, regions),
        "runs": [_run(run) for run in runs[-_RUNS:]],
        "earlier_runs": len(runs[:-_RUNS]),
        **_of_archive(tables, cohort, model, scans),
        **_drawn(tables, model, convention, scans, judged, regions[0], numbers),
    }


def _in_order(rows: list[Row], splits: list[str], regions: list[str]) -> list[Row]:
    """Rows split by split and region by region, the worst first."""
    shown = results.worst_first([row for row in rows if row["split"] in splits])
    return sorted(shown, key=lambda row: (splits.index(row["split"]), regions.index(row["region"])))


def _of_archive(tables: Store, cohort: str, model: ReportedModel, scans: dict[str, Row]) -> Row:
    """Where the scans come from: the tables or an archive, DICOM series, grids, and how they are stored."""
    stored = {scan_id: scan for scan_id, scan in scans.items() if results.is_stored(scan)}
    series = results.series_of(tables, cohort)
    grids = results.grids_of(scans.values())
    return {
        "modalities": [_display_name(name) for name in _modalities(stored) or model.bundle.get("modalities", [])],
        "grids": grids[:_GRIDS],
        "more_grids": len(grids[_GRIDS:]),
        "series": series[:_KINDS],
        "more_series": sum(row["series"] for row in series[_KINDS:]),
        "from_archive": len(scans) - len(stored),
        "right_is_left": all(scan["orientation"].endswith("L") for scan in stored.values()),
        "split_rule": next((scan["split_rule"] for scan in stored.values()), None),
    }


def _drawn(
    tables: Store,
    model: ReportedModel,
    convention: LabelConvention,
    scans: dict[str, Row],
    judged: list[Row],
    region: str,
    numbers: tuple[int, int, int],
) -> Row:
    """Slices and surfaces of the scans with the worst `region` that the tables hold."""
    strips, slices_per_strip, surfaces = numbers
    source = Source(tables)
    order = results.worst_first([row for row in judged if row["region"] == region])
    drawn = [scans[row["scan_id"]] for row in order if results.is_stored(scans[row["scan_id"]])]
    return {
        "background": _display_name(results.background_modality(drawn[0]["modalities"])) if drawn else "",
        "strips": [strip(source, scan, model, convention, judged, slices_per_strip) for scan in drawn[:strips]],
        "solids": [solid(source, scan, model, convention, judged) for scan in drawn[:surfaces]],
        "not_shown": len(order) - len(drawn[:strips]),
    }


def _note(note: str | None, model: ReportedModel) -> str | None:
    """The note, and of a network that was trained elsewhere its name, licence and what to cite."""
    network = model.bundle.get("adopted", {}).get("card", {}).get("network")
    if not network:
        return note
    told = f"Network: {network['name']}, trained elsewhere; licence: {network['licence']}; cite: {network['citation']}."
    return f"{note} {told}" if note else told


def _cards(scans: dict[str, Row], first: results.ReportedRegion, split: str, rejected: int) -> list[Row]:
    patients = {scan["subject"]: scan["split"] for scan in scans.values()}
    slices = sum(scan["shape"][0] for scan in scans.values() if results.is_stored(scan))
    counts = [f"{sum(found == name for found in patients.values())} {name}" for name in reversed(SPLITS)]
    region = _spaced(first.region)
    cards = [
        {"label": "patients", "value": f"{len(patients):,}", "detail": ", ".join(counts)},
        {
            "label": "scans",
            "value": f"{len(scans):,}",
            "detail": f"{slices:,} slices" if slices else "straight from their archive",
        },
        {"label": "inputs in quarantine", "value": f"{rejected:,}"},
    ]
    if first.mean_dice is not None:
        detail = f"{first.scans} {split} {'scan' if first.scans == 1 else 'scans'}"
        cards.append({"label": f"mean Dice, {region}", "value": f"{first.mean_dice:.3f}", "detail": detail})
    if first.median_hd95_mm is not None:
        cards.append({"label": f"median HD95, {region}", "value": f"{first.median_hd95_mm:.1f} mm"})
    return cards


def _run(run: Row) -> Row:
    stages = sorted(run["stage_seconds"] or [], key=lambda stage: -stage[1])[:3]
    return {
        **run,
        "started": f"{run['started']:%Y-%m-%d %H:%M:%S}",
        "seconds": None if math.isnan(run["seconds"]) else run["seconds"],
        "stages": ", ".join(f"{_spaced(name)} {seconds:.1f} s" for name, seconds in stages),
    }


def _modalities(scans: dict[str, Row]) -> list[str]:
    return sorted({name for scan in scans.values() for name in scan["modalities"]})


def _display_name(modality: str) -> str:
    known = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
    return known.get(modality, modality)


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")


def _render(content: dict[str, Any], template: str, scripts: tuple[str, ...]) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spaced"] = _spaced
    script = Markup("".join(map(_text, scripts)))
    return environment.get_template(template).render(**content, style=Markup(_text("style.css")), script=script)


def _text(name: str) -> str:
    return resources.files("segpipe.report").joinpath(name).read_text("utf-8")


def _write(output: str, page: str) -> None:
    """Write whole or not at all: a reader never meets half a page."""
    fs, path = filesystem(output)
    try:
        fs.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)
        if fs.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        replace(fs, path, page.encode("utf-8"))
    except OSError as fault:
        problem = f"Report {output} cannot be written ({fault.strerror or fault})"
        raise SegpipeError(problem, "name a file in a folder of yours") from None
