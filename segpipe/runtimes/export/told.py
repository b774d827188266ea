"""What an export has decided, in the lines of its summary."""

from __future__ import annotations

from segpipe.models.bundle import Bundle


def told(earlier: Bundle, bundle: Bundle, with_tables: bool) -> list[str]:
    """What was chosen and why, what an earlier export had chosen and this one has not, and the precision."""
    precision = f"precision {bundle.inference['precision']}: {bundle.inference['reason']}"
    lines = [*_decisions(bundle), *_taken_back(earlier, bundle), *_undecided(bundle, with_tables), precision]
    if int8 := bundle.inference.get("int8"):
        lines.append(f"INT8 {'published' if int8['published'] else 'not published'}: {int8['reason']}")
    return lines


def _decisions(bundle: Bundle) -> list[str]:
    """What the export chose, in lines."""
    told = [
        ("cut where the probability is above", "{} {:g}", bundle.thresholds),
        ("left out as not bright enough", "{} at {:g} deviations above the brain's mean or less", bundle.brightness),
        ("left out as too small", "{} below {:g} ml", bundle.cleaning),
        ("none at all where there is less", "{} below {:g} ml", bundle.presence),
        ("a part goes that holds less of what lies inside", "{} below {:g} of its main part", bundle.evidence),
    ]
    return [
        f"{what}: {', '.join(how.format(region, number) for region, number in values.items())}"
        for what, how, values in told
        if values
    ]


def _taken_back(earlier: Bundle, bundle: Bundle) -> list[str]:
    """What an earlier export had chosen and this one has not, in a line: the model decides as it was trained there."""
    fields = (
        ("threshold", "{:g}", earlier.thresholds, bundle.thresholds),
        ("least component", "{:g} ml", earlier.cleaning, bundle.cleaning),
        ("least volume", "{:g} ml", earlier.presence, bundle.presence),
        ("least evidence", "{:g}", earlier.evidence, bundle.evidence),
        ("least brightness", "{:g}", earlier.brightness, bundle.brightness),
    )
    gone = [
        f"{what} {how.format(number)} of {region}"
        for what, how, before, now in fields
        for region, number in before.items()
        if region not in now
    ]
    return [f"taken back, because this export did not choose it: {', '.join(gone)}"] if gone else []


def _undecided(bundle: Bundle, with_tables: bool) -> list[str]:
    """Why nothing was chosen, in a line."""
    why = bundle.inference.get("undecided")
    remedy = "" if with_tables else "; give --warehouse the tables that it was trained on"
    return [f"undecided: {why}{remedy}"] if why else []
