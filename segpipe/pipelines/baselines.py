"""Which visit of a patient a scan follows when it is prepared, and that visit as the registration wants it.

Visits come in any order, in different tasks and in different runs. So it is settled in the plan, from what stands in
the tables and what the archive has, and no run ever moves a scan that stands:

* A patient's baseline is the visit that the others on record follow. If there is none yet, it is the archive's first.
* A visit that is not in the tables as the archive has it now is prepared again, as far as that takes, in whichever task
  wants it. As a preparation gives the same bits twice, the tables do not depend on which task is first.
* A visit that cannot be prepared, or that kills its workers, is no baseline: the next one is. A scan that cannot be
  laid onto its baseline, or whose earlier visits are no baselines, is flagged and stands on its own.
* A fault that need not lie in a visit, as of a disk, settles nothing at once: what is to follow the visit waits for the
  next run, and only then goes on without it. For a damaged part of the tables it waits until that is mended.
* If the files of a baseline change, it is laid onto the visits that follow it, and the run says so.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.core.follow_up import in_order
from segpipe.errors import BadInput, NotFound, Reason, TableError
from segpipe.pipelines.attempts import RETRIED, Watch
from segpipe.prepare.scan import PREPARED, REFERENCES, Baseline, baseline_of
from segpipe.readers.archive import Earlier, Listing, ScanSource
from segpipe.readers.scan import LoadedScan
from segpipe.warehouse.scan_slices import read_channel, scan_rows
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SEGMENTATIONS, Table

if TYPE_CHECKING:
    from segpipe.pipelines.ingest_task import IngestJob

_IDENTITY = ("scan_id", "subject", "session", "fingerprint")
_MOST = 4
"""Visits that are tried before a scan stands on its own."""


@dataclass(frozen=True)
class _Visit:
    """A visit on record: `part` is that of `scans`, None if only its predictions were kept."""

    scan_id: str
    session: str
    fingerprint: str
    follows: tuple[str, str] | None
    part: str | None

    @property
    def key(self) -> tuple[str, str]:
        """What `follows` of another visit would say of it."""
        return self.session, self.fingerprint


def with_earlier_visits(warehouse: Store, job: IngestJob, listing: Listing) -> Listing:
    """The listing with, for every scan of a patient with several visits, those that it may follow."""
    if not job.settings.prepare:
        return listing
    recorded = _recorded(warehouse, job.settings.cohort)
    sources: defaultdict[str, list[ScanSource]] = defaultdict(list)
    for source in listing.scans:
        sources[source.subject].append(source)
    moments = _moments(listing)
    found: dict[tuple[str, str], tuple[Earlier, ...]] = {}
    changed = 0
    for subject, visits in sources.items():
        if len(visits) + len(recorded.get(subject, ())) > 1:
            patient = _Patient.of(job, visits, recorded.get(subject, ()), moments)
            found |= {source.identity: patient.earlier(source) for source in visits}
            changed += patient.baseline_changed
    told = list(listing.told)
    if changed:
        told.append(
            f"files of the baseline of {changed} patients have changed: it is laid onto the visits that follow it,"
            " which stay as they are"
        )
    scans = [
        replace(source, earlier=found.get(source.identity, ()), moment=moments.get(source.identity))
        for source in listing.scans
    ]
    return replace(listing, scans=scans, told=tuple(told))


@dataclass(frozen=True)
class _Patient:
    """What a patient has: files by session in order, with their fingerprints, and visits on record that stay so."""

    scan_ids: Mapping[str, str]
    sources: Mapping[str, ScanSource]
    prints: Mapping[str, str]
    stays: Sequence[_Visit]

    @classmethod
    def of(
        cls,
        job: IngestJob,
        sources: Sequence[ScanSource],
        recorded: Sequence[_Visit],
        moments: Mapping[tuple[str, str], float],
    ) -> _Patient:
        by_session = {source.session: source for source in sources}
        names = in_order({name: moments.get(source.identity) for name, source in by_session.items()})
        ordered = {name: by_session[name] for name in names or sorted(by_session)}
        prints = {name: job.fingerprint(source) for name, source in ordered.items()}
        stays = [visit for visit in recorded if prints.get(visit.session, visit.fingerprint) == visit.fingerprint]
        stays.sort(key=lambda visit: (visit.follows is not None, visit.part is None, visit.session))
        return cls({name: job.scan_id(source) for name, source in ordered.items()}, ordered, prints, stays)

    def earlier(self, source: ScanSource) -> tuple[Earlier, ...]:
        """What a scan may follow, the best first; nothing for a baseline."""
        mine = (source.session, self.prints[source.session])
        visit = self._by_key.get(mine)
        if visit is not None:  # it is on record and comes to the same place again
            return () if visit.follows is None else self._wanted([visit.follows, mine])
        if mine in self._followed:
            return ()
        before = islice(self.prints.items(), self._rank[source.session])
        return self._wanted(chain(self._roots, self._followed, before, (one.key for one in self.stays)))

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], _Visit]:
        """The visits that stay; the best where several are the same."""
        return {visit.key: visit for visit in reversed(self.stays)}

    @cached_property
    def _roots(self) -> list[tuple[str, str]]:
        return [visit.key for visit in self.stays if visit.follows is None]

    @cached_property
    def _followed(self) -> dict[tuple[str, str], None]:
        return dict.fromkeys(visit.follows for visit in self.stays if visit.follows is not None)

    @cached_property
    def _rank(self) -> dict[str, int]:
        return {session: rank for rank, session in enumerate(self.prints)}

    def _wanted(self, keys: Iterable[tuple[str, str]]) -> tuple[Earlier, ...]:
        """Where the first of these visits can be had from; no more are looked at than are taken."""
        found: dict[tuple[str, str], Earlier] = {}
        for key in keys:
            place = self._place(*key)
            if place is not None:
                found[key] = place
            if len(found) == _MOST:
                break
        return tuple(found.values())

    def _place(self, session: str, fingerprint: str) -> Earlier | None:
        """Where a visit can be had from as its fingerprint says."""
        visit = self._by_key.get((session, fingerprint))
        if visit is not None and visit.part is not None:
            return Earlier(visit.scan_id, session, fingerprint, part=visit.part)
        on_its_own = visit is None or visit.follows is None
        if self.prints.get(session) == fingerprint and on_its_own:
            return Earlier(self.scan_ids[session], session, fingerprint, source=self.sources[session])
        return None

    @property
    def baseline_changed(self) -> bool:
        """Whether visits on record follow one whose files are others now."""
        return any(self.prints.get(session, print_) != print_ for session, print_ in self._followed)


def _recorded(warehouse: Store, cohort: str) -> dict[str, list[_Visit]]:
    """The prepared visits on record, by subject: those of the tables, and those of which only predictions were kept."""
    found: dict[str, tuple[str, _Visit]] = {}
    for table in (SEGMENTATIONS, SCANS):  # what stands in the tables comes last and counts
        for row in _rows(warehouse, table, cohort) if warehouse.parts(table.name) else ():
            follows = row["follows"] and (row["follows"]["session"], row["follows"]["fingerprint"])
            part = row["part"] if table is SCANS else None
            visit = _Visit(row["scan_id"], row["session"], row["fingerprint"], follows, part)
            found[str(row["scan_id"])] = (str(row["subject"]), visit)
    visits: defaultdict[str, list[_Visit]] = defaultdict(list)
    for subject, visit in found.values():
        visits[subject].append(visit)
    return visits


def _rows(warehouse: Store, table: Table, cohort: str) -> list[dict[str, Any]]:
    try:
        if table is SCANS:
            rows = warehouse.scans(cohort, (*_IDENTITY, "space", "follows", "part")).to_pylist()
        else:
            rows = warehouse.rows(table, (*_IDENTITY, "placed"), cohort).to_pylist()
    except NotFound:
        return []
    flat = [row | (row.get("placed") or {}) for row in rows]
    return [row for row in flat if row.get("space") is not None]


def _moments(listing: Listing) -> dict[tuple[str, str], float]:
    """When each visit of a DICOM archive began, on its patient's own clock."""
    found: dict[tuple[str, str], float] = {}
    for one in listing.series:
        facts = one.series.facts
        if one.series.moment is not None and facts.day is not None:
            key = (facts.subject, one.session)
            found[key] = min(one.series.moment, found.get(key, one.series.moment))
    return found


