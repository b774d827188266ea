"""Which runtimes there are, and how a job says which one it wants."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from segpipe import registry
from segpipe.core.brightness import Passing, channels_of, keep_bright
from segpipe.core.cleaning import clean
from segpipe.core.evidence import keep_supported
from segpipe.core.prediction import Predictor, ScanInput, Segmented, SliceBatch
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import region_runs
from segpipe.errors import ModelError, UsageError
from segpipe.models.bundle import Bundle, check_file
from segpipe.registry import RUNTIMES
from segpipe.storage import url_to_fs

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
LOOKS = ("all", "doubt")


@dataclass(frozen=True)
class PredictorSpec:
    """Which model, on which runtime, with how many slices per request.

    `precision` is that of OpenVINO; `auto` is the one that `export` chose. A processor without bfloat16 computes in
    float32 instead. Raises UsageError for what is unknown.
    """

    model_url: str
    runtime: str = "openvino"
    batch_size: int = 8
    precision: str = "auto"
    expected: str | None = None
    """The seal that the model must have."""
    looks: str = "all"
    """How a network that sees mirror images looks: at all four, or at one, and a second where in doubt."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("Runtime", self.runtime, RUNTIMES),
            ("Precision", self.precision, PRECISIONS),
            ("Kind of looks", self.looks, LOOKS),
        ):
            if value not in choices:
                raise UsageError(f"{name} {value!r} is unknown", f"choose one of {', '.join(choices)}")
        if self.batch_size < 1:
            raise UsageError(f"Batch size {self.batch_size} is too small", "give 1 or more slices per request")

    def pack(self) -> "PackedPredictor":
        """The predictor as it travels, its model's files in it; ModelError if they are missing or damaged."""
        bundle = Bundle.load(self.model_url, self.expected)
        runtime = registry.module(RUNTIMES[self.runtime])
        precision = runtime.precision(bundle) if self.precision == "auto" else self.precision
        names, remedy = runtime.files(bundle, precision, self.looks)
        files = {name: read_verified(bundle, name, remedy) for name in names}
        return PackedPredictor(replace(self, model_url=bundle.url, precision=precision), bundle, files)

    def open(self, threads: int) -> Predictor:
        """The predictor in this process; see `PackedPredictor.open`."""
        return self.pack().open(threads)


@dataclass(frozen=True, eq=False)
class PackedPredictor:
    """A `PredictorFactory` that needs no file system where it is opened: it holds the files that its runtime reads.

    The precision of its `spec` is never `auto`.
    """

    spec: PredictorSpec
    bundle: Bundle
    files: dict[str, bytes]

    def open(self, threads: int) -> Predictor:
        """The predictor on `threads` threads, made once per process; ModelError if a file was damaged on its way."""
        for name, data in self.files.items():
            check_hash(self.bundle, name, data)
        key = (self.bundle.model_id, self.bundle.files.get(next(iter(self.files))), self.spec, threads)
        if key not in _OPEN:
            _OPEN.clear()  # a worker serves one model at a time: the memory of the last one is given back
            found = registry.module(RUNTIMES[self.spec.runtime]).predictor(self, threads)
            _OPEN[key] = CleanedPredictor(found, self.bundle) if self.bundle.leaves_out else found
        return _OPEN[key]


@dataclass(frozen=True, eq=False)
class CleanedPredictor:
    """A predictor whose label maps lack the voxels, components and whole regions that its bundle leaves out.

    Probabilities stay those of the voxels as they were predicted, except for regions of which nothing is left.
    """

    predictor: Predictor
    bundle: Bundle

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. A scan whose spacing nobody states is left as it is."""
        convention = CONVENTIONS[self.bundle.label_convention]
        voxel_ml = math.prod(scan.spacing_mm) / 1000
        passing = Passing(scan, channels_of(self.bundle.modalities, self.bundle.brightness))
        found = self.predictor.segment(scan, passing.of(batches))
        labels = keep_bright(found.labels, convention, self.bundle.brightness, passing)
        labels = keep_supported(labels, convention, self.bundle.evidence)
        labels = clean(labels, convention, self.bundle.cleaning, voxel_ml, self.bundle.presence)
        left = region_runs(labels, convention.regions)
        means = {name: mean if left[name].voxels else None for name, mean in found.mean_probability.items()}
        return Segmented(labels, means, found.max_probability)


_OPEN: dict[tuple, Predictor] = {}


def read_verified(bundle: Bundle, name: str, remedy: str) -> bytes:
    """A file of a bundle as the bundle lists it; ModelError with `remedy` where it is missing."""
    fs, folder = url_to_fs(bundle.url)
    path, data = f"{folder.rstrip('/')}/{name}", None
    try:
        check_file(fs, path)
        data = fs.cat_file(path) if name in bundle.files else None
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ModelError(f"Model {bundle.url} cannot be read ({error})", remedy) from None
    if data is None:
        raise ModelError(f"Model {bundle.url} lacks {name}", remedy)
    check_hash(bundle, name, data)
    return data


def check_hash(bundle: Bundle, name: str, data: bytes) -> None:
    """Raise ModelError where `data` is not the file `name` that the bundle lists."""
    found = hashlib.sha256(data).hexdigest()
    wanted = bundle.files.get(name, "none")
    if found != wanted:
        raise ModelError(
            f"Model {bundle.url} is damaged: {name} has sha256 {found[:12]}… instead of {wanted[:12]}…",
            "copy it again from where it was trained, or export it again",
        )
