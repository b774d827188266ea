"""What each DICOM series of an archive is, whose visit it belongs to, and which enter a scan: `judge`.

First each series is looked at alone: the site's own map, exclusions, the standard's words, the words of people, and
physics as veto and where words are silent. Then those of a visit together: contrast agent and time tell T1 after
contrast from T1 before, and one series of each modality is selected. Disagreement is a conflict, never a guess.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segpipe.readers import recognise
from segpipe.readers.dicom_index import PHANTOM, Facts, Series
from segpipe.readers.names import MASK, MODALITIES
from segpipe.readers.recognise import FLAIR, OTHER, T1, T1CE, T2

SELECTED, NOT_SELECTED, EXCLUDED, CONFLICT, OVERRIDE, UNKNOWN = (
    "selected", "not selected", "excluded", "conflict", "override", "unknown",
)  # fmt: skip
RULES_VERSION = f"12.{recognise.RULES_VERSION}"
SESSIONS, PREFERENCES = ("study", "date", "accession"), ("2d-axial", "3d")
_DETAIL_ROLES = {"ADC": "ADC", "diffusion": "DWI", "SWI": "SWI", "T2*": "SWI", "dual echo": "PD"}
ALSO = ("ADC", "DWI", "SWI", "PD")
IGNORE = "ignore"  # what a site's map calls a series that must not be used
_LEAST_SLICES = 10  # of a series that only its physics names
_DYNAMIC = 5  # times from which on a series is a dynamic one
_SLOWEST_BOLUS = 2500.0  # TR, ms, of images that follow a bolus
_FASTEST_IMAGE = 3.5  # TR, ms, of a spoiled gradient echo; scouts and calibrations are faster
_FASTEST_SLICES = 40.0  # the same of slices that are taken one by one; localizers are faster
_FAT_NULLED = (80.0, 300.0)  # TI, ms, at which fat is dark, from 0.3 to 7 T; fluid is dark at 1500 and more
_COMPLETE = 0.7  # of the longest coverage of its modality
_WHOLE_HEAD = 180.0  # mm; what covers more shows the neck, or the body, too
_BODY = 350.0  # mm; longer than a head with its neck
_FRAGMENT = 3  # times its coverage is still less than that of another series of the scan
_PAUSE = 45 * 60  # seconds between the starts of two series of one examination, at most
_HEAD = re.findall(
    r"\w+",
    "HEAD BRAIN SKULL HEADNECK NEURO CRANIUM KOPF SCHADEL ENCEPHALE TETE CABEZA CEREBRO ENCEFALO UNKNOWN ORBIT IAC"
    " PITUITARY EAR FACE NECK",
)


_SPINES = tuple(f"{part}SPINE" for part in ("", "C", "T", "L", "CT", "TL", "LS", "S", "WHOLE"))


@dataclass(frozen=True)
class Options:
    """How series become scans: `session` groups them, `prefer` and `also` select, `overrides` names by text or UID.

    `unusable` says whether an earlier run could not use the pixels of a series; None if that is not known.
    `visits` gives the subject of each session that was segmented, where one alone has it.
    """

    session: str = "study"
    prefer: str = "2d-axial"
    also: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)  # series_id: subject, session, role
    unusable: Callable[[Series], bool] | None = None
    visits: Callable[[], Mapping[str, str]] = dict


@dataclass
class Judged:
    """A series and what became of it; `certain` is 0 to 1."""

    series: Series
    role: str | None = None
    certain: float = 0.0
    evidence: tuple[str, ...] = ()
    decision: str = UNKNOWN
    reason: str = ""
    contrast: bool | None = None  # as told by words
    session: str = ""
    volume: int | None = None  # the one to take, of a file with several
    seconds: float | None = None  # since the first series of its session
    late: bool = False  # after the contrast agent, where another of its modality was taken before it

    @property
    def facts(self) -> Facts:
        return self.series.facts

    @property
    def is_candidate(self) -> bool:
        return self.decision in (NOT_SELECTED, OVERRIDE) and self.role is not None


def judge(series: Iterable[Series], options: Options) -> list[Judged]:
    """All series with their roles and what becomes of each, in the order of subject, session and id."""
    series = list(series)
    heads = _mislabelled(series)
    judged = [
        _alone_as_head(one, options.also) if one.facts.study in heads else alone(one, options.also) for one in series
    ]
    for session in _sessions(judged, options.session):
        _times(session)
        _contrast(session)
        _select(session, options)
        _masks(session)
    return sorted(judged, key=lambda one: (one.facts.subject, one.session, one.facts.series))


# One series


def _mislabelled(series: Iterable[Series]) -> set[str]:
    """Studies of a brain whose BodyPartExamined says another part: one part for all series, as of a protocol that was
    copied, while words of some speak of the brain and those of none of another part.

    An examination of the spine may show the brain in one series, and say nothing of the spine in others.
    """
    studies: dict[str, list[Facts]] = {}
    for one in series:
        if one.facts.modality == "MR":
            studies.setdefault(one.facts.study, []).append(one.facts)
    return {
        study
        for study, of in studies.items()
        if len({facts.body for facts in of}) == 1
        and not _is_head(of[0])
        and of[0].body not in (PHANTOM, *_SPINES)
        and any(facts.names_brain for facts in of)
        and not any("not_head" in (*facts.said.words, *facts.protocol_said.words) for facts in of)
    }


def _alone_as_head(one: Series, also: Sequence[str]) -> "Judged":
    judged = alone(replace(one, facts=replace(one.facts, body=None)), also)
    judged.series, judged.evidence = one, (*judged.evidence, "words of the study say brain")
    return judged


def _is_head(facts: Facts) -> bool:
    return facts.body is None or facts.body in _HEAD


@dataclass(frozen=True)
class _Exclusion:
    """Series that never enter a scan: `reason` where `applies`."""

    reason: str
    applies: Callable[[Series], object]


def _has(*words: str) -> Callable[[Series], bool]:
    return lambda one: any(word in one.facts.image_type for word in words)


_EXCLUSIONS: tuple[_Exclusion, ...] = (
    _Exclusion("not MR", lambda one: one.facts.modality not in ("MR", "")),
    _Exclusion("no image", lambda one: one.facts.kind == "other"),
    _Exclusion("phantom", lambda one: one.facts.body == PHANTOM),
    _Exclusion("not head", lambda one: not _is_head(one.facts)),
    _Exclusion("localizer", _has("LOCALIZER")),
    _Exclusion("subtraction", _has("SUBTRACTION", "SUB")),
    _Exclusion("fat image", _has("FAT")),
    _Exclusion("opposed-phase image", _has("OPP_PHASE")),
    _Exclusion("reformat", _has("MPR", "REFORMATTED")),
    _Exclusion("projection", _has("PROJECTION", "MIP", "MNIP", "MINIP", "MAX_IP", "MIN_IP")),
    _Exclusion("ADC", _has("ADC", "EADC")),
    _Exclusion("diffusion", _has("FA", "TRACEW", "TRACE", "DIFFUSION", "TENSOR")),
    _Exclusion("perfusion", _has("PERFUSION", "CBF", "CBV", "MTT", "TTP", "RELCBF", "RELCBV")),
    _Exclusion("fMRI", _has("FMRI")),
    _Exclusion("map", _has("R2", "B0", "DENSITY", "MAP", "FRACTION")),
    _Exclusion("SWI", _has("SWI")),
    _Exclusion("screenshot", _has("SCREEN")),
    _Exclusion("phase image", lambda one: one.facts.component != "magnitude" and one.facts.said.role != T1),
    _Exclusion("derived", lambda one: {"DERIVED", "SECONDARY"} <= set(one.facts.image_type)),
    _Exclusion("angiography", lambda one: one.facts.angiography),
    _Exclusion("diffusion", lambda one: any(value > 0 for value in one.facts.b_values)),
)
_AFTER_WORDS: tuple[_Exclusion, ...] = (
    # what words name better, where they name it
    _Exclusion("several volumes in one file", lambda one: one.facts.volumes > 1),
    _Exclusion("dynamic", lambda one: one.times >= _DYNAMIC),
    _Exclusion("several images at each position", lambda one: one.times > 1),
)
_ACQUISITION_CONTRASTS = {
    "T1": T1,
    "T2": T2,
    "FLUID_ATTENUATED": FLAIR,
    "DIFFUSION": "diffusion",
    "PERFUSION": "perfusion",
    "TOF": "angiography",
    "FLOW_ENCODED": "angiography",
    "T2_STAR": "T2*",
    "SUSCEPTIBILITY": "SWI",
    "PROTON_DENSITY": "dual echo",
    "STIR": "STIR",
    "TAGGING": "tagging",
    "SPIN_TAGGING": "perfusion",
}

_VETOES = {T1: (T2, FLAIR, "T2*"), T2: (T1, FLAIR, "PD"), FLAIR: (T1, "T2*", "STIR")}
"""What physics may not say of a series whose words say the key."""


def alone(one: Series, also: Sequence[str] = ()) -> Judged:
    """A series by itself: its role as far as one can tell without the others of its visit.

    Of an enhanced file with several volumes, the only magnitude image is looked at, or the later of two echoes.
    """
    place = _volume(one)
    if place is None:
        return _alone(one, also)
    echo_time, component = one.facts.parts[place]
    facts = replace(one.facts, echo_time=echo_time or one.facts.echo_time, component=component, volumes=1)
    judged = _alone(replace(one, facts=facts, heights=np.array(one.places)), also)
    judged.series, judged.volume = one, place
    return judged


def _volume(one: Series) -> int | None:
    """The volume of an enhanced file that may enter a scan; None if it has one, or none is the obvious one."""
    parts = one.facts.parts
    if one.facts.volumes < 2 or not len(parts) == one.facts.volumes == one.volumes:
        return None
    usable = [place for place, (_, component) in enumerate(parts) if component == "magnitude"]
    roles = [physical_role(replace(one, facts=replace(one.facts, echo_time=parts[place][0]))) for place in usable]
    return usable[-1] if len(usable) == 1 or roles == ["PD", T2] else None


def _alone(one: Series, also: Sequence[str] = ()) -> Judged:
    facts = one.facts
    if facts.kind == "segmentation":
        return Judged(one, MASK, 1.0, ("SOP class",), EXCLUDED, "a SEG object that refers to no selected series")
    if facts.override:
        if facts.override == IGNORE:
            return Judged(one, None, 1.0, ("series map",), OVERRIDE, "the series map leaves it out")
        return Judged(
            one, facts.override, 1.0, ("series map",), OVERRIDE, "named by the series map", facts.override == T1CE
        )
    said, evidence = _words(facts)
    excluded = next((rule.reason for rule in _EXCLUSIONS if rule.applies(one)), None)
    if excluded:
        return _excluded(one, excluded, ("header",), also)
    physics = physical_role(one)
    if said.detail == "dual echo" and physics == T2:
        return Judged(one, T2, 0.7, (*evidence, "TE"), NOT_SELECTED)  # the later echo, which is a series by itself here
    if _is_acquired_mpr(facts, said) and physics == T1:
        said = replace(said, role=T1, detail="")
    if said.role == OTHER:
        return _excluded(one, said.detail, evidence, also)
    standard = _ACQUISITION_CONTRASTS.get(facts.acquisition_contrast or "")
    if standard and standard not in MODALITIES:
        return _excluded(one, standard, ("AcquisitionContrast",), also)
    several = next((rule.reason for rule in _AFTER_WORDS if rule.applies(one)), None)
    if several:
        return _excluded(one, several, ("header",), also)
    if facts.echo_planar and said.role != FLAIR:
        return _excluded(one, "EPI", ("ScanningSequence",), also)
    if physics == "T2*" and (said.role in (T2, None)) and "fluid_T2" not in said.words:
        return _excluded(one, "T2*", ("TE",), also)
    return _named(one, said, evidence, standard, physics)


def _named(one: Series, said: recognise.Recognition, evidence: tuple[str, ...], standard: str | None,
           physics: str | None) -> Judged:  # fmt: skip
    """The role by words, the standard's word and physics; a conflict where they disagree."""
    named = T1 if said.role == T1CE else said.role
    clash = _clash(named, standard, physics, said)
    if clash:
        return Judged(one, said.role, 0.0, evidence, CONFLICT, clash)
    if named:
        agrees = physics == named or standard == named
        evidence += ("AcquisitionContrast",) * (standard == named) + ("physics",) * (physics == named)
        contrast = True if said.role == T1CE else said.contrast
        return Judged(one, named, 1.0 if agrees else 0.8, evidence, NOT_SELECTED, "", contrast)
    if said.detail:
        return Judged(one, None, 0.0, evidence, CONFLICT, said.detail)
    if standard:
        return Judged(one, standard, 0.9, ("AcquisitionContrast",), NOT_SELECTED, "", said.contrast)
    if physics in MODALITIES and len(one.places) >= _LEAST_SLICES and one.times == 1:
        return Judged(one, physics, 0.6, ("physics",), NOT_SELECTED, "", said.contrast)
    remedy = "name it in a file for --series-map"
    return Judged(one, None, 0.0, evidence, UNKNOWN, f"neither words nor physics tell what it shows: {remedy}")