# The visit itself, in a task


@dataclass(frozen=True, eq=False)
class _Kept:
    """The reference of the visit that was wanted last: stored values in the space."""

    session: str
    fingerprint: str
    image: np.ndarray
    orientation: str
    slope: float
    inter: float

    def baseline(self) -> Baseline:
        return baseline_of(self.session, self.fingerprint, self.image, self.orientation, self.slope, self.inter)


_kept: dict[tuple[str, str, str], _Kept] = {}
"""By warehouse, scan_id and fingerprint; one at most, because a visit of all modalities takes 150 MB."""


def remember(warehouse: str, scan_id: str, fingerprint: str, scan: LoadedScan) -> None:
    """Keep a scan that was prepared on its own, for visits that follow it in the same process."""
    if not scan.source.earlier:
        _keep(warehouse, Earlier(scan_id, scan.source.session, fingerprint), scan)


def first(
    warehouse: Store,
    wanted: Sequence[Earlier],
    read: Callable[[ScanSource], LoadedScan],
    watch: Watch | None = None,
    waited: bool = False,
) -> Baseline | None:
    """The first of these visits that can be followed, or None; `read` prepares one from its files.

    `watch` sees which visit a worker dies on. `waited` says that the scan which is to follow has waited for a run
    already, so that it goes on without a visit that cannot be read. Raises BadInput, with a reason that is tried again
    by the next run, if it has not, or if the part of the tables that a visit stands in is damaged.
    """
    for one in wanted:
        key = (warehouse.url, one.scan_id, one.fingerprint)
        if key not in _kept:
            try:
                if one.part is not None:
                    _from_table(warehouse, one)
                elif one.source is not None:
                    _from_files(warehouse, one, one.source, read, watch, waited)
            except TableError as error:  # the scan is good, and the tables may be mended or at rest by the next run
                raise BadInput(Reason.UNREADABLE, error.problem, error.remedy) from error
        if key in _kept:
            return _kept[key].baseline()
    return None


