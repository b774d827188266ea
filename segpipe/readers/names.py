"""What the words in file and folder names say about modality, mask and session."""

import re
from typing import NamedTuple

MASK = "mask"
IMAGE = "image"  # the role of an image whose name tells no modality
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")

_SEPARATORS = re.compile(r"[^0-9A-Za-z]+")
_MASK = (
    r"(?:seg|segm|segmentation|mask|masks|label|labels|labelmap|gt|groundtruth|ground_truth|gold_standard|goldstandard"
    r"|truth|lesion|lesions|consensus|roi|tumou?r|dseg|msmask)"
)
_ROLE = re.compile(
    r"(?:^|_)(?:"
    r"(?P<FLAIR>t2_?flair|flair|t2f|fl)"
    r"|(?P<T1ce>t1w?_?(?:ce|c|gd|gad|post|postcontrast|km|contrast|contrasted)|(?:ce|gd)_?t1w?)"
    r"|(?P<T1>t1w?|t1n|t1_?native|mprage)"
    r"|(?P<T2>t2w?)"
    r"|(?P<PD>pdw?)|(?P<SWI>swi)|(?P<DWI>dwi)|(?P<ADC>adc)|(?P<bold>bold)"
    r")(?=_|$)",
    re.IGNORECASE,
)
_MASK_WORD = re.compile(rf"(?:^|_){_MASK}(?=_|$)", re.IGNORECASE)
_BRAIN_MASK = re.compile(r"(?:^|_)(?:brain_?mask|bm|brain_?seg|skull_?strip\w*mask)(?=_|$)", re.IGNORECASE)
_SESSION = re.compile(
    r"(?:^|_)((?:ses|session|visit|study|tp|timepoint|time_?point|time|scan|followup|fu)_?\d+|baseline|followup)(?=_|$)",
    re.IGNORECASE,
)
_ROLE_FOLDER = re.compile(r"(?:images?|imgs?|anat|nifti|niftis|nii|data|raw)(?:Tr|Ts|_?train|_?test)?", re.IGNORECASE)
_MASK_FOLDER = re.compile(_MASK + r"(?:Tr|Ts|_?train|_?test)?", re.IGNORECASE)


class Words(NamedTuple):
    """A name taken apart: the role it states, and the words before."""

    role: str | None
    before: str


def role_order(role: str) -> tuple[int, str]:
    """Sort key of roles: FLAIR, T1, T1ce, T2, then others by name, the mask last."""
    if role == MASK:
        return len(MODALITIES) + 1, role
    return (MODALITIES.index(role) if role in MODALITIES else len(MODALITIES)), role


def modality(word: str) -> str | None:
    """The modality that one word stands for, canonical; None where it is none.

    >>> modality("t1gd"), modality("FLAIR"), modality("brain")
    ('T1ce', 'FLAIR', None)
    """
    match = _ROLE.fullmatch(_normal(word))
    return match.lastgroup if match else None


def words(stem: str) -> Words | None:
    """Role and leading words of a file's stem; None for masks of the brain, which are neither image nor lesion.

    >>> [tuple(words(stem)) for stem in ("study1_T2W", "T1POST_N4_brain", "pat7_T1_seg", "anatomy")]
    [('T2', 'study1'), ('T1ce', ''), ('mask', 'pat7'), (None, 'anatomy')]
    """
    text = _normal(stem)
    if _BRAIN_MASK.search(text):
        return None
    mask, image = _MASK_WORD.search(text), _ROLE.search(text)
    if not (mask or image):
        return Words(None, stem)
    first = min(match.start() for match in (mask, image) if match)
    return Words(MASK if mask else image.lastgroup, stem[:first].rstrip("_-. "))  # type: ignore[union-attr]


def session(text: str) -> tuple[str | None, str]:
    """The session that a name states, and the name without it.

    >>> session("study1"), session("p7_ses-02_x"), session("p7")
    (('study1', ''), ('ses-02', 'p7_x'), (None, 'p7'))
    """
    match = _SESSION.search(_normal(text))
    if not match:
        return None, text
    rest = [part for part in (text[: match.start()], text[match.end() :].lstrip("_-. ")) if part]
    return text[match.start(1) : match.end(1)], "_".join(rest)


def is_role_folder(name: str) -> bool:
    """Whether a folder's name says what kind of files it holds rather than whose."""
    return bool(_ROLE_FOLDER.fullmatch(name) or is_mask_folder(name))


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it holds masks."""
    return bool(_MASK_FOLDER.fullmatch(_normal(name)))


def _normal(text: str) -> str:
    """`text` with every separator an underscore, the same length."""
    return _SEPARATORS.sub(lambda match: "_" * len(match[0]), text)