def _words(facts: Facts) -> tuple[recognise.Recognition, tuple[str, ...]]:
    """What description and protocol say: the description where both say something, contrast from either."""
    first, second = facts.said, _of_one_series(facts.protocol_said)
    if first.role is None and not first.detail:
        first, second = second, first
        where = "protocol"
    else:
        where = "description"
    contrast = first.contrast if first.contrast is not None else second.contrast
    return replace(first, contrast=contrast), (where,) if first.words else ()


def _of_one_series(protocol: recognise.Recognition) -> recognise.Recognition:
    """What a protocol says of a series; nothing where it names no kind of image, because then it is that of the whole
    examination, as `TUMOR +GAD`.
    """
    whole = not set(protocol.words) - {"after", "before", "plane", "part"}
    return recognise.Recognition(None) if whole else protocol


def _clash(named: str | None, standard: str | None, physics: str | None, said: recognise.Recognition) -> str | None:
    """Why words, the standard's word and physics cannot all be true; None if they can."""
    if named and standard in MODALITIES and standard != named and (named, standard) != (FLAIR, T2):
        return f"words say {named}, AcquisitionContrast says {standard}"
    if physics not in _VETOES.get(named or "", ()):
        return None
    if named == T2 and "fluid_T2" in said.words:
        return None  # balanced and driven sequences, whose times say little
    return f"words say {named}, times say {physics}"