def _from_table(warehouse: Store, one: Earlier) -> None:
    assert one.part is not None  # the caller has looked
    try:
        row = scan_rows(warehouse, one.part, [one.scan_id])[one.scan_id]
    except (FileNotFoundError, KeyError):  # another run has replaced it since the plan
        return
    if row["fingerprint"] == one.fingerprint and row["preparation"]["how"] == PREPARED:
        role = row["preparation"]["reference"]
        file = next(file for file in row["files"] if file["role"] == role)
        image = read_channel(warehouse, one.part, row, role)
        _put(warehouse.url, one, image, row["orientation"], file["slope"], file["inter"])


def _from_files(
    warehouse: Store,
    one: Earlier,
    source: ScanSource,
    read: Callable[[ScanSource], LoadedScan],
    watch: Watch | None,
    waited: bool,
) -> None:
    """Have it prepared from its files, if it can be and has not killed too many workers."""
    with contextlib.ExitStack() as watched:
        if watch is not None:
            try:
                watched.enter_context(watch.aside(one.scan_id))
            except BadInput:  # it is given up here, and told where its own row would be written
                return
        failed = _prepare(warehouse, one, source, read)
    if failed is not None and failed.reason in RETRIED and not waited:
        problem = f"{one.scan_id}, which this scan is to follow, is not to be had: {failed.problem}"
        raise BadInput(failed.reason, problem, failed.remedy) from failed


def _prepare(
    warehouse: Store, one: Earlier, source: ScanSource, read: Callable[[ScanSource], LoadedScan]
) -> BadInput | None:
    """Prepare its reference alone, which takes a third of the time; all of it where that does not do, or why not."""
    roles = [file.role for file in source.files]
    role = next((role for role in REFERENCES if role in roles), roles[0])
    alone = replace(source, files=tuple(file for file in source.files if file.role == role), earlier=())
    failed = None
    for each in (alone, replace(source, earlier=())):
        try:
            if _keep(warehouse.url, one, read(each)):
                return None
        except BadInput as error:
            failed = error
    return failed


def _keep(warehouse: str, one: Earlier, scan: LoadedScan) -> bool:
    if scan.preparation is None or scan.preparation["how"] != PREPARED:
        return False
    role = scan.preparation["reference"]
    _put(warehouse, one, scan.images[role], scan.orientation, *scan.slopes[role])
    return True


def _put(warehouse: str, one: Earlier, image: np.ndarray, orientation: str, slope: float, inter: float) -> None:
    _kept.clear()
    key = (warehouse, one.scan_id, one.fingerprint)
    _kept[key] = _Kept(one.session, one.fingerprint, image, orientation, slope, inter)
