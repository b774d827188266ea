"""The file system behind a URL, the same for every room: by path or file://, hdfs://, and, to read, s3://."""

import re

from fsspec import AbstractFileSystem, get_filesystem_class, register_implementation
from fsspec.implementations.local import LocalFileSystem

from segpipe.errors import UsageError
from segpipe.extras import missing
from segpipe.storage import modes

modes.follow_setting()  # every process that writes comes by here, on a cluster's nodes too

# hdfs:// without libhdfs and with segpipe's guarantees; loaded when such a URL is met.
register_implementation("hdfs", "segpipe.storage.hdfs.Hdfs", clobber=True)
register_implementation("s3", "segpipe.storage.s3.S3", clobber=True)
register_implementation("s3a", "segpipe.storage.s3.S3", clobber=True)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OURS = ("hdfs", "memory")  # memory:// is fsspec's, for this process alone
READ_ONLY = ("s3://", "s3a://")
"""How URLs begin where tables can be read and not written."""
_OBJECT_STORES = frozenset(
    (
        "s3",
        "s3a",
        "s3n",
        "gs",
        "gcs",
        "abfs",
        "abfss",
        "adl",
        "az",
        "wasb",
        "wasbs",
        "oss",
        "oci",
        "obs",
        "cos",
        "swift",
    )
)
PLACES = "give a path, or a URL of file:// or hdfs://"


def url_to_fs(url: str, *, to_read: bool = False) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URL or path, and the path inside it, taken as it stands: `::` means nothing in it.

    Where nothing will be written (`to_read`), that may be s3:// or s3a://. Raises UsageError for any other kind of URL,
    and MissingPackage where hdfs:// lacks its package.
    """
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    if scheme in ("file", "local"):
        return LocalFileSystem(), LocalFileSystem._strip_protocol(url)
    if scheme in _OURS or (to_read and f"{scheme}://" in READ_ONLY):
        kind = _class_of(scheme)
        url = scheme + url[len(scheme) :]
        return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
    # A URL may hold a key and its secret, which are nobody's business in a log.
    what = f"{scheme}://{url.partition('://')[2].rpartition('@')[2]}"
    if scheme in _OBJECT_STORES:
        raise on_object_store(what)
    raise UsageError(f"{what} cannot be opened, because {scheme}:// is not supported", PLACES)


def on_object_store(url: str) -> UsageError:
    """The refusal to write to an object store: one kill between the copy and the delete left slices of a scan twice."""
    problem = (
        f"{url} is on an object store, where no rename is atomic, so that a job that is killed could leave a scan twice"
    )
    if url.startswith(READ_ONLY):
        problem += " (segpipe.open_warehouse reads tables there)"
    return UsageError(problem, f"copy it to a disk or to HDFS, and {PLACES}")


def _class_of(scheme: str) -> type[AbstractFileSystem]:
    """The class of a scheme; fsspec says of a package that is missing only that an import failed."""
    try:
        return get_filesystem_class(scheme)
    except ImportError as error:
        if error.__cause__ is not None and (lacked := missing(error.__cause__)):
            raise lacked from error
        raise