def _is_acquired_mpr(facts: Facts, said: recognise.Recognition) -> bool:
    """Whether words speak of an MPR and the header of an original image: in some hospitals MPR is short for MPRAGE."""
    is_original = {"ORIGINAL", "PRIMARY"} <= set(facts.image_type)
    return said.detail == "reformat" and "mpr" in said.words and not said.reformatted and is_original


def _excluded(one: Series, reason: str, evidence: tuple[str, ...], also: Sequence[str]) -> Judged:
    role = _DETAIL_ROLES.get(reason)
    if role in also and one.times == 1 and one.facts.volumes == 1 and one.facts.component == "magnitude":
        return Judged(one, role, 0.8, evidence, NOT_SELECTED)
    return Judged(one, OTHER, 0.9, evidence, EXCLUDED, reason)


def physical_role(one: Series) -> str | None:
    """FLAIR, T1, T2, T2*, PD or STIR by TE, TR and TI (ms) and the kind of echo; None where these tell nothing."""
    facts = one.facts
    te, tr, ti = facts.echo_time, facts.repetition_time, facts.inversion_time
    if te is None or tr is None or te <= 0 or tr <= 0:
        return None
    gradient = "GR" in facts.sequence and "SE" not in facts.sequence
    if ti and ti >= 1500 and tr >= 4000 and te >= 60:
        return FLAIR
    if ti and 300 <= ti <= 1300 and te <= 40:
        return T1
    if ti and _FAT_NULLED[0] <= ti <= _FAT_NULLED[1] and tr >= 2000 and not gradient:
        return "STIR"
    if gradient:
        if te >= 12:
            return "T2*"
        fastest = _FASTEST_SLICES if facts.dimensions == "2D" else _FASTEST_IMAGE
        is_spoiled = tr >= fastest and ("MP" in facts.variant or "SP" in facts.variant)
        return T1 if te < 10 and (ti or is_spoiled) else None
    if not ti and "SE" in facts.sequence:
        if te >= 60 and tr >= 2000:
            return T2
        if te < 40 and tr >= 2000:
            return "PD"
    return T1 if tr <= 1200 and te <= 30 and "SE" in facts.sequence else None


