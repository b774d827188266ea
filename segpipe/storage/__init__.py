"""The file system behind a URL, the same for every room: this machine's, by path or file://, and hdfs://."""

import re

from fsspec import AbstractFileSystem, get_filesystem_class, register_implementation
from fsspec.implementations.local import LocalFileSystem

from segpipe.errors import UsageError
from segpipe.extras import missing
from segpipe.storage import modes

modes.follow_setting()  # every process that writes comes by here, on a cluster's nodes too

# hdfs:// without libhdfs and with segpipe's guarantees; loaded when such a URL is met.
register_implementation("hdfs", "segpipe.storage.hdfs.Hdfs", clobber=True)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OURS = ("hdfs", "memory")  # memory:// is fsspec's, for this process alone
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


def url_to_fs(url: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URL or path, and the path inside it, taken as it stands: `::` means nothing in it.

    Raises UsageError for any other kind of URL. On an object store a rename is a copy and a delete, and one kill
    between the two left slices of a scan twice: what is promised of tables and models cannot be kept there so far.
    Raises MissingPackage where hdfs:// lacks its package.
    """
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    if scheme in ("file", "local"):
        return LocalFileSystem(), LocalFileSystem._strip_protocol(url)
    if scheme in _OURS:
        kind = _class_of(scheme)
        return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
    # A URL may hold a key and its secret, which are nobody's business in a log.
    what = f"{scheme}://{url.partition('://')[2].rpartition('@')[2]}"
    if scheme in _OBJECT_STORES:
        raise UsageError(
            f"{what} is on an object store, where no rename is atomic, so that a job that is killed could leave a scan"
            " twice (object stores are planned)",
            f"copy it to a disk or to HDFS, and {PLACES}",
        )
    raise UsageError(f"{what} cannot be opened, {scheme}:// is not known", PLACES)


def _class_of(scheme: str) -> type[AbstractFileSystem]:
    """The class of a scheme; fsspec says of a package that is missing only that an import failed."""
    try:
        return get_filesystem_class(scheme)
    except ImportError as error:
        if error.__cause__ is not None and (lacked := missing(error.__cause__)):
            raise lacked from error
        raise
