"""What tables, logs and messages call the files and people whose names must not leave an archive.

Folders and files of a DICOM archive are often named for patients, so nothing but a keyed hash of a path is told
(HMAC-SHA256, RFC 2104, with the subject key). Who has the key and the archive finds the file again: `locate`. The files
of other archives are told by their names, unless their owner asks for keyed ones.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from segpipe.errors import UsageError
from segpipe.readers import packed
from segpipe.readers.archive import Rejected, ScanSource, is_image, printable, stem
from segpipe.storage import url_to_fs
from segpipe.storage.filesystem import is_local

KEY_VARIABLE = "SEGPIPE_SUBJECT_KEY"
KEY_FILE_VARIABLE = "SEGPIPE_SUBJECT_KEY_FILE"
LEAST_KEY_BYTES = 16
KEY_REMEDY = (
    f"put a secret of at least {LEAST_KEY_BYTES} bytes into a file that only you can read (`openssl rand -hex 32 >"
    f" FILE`), name it with --subject-key-file or {KEY_FILE_VARIABLE}, and keep it: the same patient gets the same name"
    " as long as it stays"
)
_LOST_KEY_REMEDY = (
    "check the path and the rights to read it; make a key only for a new warehouse, because with another one every"
    " patient gets another name"
)

_ORDINAL = re.compile(r"(?:ses-?)?\d{1,3}")
_LEAST_WORD = 3
_PLAIN_WORDS = frozenset(("dicom", "series", "image", "images", "scan", "scans", "mask", "file", "files", "nifti"))


@dataclass(frozen=True)
class SubjectKey:
    """The secret of an archive's owner; `repr` does not show it."""

    secret: bytes = field(repr=False)

    def token(self, kind: str, text: str, length: int = 16) -> str:
        """The keyed hash of a text, so many hexadecimal digits; different for every `kind`."""
        content = f"{kind}\0{text}".encode(errors="surrogatepass")
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()[:length]

    def path(self, path: str) -> str:
        """What a file is called instead of its path relative to the source; an image's suffix stays."""
        name = path.rpartition("/")[2]
        suffix = name[len(stem(name)) :] if is_image(name) else ""
        return f"keyed/{self.token('path', path, 32)}{suffix.lower()}"

    def check_value(self, cohort: str) -> str:
        """What tells one key from another, cohort by cohort, without telling the key."""
        return self.token("check", cohort)


def subject_key(file: str | None = None) -> SubjectKey | None:
    """The key in `file`, or in the file or text of the environment; None if there is none.

    Raises UsageError for a file that cannot be read and for a key that is too short to be a secret.
    """
    file = file or os.environ.get(KEY_FILE_VARIABLE) or None
    if file is None and not os.environ.get(KEY_VARIABLE):
        return None
    where = f"in {file}" if file else f"in {KEY_VARIABLE}"
    secret = (_content(file) if file else os.environ[KEY_VARIABLE].encode(errors="surrogateescape")).strip()
    if len(secret) < LEAST_KEY_BYTES:
        raise UsageError(f"The subject key {where} has {len(secret)} bytes and could be guessed", KEY_REMEDY)
    return SubjectKey(secret)


def key_notes(file: str | None = None) -> list[str]:
    """What a summary says of a key in a file that everybody on this machine may read; nothing if all is well.

    It is no refusal, as ssh has it for its keys: on some shares every file has one mode, which nobody can change.
    """
    file = file or os.environ.get(KEY_FILE_VARIABLE)
    if not file:
        return []
    fs, path = url_to_fs(file)
    if not is_local(fs) or not os.stat(path).st_mode & stat.S_IROTH:
        return []
    return [
        f"everybody on this machine may read the subject key in {file}, and so tell whose scans these are: chmod 600"
    ]


def _content(file: str) -> bytes:
    fs, path = url_to_fs(file)
    try:
        return bytes(fs.cat_file(path))
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        raise UsageError(f"The subject key's file {file} {why}", _LOST_KEY_REMEDY) from None