# Visits


def _sessions(judged: Sequence[Judged], by: str) -> list[list[Judged]]:
    """The series of each visit; gives every series its session."""
    singles = _study_per_series(judged) if by == "study" else set()
    found: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        facts = one.facts
        key = {"study": None, "date": facts.day, "accession": facts.accession}[by]
        if (facts.subject, _day(facts)) in singles:
            key = _day(facts)
        one.session = key or facts.study
        found.setdefault((facts.subject, one.session), []).append(one)
    return list(found.values())


def _day(facts: Facts) -> str | None:
    """The day of a series; without dates its frame of reference, which one examination has."""
    return facts.day or facts.frame


def _study_per_series(judged: Sequence[Judged]) -> set[tuple[str, str | None]]:
    """Days of patients on which every study holds one series, as if it were one examination.

    Some archives were de-identified so that each series has a StudyInstanceUID of its own. It takes all of this: most
    studies of the archive hold one series; those of the day show different things, where visits of one series each
    show the same again; they follow on each other without a long pause; and no two of them have accession numbers of
    their own.
    """
    days: dict[tuple[str, str | None], dict[str, list[Judged]]] = {}
    for one in judged:
        if _day(one.facts) is not None:
            days.setdefault((one.facts.subject, _day(one.facts)), {}).setdefault(one.facts.study, []).append(one)
    names = {(one.facts.study, one.facts.series.partition("-")[0]) for one in judged if _day(one.facts) is not None}
    sizes = list(Counter(study for study, _ in names).values())
    if 2 * sizes.count(1) <= len(sizes):
        return set()
    return {day for day, studies in days.items() if _is_one_visit(list(studies.values()))}


