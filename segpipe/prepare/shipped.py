"""Files of other packages, of which only these files are used: the weights of deepbet, the atlas of nilearn."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from segpipe.errors import NotFound
from segpipe.extras import missing

VERSIONS = {"deepbet": "1.0.2", "nilearn": "0.14.1"}
"""The packages, in the versions of requirements-data.lock."""
_MODULES = ("SimpleITK", "openvino", "scipy")


def file_of(package: str, *ending: str) -> Path:
    """The file of a package whose path ends with these names. Raises NotFound if it or its package is missing."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise NotFound(f"Package {package} is not installed", remedy(package)) from error
    path = next((Path(str(file.locate())) for file in files if file.parts[-len(ending) :] == ending), None)
    if path is None or not path.is_file():
        raise NotFound(f"Package {package} lacks {'/'.join(ending)}", remedy(package))
    return path


def remedy(package: str) -> str:
    """How a package gets here; what it requires itself is not needed, because its code is never run."""
    return f"run `make setup` in a checkout, or pip install --no-deps {package}=={VERSIONS[package]}"


def check_modules() -> None:
    """Raise MissingPackage for what preparing imports and is not installed; nothing is imported for that."""
    for module in _MODULES:
        if find_spec(module) is None and (lacked := missing(ModuleNotFoundError(name=module))):
            raise lacked