@dataclass(frozen=True)
class Naming:
    """How the inputs of an archive are told: by name, or, for DICOM and with `every` for all, by keyed hashes."""

    key: SubjectKey | None = None
    every: bool = False

    @property
    def secret(self) -> bytes | None:
        """The bytes of the key."""
        return self.key.secret if self.key else None

    def hides(self, dicom: bool) -> bool:
        """Whether an input's names stay in the archive."""
        return dicom or self.every

    def paths(self, paths: Sequence[str], dicom: bool) -> list[str]:
        """What stands in tables for paths; nothing where they are to be hidden and there is no key."""
        if not self.hides(dicom):
            return list(paths)
        return [self.key.path(path) for path in paths] if self.key else []

    def message(self, text: str, paths: Iterable[str], dicom: bool) -> str:
        """A message in which these paths, their folders and the names in them are told as `paths` tells them."""
        if not self.hides(dicom):
            return text
        paths = {one for path in paths for one in (path, *(packed.split(path) or ())[:1])}  # a member's archive too
        shown = {form: self._shown(path) for path in sorted(paths) for form in _forms(path)}
        words = {word: "…" for path in paths for word in _words(path)}
        found = {one: told for one, told in (words | shown).items() if one in text}
        if not found:
            return text
        longest = sorted(found, key=len, reverse=True)
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")
        return pattern.sub(lambda match: found[match[0]], text)

    def fingerprint(self, one: ScanSource | Rejected) -> str:
        """What must be equal for an input to be the same again; nobody can guess its names with it."""
        if not self.hides(one.is_dicom):
            return one.fingerprint
        return self.key.token("fingerprint", one.fingerprint, 64) if self.key else one.nameless_fingerprint

    def people(self, scans: Iterable[ScanSource]) -> list[ScanSource]:
        """Scans whose subjects, and sessions except for plain numbers, are keyed hashes where all names are."""
        if not self.every or self.key is None:
            return list(scans)
        return [scan if scan.layout == "dicom" else self._without_name(scan, self.key) for scan in scans]

    def _without_name(self, scan: ScanSource, key: SubjectKey) -> ScanSource:
        session = scan.session if _ORDINAL.fullmatch(scan.session) else key.token("session", scan.session)
        return replace(scan, subject=key.token("patient", scan.subject), session=session)

    def _shown(self, path: str) -> str:
        return self.key.path(path) if self.key else "a file"


def naming_of(key_file: str | None, every: bool) -> Naming:
    """How a job tells names, by its settings. Raises UsageError if all are to be hashed and there is no key."""
    key = subject_key(key_file)
    if every and key is None:
        raise UsageError("--hash-subjects needs a subject key, and there is none", KEY_REMEDY)
    return Naming(key, every)


def refuse_key_in_conf(conf: Iterable[tuple[str, str]]) -> None:
    """Raise UsageError if the key stands in Spark's settings, such as `spark.yarn.appMasterEnv.…`.

    These are shown by the web UI, the event log and, of a command line, the process list.
    """
    found = next((name for name, _ in conf if name.endswith(f".{KEY_VARIABLE}")), None)
    if found is not None:
        raise UsageError(
            f"{found} is set, so that the web UI, event logs and process lists show the subject key",
            "make a new key, put it into a file on HDFS that only you can read, and give --subject-key-file its URL",
        )


def _forms(path: str) -> Iterator[str]:
    """A path and its folders, as messages may write them."""
    while path:
        yield path
        yield printable(path)
        path = path.rpartition("/")[0]


def _words(path: str) -> Iterator[str]:
    """The names that a path is made of, as far as they may be somebody's."""
    for name in path.split("/"):
        for one in (name, stem(name)):
            if len(one) >= _LEAST_WORD and one.lower() not in _PLAIN_WORDS:
                yield one
                yield printable(one)