def _is_one_visit(studies: Sequence[Sequence[Judged]]) -> bool:
    """Whether the studies of a day are the series of one examination."""
    series = [{one.facts.series.partition("-")[0] for one in of} for of in studies]
    kinds = {(one.role, one.reason, one.contrast) for of in studies for one in of}
    if len(studies) < 2 or any(len(of) > 1 for of in series) or 2 * len(kinds) <= len(studies):
        return False
    if len({one.facts.accession for of in studies for one in of} - {None}) > 1:
        return False
    moments = sorted(at for of in studies for one in of if (at := one.series.moment) is not None)
    return all(later - earlier <= _PAUSE for earlier, later in itertools.pairwise(moments))


def _times(session: Sequence[Judged]) -> None:
    moments = [moment for one in session if (moment := one.series.moment) is not None]
    for one in session:
        moment = one.series.moment
        one.seconds = moment - min(moments) if moment is not None else None


def _contrast(session: Sequence[Judged]) -> None:
    """T1 after contrast, of the T1 series of one visit: by words, by the agent, by time."""
    candidates = [one for one in session if one.role == T1 and one.decision == NOT_SELECTED]
    agents = [one.facts.agent for one in candidates]
    trusted = any(agents) and (len(candidates) == 1 or not all(agents))
    for one in candidates:
        if one.contrast and one.facts.agent is False and trusted:
            _conflict(one, "words say after contrast, its header names no agent and that of another T1 does")
        elif one.contrast is not None:
            one.evidence += ("words on contrast",)
        elif trusted and one.facts.agent:
            one.contrast = True
            one.evidence += ("agent",)
    clock = _clock(session, candidates)
    _too_early(session, candidates, clock)
    injected, what = _injection(session, candidates, clock)
    for one in candidates:
        at = clock(one)
        after = None if injected is None or at is None or at == injected else at > injected
        if one.contrast is None and after is not None:
            one.contrast = after
            one.evidence += (f"{'after' if after else 'before'} {what}",)
        elif one.contrast is False and after:
            _conflict(one, f"words say before contrast, time says after {what}")
        elif one.contrast is None and any(agents) and not trusted:
            _conflict(
                one, "every T1 series of the visit names the agent; neither words nor times tell which came after"
            )
        if one.contrast and one.decision == NOT_SELECTED:
            one.role = T1CE
    if injected is None:
        _maybe_after(session, candidates, clock)
        _behind_native(candidates, clock)


