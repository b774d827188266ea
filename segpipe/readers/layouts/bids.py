"""Brain Imaging Data Structure (bids-specification.readthedocs.io): `sub-*/[ses-*/]anat/`, masks in `derivatives/`.

Images are the raw anatomical ones. Masks are files with the suffix `mask`, `roi`, `dseg` or `seg` that no word marks as
one of the brain or of tissues; only those on the subject's own images, not ones in a template's space.
"""

import re
from collections.abc import Iterator, Mapping

from segpipe.readers.archive import Archive, Claim, Entry, Found, gather, pairs, stem
from segpipe.readers.names import MASK, modality

_PATH = re.compile(
    r"(?P<root>(?:.*/)?)(?P<subject>sub-[A-Za-z0-9]+)/(?:(?P<session>ses-[A-Za-z0-9]+)/)?(?P<kind>[a-z]+)/[^/]+"
)
_ROOT = re.compile(r"((?:[^/]+/)*?)(?:sub-[^/]*|derivatives)/")
_DERIVATIVE = re.compile(r"(?P<root>(?:.*/)?)derivatives/(?P<pipeline>.*)")
_MASKS = ("mask", "roi", "dseg", "seg")
_NO_LESION = re.compile(r"brain|aseg|aparc|carve|tissue|skull|head|^(?:gm|wm|csf|pv[e0-9]*)$", re.IGNORECASE)
_LESION = re.compile(r"lesion|tumou?r|glioma|manual|expert|consensus|wmh|truth", re.IGNORECASE)
_OWN_SPACE = re.compile(r"orig|individual|native|t1w?|t2w?|flair", re.IGNORECASE)


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of every BIDS data set; its other images (functional, diffusion, derived) are left alone."""
    images, companions, _ = pairs(entries)
    roots = {_root(path) for path in images if (match := _PATH.fullmatch(path)) and match["kind"] == "anat"}
    taken = {path for path in entries if _root(path) in roots}
    found = [item for path, entry in images.items() if path in taken for item in _understand(entry)]
    scans, rejected = gather(found, "bids", companions)
    return Claim(scans, rejected, taken)


def _root(path: str) -> str | None:
    """What stands before the first folder that only BIDS has; None for files outside of such folders."""
    match = _ROOT.match(path)
    return match[1] if match else None


def _understand(entry: Entry) -> Iterator[Found]:
    match = _PATH.fullmatch(entry.path)
    if not match or match["kind"] != "anat":
        return
    derivative = _DERIVATIVE.fullmatch(match["root"])
    *pairs_, suffix = stem(entry.name).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs_ if "-" in pair)
    role = _mask_role(suffix, entities, derivative["pipeline"] if derivative else "")
    if role is None and derivative is None:
        role = _image_role(suffix, entities)
    if role is not None:
        root = derivative["root"] if derivative else match["root"]
        yield Found(root, match["subject"], match["session"] or "1", role, entry)


def _image_role(suffix: str, entities: Mapping[str, str]) -> str | None:
    role = modality(suffix) or (suffix if suffix[-1:] in ("w", "r") or suffix == "angio" else None)
    contrast = entities.get("ce", "none").lower() not in ("none", "no", "pre", "without")
    return "T1ce" if role == "T1" and contrast else role


def _mask_role(suffix: str, entities: Mapping[str, str], pipeline: str) -> str | None:
    if suffix not in _MASKS:
        return None
    words = [entities[key] for key in ("label", "desc", "res") if key in entities]
    if any(map(_NO_LESION.search, words)) or not _OWN_SPACE.fullmatch(entities.get("space", "orig")):
        return None
    lesion = any(map(_LESION.search, [*words, pipeline]))
    return MASK if lesion or suffix != "dseg" else None
