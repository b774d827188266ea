"""What can be chosen by name: one row each, with the module that does it, which is imported when it is used.

docs/contributing.md says what such a module must have.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Trainer:
    """A way to train: its module has `train(plan, spark)`."""

    module: str
    on_spark: bool = True
    """Whether it trains on the executors of a Spark session."""
    bigdl: bool = False
    """Whether the driver needs BigDL's jars."""


TRAINERS = {
    "orca": Trainer("segpipe.trainers.orca", bigdl=True),
    "horovod": Trainer("segpipe.trainers.horovod"),
    "local": Trainer("segpipe.trainers.local", on_spark=False),
}

# What runs an exported network: its module has `precision`, `files` and `predictor`.
RUNTIMES = {
    "openvino": "segpipe.runtimes.openvino",
    "keras": "segpipe.runtimes.keras",
}


@dataclass(frozen=True)
class Layout:
    """How an archive is laid out: `claim` is `module:function`, which takes the files that it understands."""

    claim: str
    auto: bool = True
    """Whether `auto` asks it: in this order, each seeing what those before left over."""


LAYOUTS = {
    "decathlon": Layout("segpipe.readers.layouts.decathlon:claim"),
    "bids": Layout("segpipe.readers.layouts.bids:claim"),
    "brats": Layout("segpipe.readers.layouts.plain:claim_brats", auto=False),  # `plain` knows it too
    "dicom": Layout("segpipe.readers.layouts.dicom:claim"),
    "plain": Layout("segpipe.readers.layouts.plain:claim"),
}


def module(path: str) -> Any:
    """The module of a row."""
    return import_module(path)


def loaded(place: str) -> Any:
    """What stands at `module:name`."""
    path, _, name = place.partition(":")
    return getattr(import_module(path), name)