def _too_early(
    session: Sequence[Judged], candidates: Sequence[Judged], clock: Callable[[Judged], float | None]
) -> None:
    """Conflicts of T1 series that only the agent's name tells, all before the bolus: it may be typed in any time."""
    bolus = min(_boluses(session, clock), default=None)
    for one in candidates:
        at = clock(one)
        if "agent" in one.evidence and bolus is not None and at is not None and at < bolus:
            _conflict(one, "its header names the agent, time says before the bolus")


def _maybe_after(
    session: Sequence[Judged], candidates: Sequence[Judged], clock: Callable[[Judged], float | None]
) -> None:
    """Conflicts of T1 series after a nameless dynamic series that other T1 series came before: it may be a bolus, or
    an image of activity.
    """
    dynamic = min((at for one in session if _is_nameless_dynamic(one) and (at := clock(one)) is not None), default=None)
    silent = [one for one in candidates if one.contrast is None and one.decision == NOT_SELECTED]
    times = {one.facts.series: at for one in silent if (at := clock(one)) is not None}
    if dynamic is None or not any(at < dynamic for at in times.values()):
        return
    for one in silent:
        if times.get(one.facts.series, dynamic) > dynamic:
            _conflict(
                one, "nothing tells whether the dynamic series before it, and after another T1, followed an agent"
            )


def _behind_native(candidates: Sequence[Judged], clock: Callable[[Judged], float | None]) -> None:
    """Conflicts of T1 series of which nothing tells contrast, after one whose words say before: its words may be of a
    language, or short for something, that nobody here knows.
    """
    native = min((at for one in candidates if one.contrast is False and (at := clock(one)) is not None), default=None)
    for one in candidates:
        silent = one.contrast is None and one.facts.agent is None and one.decision == NOT_SELECTED
        if silent and native is not None and (at := clock(one)) is not None and at > native:
            _conflict(one, "nothing tells whether it is after contrast, and words of a T1 before it say before")


def _is_nameless_dynamic(one: Judged) -> bool:
    """Whether it is raw, fast and echo-planar, many images of each place, and no word says what for."""
    facts = one.facts
    is_fast = facts.repetition_time is not None and facts.repetition_time <= _SLOWEST_BOLUS
    is_raw = "DERIVED" not in facts.image_type and not facts.said.words and not facts.protocol_said.words
    return facts.echo_planar and "GR" in facts.sequence and one.series.times >= _DYNAMIC and is_fast and is_raw


def _conflict(one: Judged, reason: str) -> None:
    one.decision, one.certain, one.reason = CONFLICT, 0.0, reason


def _clock(session: Sequence[Judged], candidates: Sequence[Judged]) -> Callable[[Judged], float | None]:
    """When a series was acquired: by its time, or by its number where times are missing or all the same."""
    seconds = {one.seconds for one in candidates}
    if None not in seconds and len(seconds) > 1:
        return lambda one: one.seconds
    numbers = {one.facts.number for one in candidates}
    if None not in numbers and len(numbers) == len(candidates):
        return lambda one: None if one.facts.number is None else float(one.facts.number)
    return lambda one: one.seconds


def _injection(
    session: Sequence[Judged], candidates: Sequence[Judged], clock: Callable[[Judged], float | None]
) -> tuple[float | None, str]:
    """From when on every T1 of the visit is after contrast, by `clock`, and what tells so."""
    after = [one for one in candidates if one.contrast and one.decision != CONFLICT]
    after += [one for one in session if _is_other_after_agent(one)]
    told = [(at, "the first series with contrast") for one in after if (at := clock(one)) is not None]
    return min(told + [(at, "the bolus") for at in _boluses(session, clock)], default=(None, ""))


def _is_other_after_agent(one: Judged) -> bool:
    """Whether it is a FLAIR, a T2 or an angiography whose words say after contrast."""
    return (one.role in (FLAIR, T2) or one.reason == "angiography") and bool(_words(one.facts)[0].contrast)


