"""Whether a warehouse is whole: every page and footer of every part, and what the tables promise of each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segpipe.errors import BadInput, SegpipeError
from segpipe.pipelines import attempts
from segpipe.pipelines.restore import prove
from segpipe.settings import VerifySettings
from segpipe.warehouse import checked, merges, parts, slices
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import FAMILIES, INDEX_OF, SCANS, SLICES, TABLES, with_later_columns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress

_FAMILIES = [family for family in FAMILIES if len(family) > 1]
_PARTS_PER_TASK = 4
_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """What was found of a part: `problem` is None if nothing is wrong, `sealed` says that it has checksums."""

    table: str
    part: str
    rows: int = 0
    size: int = 0
    sealed: bool = False
    stamp: bytes | None = None
    problem: str | None = None


def verify(
    spark: SparkSession, settings: VerifySettings, run: RunRecord, progress: Progress | None = None
) -> list[str]:
    """Read every part of every table, and say what is wrong: one line per damaged part or broken promise.

    With `settings.rebuild` every source file is rebuilt as `restore` does and compared with its checksum. Nothing is
    changed.
    """
    warehouse = Store(settings.warehouse)
    todo = [(table, name) for table in TABLES for name in _files(warehouse, table)]
    with run.stage("verify"):
        verdicts = _run_tasks(spark, todo, settings, run.run_id, progress)
        problems = [f"{one.table}/{one.part}.parquet: {one.problem}" for one in verdicts if one.problem is not None]
        problems += _families(verdicts) + _promises(warehouse, verdicts)
    run.count("parts", len(verdicts))
    run.count("rows", sum(one.rows for one in verdicts))
    run.count("bytes", sum(one.size for one in verdicts))
    run.count("parts_without_checksums", sum(not one.sealed and one.problem is None for one in verdicts))
    run.count("problems", len(problems))
    run.lines += problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
    return problems


def _files(warehouse: Store, table: str) -> list[str]:
    """The part files of a table, those without a row in its index table too, except for what was replaced."""
    return merges.counted(warehouse, table, INDEX_OF[table])


def verify_part(url: str, table: str, name: str, rebuild: bool = False) -> Verdict:
    """Read all of a part, a row group at a time."""
    warehouse = Store(url)
    path = warehouse.path(table, f"{name}.parquet")
    try:
        with checked.open_part(warehouse.fs, path) as part:
            TABLES[table].check(part.schema, path)
            stamp, sealed = (part.metadata.metadata or {}).get(parts.STAMP), checked.is_sealed(part.metadata)
            for number in range(part.row_groups):
                rows = part.row_group(number)
                if table == SLICES.name:
                    for _ in slices.decode(rows, path):
                        pass
        if rebuild and table == SCANS.name:
            _rebuild(warehouse, name)
        return Verdict(table, name, part.metadata.num_rows, part.size, sealed, stamp)
    except SegpipeError as error:
        return Verdict(table, name, problem=" ".join(str(error.problem).split()))
    except FileNotFoundError:
        return Verdict(table, name, problem="it was replaced or removed meanwhile: verify again")


def _rebuild(warehouse: Store, name: str) -> None:
    """Raise TableError if a source file of a part's scans cannot be rebuilt as it was."""
    with checked.open_part(warehouse.fs, warehouse.path(SCANS.name, f"{name}.parquet")) as part:
        groups = [with_later_columns(part.row_group(number), SCANS) for number in range(part.row_groups)]
    rows = [row for group in groups for row in group.to_pylist()]
    for row in rows:
        for _ in prove(warehouse, row):
            pass


def _run_tasks(
    spark: SparkSession,
    todo: Sequence[tuple[str, str]],
    settings: VerifySettings,
    run_id: str,
    progress: Progress | None,
) -> list[Verdict]:
    if not todo:
        return []
    url, rebuild = settings.warehouse, settings.rebuild
    with attempts.running(spark, run_id, len(todo), "verify", progress) as bar:
        told = attempts.tally(spark, bar, unit="parts", bad="damaged")

        def look(one: tuple[str, str], watch: attempts.Watch) -> Verdict:
            try:
                watch.enter("/".join(one), "Reading it")
                verdict = verify_part(url, *one, rebuild)
            except BadInput as error:
                verdict = Verdict(*one, problem=error.problem)
            told.add((1, verdict.problem is not None))
            return verdict

        return attempts.each(spark, Store(url), run_id, todo, look, -(-len(todo) // _PARTS_PER_TASK))


def _families(verdicts: Sequence[Verdict]) -> list[str]:
    """Parts of one name in tables that are written together: both are there, and of one writing."""
    found: defaultdict[str, dict[str, Verdict]] = defaultdict(dict)
    for one in verdicts:
        found[one.table][one.part] = one
    problems = []
    for first, index in _FAMILIES:
        for name in sorted(found[first.name].keys() | found[index.name].keys()):
            pair = [found[table.name].get(name) for table in (first, index)]
            missing = [table.name for table, one in zip((first, index), pair, strict=True) if one is None]
            stamps = {one.stamp for one in pair if one is not None and one.problem is None}
            if missing:
                problems.append(f"{missing[0]}/{name}.parquet: it is missing, but the other half of its part is there")
            elif len(stamps) > 1:
                problems.append(
                    f"{first.name}/{name}.parquet: it is not of the same run as {index.name}/{name}.parquet"
                )
    return problems


def _promises(warehouse: Store, verdicts: Sequence[Verdict]) -> list[str]:
    """What the readers of `scans` and `slices` rely on, cohort by cohort; not asked where a part is damaged."""
    if any(one.problem for one in verdicts if one.table in (SCANS.name, SLICES.name)):
        return []
    if not warehouse.parts(SCANS.name):
        return []
    cohorts = sorted(set(warehouse.table(SCANS.name).to_table(["cohort"])["cohort"].to_pylist()))
    problems = []
    for cohort in cohorts:
        try:
            warehouse.slice_parts(cohort)
        except SegpipeError as error:
            problems.append(f"cohort {cohort}: {error.problem}")
    return problems