def _boluses(session: Sequence[Judged], clock: Callable[[Judged], float | None]) -> list[float]:
    """When agents were injected, by `clock`: when series began that follow one, and what headers say."""
    found = [at for one in session if _is_bolus(one) and (at := clock(one)) is not None]
    last = max((one.seconds for one in session if one.seconds is not None), default=0.0)
    for one in session:
        moment = one.series.moment
        if one.facts.bolus is not None and moment is not None and one.seconds is not None and clock(one) == one.seconds:
            at = one.seconds + one.facts.bolus - moment
            if -_PAUSE <= at <= last:
                found.append(at)
    return found


def _is_bolus(one: Judged) -> bool:
    """Whether it is a perfusion series that needs an injection.

    Its words say so, or it is one raw image after the other, and fast: arterial spins are labelled for seconds before
    each image (Alsop et al. 2015, doi:10.1002/mrm.25197), and its series are often called perfusion too.
    """
    facts = one.facts
    words = {*facts.said.words, *facts.protocol_said.words}
    contrast = _words(facts)[0].contrast
    if one.reason != "perfusion" or contrast is False or "labelling" in words:
        return False
    if facts.acquisition_contrast == "SPIN_TAGGING":
        return False
    if contrast or "bolus" in words or {"CBV", "MTT", "TTP", "RELCBV"} & set(facts.image_type):
        return True
    is_fast = facts.repetition_time is None or facts.repetition_time <= _SLOWEST_BOLUS
    return "DERIVED" not in facts.image_type and one.series.times >= _DYNAMIC and is_fast


# Selection


def _select(session: list[Judged], options: Options) -> None:
    """One series of each role; the others get a reason."""
    by_role: dict[str, list[Judged]] = {}
    for one in session:
        if one.is_candidate and one.role is not None:
            by_role.setdefault(one.role, []).append(one)
    frames = Counter(one.facts.frame for of in by_role.values() for one in {o.facts.frame: o for o in of}.values())
    for of in by_role.values():
        _after_agent(of)
        kept = _last_repeats(_usable(of, options))
        longest = min(max(_coverage(one) for one in kept), _WHOLE_HEAD)
        ranked = sorted(kept, key=lambda one: _rank(one, longest, frames, options), reverse=True)
        best = ranked[0]
        for one in kept:
            if one is not best:
                one.reason = _why_not(one, best, longest, frames, options)
        if best.decision != OVERRIDE:
            best.decision, best.reason = SELECTED, ""
        for one in of:
            if one is not best and one.decision == OVERRIDE:
                one.decision = NOT_SELECTED
    _leave_out_fragments(session)
    _keep_earlier(session, options)


def _after_agent(of: Sequence[Judged]) -> None:
    """Which FLAIR or T2 of a visit were taken after contrast, by words or by an agent that others do not name."""
    agents = [one.facts.agent for one in of]
    for one in of:
        if one.role not in (T1, T1CE):
            one.late = bool(one.contrast or (one.facts.agent and not all(agents)))


def _leave_out_fragments(session: Sequence[Judged]) -> None:
    """Slices of what was broken off, or of the sella alone, are no modality of a head that others show whole.

    A thin slab of a volume may be all that is wanted, as of the inner ear.
    """
    taken = [one for one in session if one.decision in (SELECTED, OVERRIDE)]
    longest = min(max(map(_coverage, taken), default=0.0), _WHOLE_HEAD)
    for one in taken:
        if one.decision == SELECTED and not _is_3d(one) and _FRAGMENT * _coverage(one) < longest:
            one.decision, one.reason = NOT_SELECTED, "it covers less than a third of what another series covers"


def _usable(candidates: list[Judged], options: Options) -> list[Judged]:
    """The series of one role without those whose pixels cannot be used, as long as any is left."""
    if options.unusable is None or len(candidates) < 2:
        return candidates
    are_bad = [options.unusable(one.series) for one in candidates]
    if all(are_bad):
        return candidates
    for one in itertools.compress(candidates, are_bad):
        one.reason = "its pixels cannot be used, see `quarantine`: the next series took its place"
    return [one for one, is_bad in zip(candidates, are_bad, strict=True) if not is_bad]


def _keep_earlier(session: Sequence[Judged], options: Options) -> None:
    """What an earlier run selected stays where this one has nothing for that modality: a scan only ever gets better.

    Unless it is known to be something else by now, as a T1 that turned out to be after contrast.
    """
    taken = {one.role for one in session if one.decision in (SELECTED, OVERRIDE)}
    for one in session:
        if one.facts.override:
            continue  # a site's map decides, whatever was selected before it
        subject, visit, role = options.earlier.get(one.facts.series, ("", "", ""))
        if one.role not in (role, None) and one.decision not in (CONFLICT, UNKNOWN):
            continue
        if (subject, visit) == (one.facts.subject, one.session) and role not in taken and one.decision != SELECTED:
            one.role, one.decision, one.reason = role, SELECTED, f"as in an earlier run; now: {one.reason}"
            taken.add(role)


_RANKS = ("it is a colour image", "it is an in-phase image", "it is derived from another",
          "it covers less of the head", "it shows a part of the head, or the body, or is a reformat",
          "it lies in another frame of reference", "its plane and kind are preferred less",
          "it was taken after the contrast agent", "it is coarser",
          "it was repeated later", "it comes first")  # fmt: skip


def _rank(one: Judged, longest: float, frames: Mapping[str | None, int], options: Options) -> tuple[float, ...]:
    """Greater is better; the reasons for a lower place stand in `_RANKS` in the same order."""
    facts = one.facts
    volume = max(facts.pixel_mm, default=9.0) * min(facts.pixel_mm, default=9.0) * (one.series.step_mm or 9.0)
    in_phase = "IN_PHASE" in facts.image_type or "in_phase" in facts.said.words
    is_part = facts.said.part or _coverage(one) > _BODY
    return (
        float(not facts.is_colour),
        float(one.decision == OVERRIDE or not in_phase),
        float(one.decision == OVERRIDE or "DERIVED" not in facts.image_type),
        float(_coverage(one) >= _COMPLETE * longest),
        float(not is_part and not facts.said.reformatted and "mpr" not in facts.said.words),
        float(frames[facts.frame]),
        _preference(one, options.prefer),
        float(not one.late),
        -round(volume, 3),
        one.seconds or 0.0,
        float(facts.number or 0),
    )


def _why_not(one: Judged, best: Judged, longest: float, frames: Mapping[str | None, int], options: Options) -> str:
    ranks = zip(_rank(one, longest, frames, options), _rank(best, longest, frames, options), _RANKS, strict=True)
    return next((reason for mine, theirs, reason in ranks if mine < theirs), "another is as good")


def _preference(one: Judged, prefer: str) -> float:
    """How well plane and kind are what is wanted, 0 to 3."""
    is_axial = one.facts.plane == "axial"
    if prefer == "3d":
        return 2.0 * _is_3d(one) + is_axial
    return 2.0 * is_axial + (is_axial != _is_3d(one))  # a volume shows axial slices too, a coronal slab does not


def _is_3d(one: Judged) -> bool:
    if one.facts.dimensions:
        return one.facts.dimensions == "3D"
    return (one.series.step_mm or 9.0) < 2.0


def _coverage(one: Judged) -> float:
    """Extent of its slices, mm."""
    return len(one.series.places) * abs(one.series.step_mm or 1.0)


def _last_repeats(candidates: list[Judged]) -> list[Judged]:
    """Without series that were done again later in the same way; those get their reason."""
    last: dict[tuple[object, ...], Judged] = {}
    for one in sorted(candidates, key=lambda one: (one.seconds or 0.0, one.facts.number or 0, one.facts.series)):
        facts = one.facts
        alike = (
            facts.text,
            facts.plane,
            facts.rows,
            facts.columns,
            facts.pixel_mm,
            len(one.series.places),
            facts.image_type,
            facts.said.words,
            one.late,
        )
        earlier = last.get(alike)
        if earlier is not None:
            earlier.reason = "it was repeated later"
        last[alike] = one
    return list(last.values())


def _masks(session: Sequence[Judged]) -> None:
    """SEG objects that refer to one selected series become the mask of the scan; one at most."""
    selected = {one.facts.series.partition("-")[0] for one in session if one.decision in (SELECTED, OVERRIDE)}
    found = [one for one in session if one.facts.kind == "segmentation" and set(one.facts.refers_to) & selected]
    for one in found:
        one.reason = "there are several SEG objects for this scan, or one of several segments"
    if len(found) == 1 and found[0].facts.volumes == 1:
        found[0].decision, found[0].reason = SELECTED, ""
