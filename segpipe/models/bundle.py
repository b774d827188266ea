"""A trained model is one directory; `bundle.json` says what goes in, how it was made, and what each file hashes to.

Only numpy-light things are imported here, so that segmentation can check a model without a deep-learning framework.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from segpipe.core.neighbours import slices_shown
from segpipe.core.prediction import AS_INGESTED
from segpipe.errors import ModelError, SegpipeError
from segpipe.models.forms import malformed
from segpipe.models.weights import EARLIER, WEIGHTS, packed, take_earlier, unpacked
from segpipe.settings import NetworkSettings
from segpipe.settings import check as check_ranges

if TYPE_CHECKING:
    import tensorflow as tf
    from fsspec import AbstractFileSystem

FORMAT = 1
TRAINED, ADOPTED = "trained", "adopted"
_INDEX = "bundle.json"
SLICES = "slices"
"""The folder, in a model directory, of the bundle of the 2D network that answers together with the 3D one."""
SLICES_TRAINED = f"{SLICES}/{_INDEX}", f"{SLICES}/{WEIGHTS}"
"""The index and the weights of that network, among the files of the 3D one."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """The content of `bundle.json`; `url` is where it stands and is not part of it.

    A slice fits when its scan has these `modalities`, in any order, and this `orientation` of (slice, row, column). It
    is normalised per scan and modality over the brain's voxels, cut to a window of `crop` (rows, columns) around the
    middle of the brain's box (larger where the brain is, in steps of `multiple`, and smaller for slices that show
    little of it), and padded with the background where the window leaves the image.
    """

    url: str = field(compare=False)
    modalities: tuple[str, ...]
    orientation: str
    crop: tuple[int, ...]
    multiple: int
    label_convention: str
    labels: dict[str, str]
    regions: dict[str, tuple[int, ...]]
    network: dict[str, Any]
    training: dict[str, Any]
    cohort: str
    split_rule: str
    subjects: dict[str, int]
    metrics: dict[str, Any]
    weights_sha256: str
    model_id: str = ""
    normalisation: str = "brain mean and deviation"
    threshold: float = 0.5
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    """What `export` measured and chose: `precision`, `reason`, and the figures behind it; empty before the export."""
    cleaning: dict[str, float] = field(default_factory=dict)
    """The least volume of each region's components, ml; smaller ones are left out. `export` chooses it."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """The probability above which a voxel belongs to a region, where that is not `threshold`. `export` chooses it."""
    presence: dict[str, float] = field(default_factory=dict)
    """The least volume of a whole region, ml; a region with less is taken for empty. `export` chooses it."""
    evidence: dict[str, float] = field(default_factory=dict)
    """What a region's part must hold of the next inner region, as a share of the main part. `export` chooses it."""
    brightness: dict[str, float] = field(default_factory=dict)
    """How bright a voxel of a region must be, see `segpipe.core.brightness`. `export` chooses it."""
    space: str = AS_INGESTED
    """What its scans were prepared to be, such as `brain-1mm`; `as ingested` where they were not, or nobody knows."""
    origin: str = TRAINED
    """`trained` here, or `adopted`: trained elsewhere, without Keras weights, run as its card in `adopted` says."""
    adopted: dict[str, Any] = field(default_factory=dict)
    """Of an adopted network its `card` (see `segpipe.models.card`), `format`, `sha256`, and `batch`: most at once."""

    @property
    def fingerprint(self) -> str:
        """A hash of what the model computes: weights, network, input, regions, decisions, an adopted one's card."""
        parts = (self.weights_sha256, self.network, self.modalities, self.orientation, self.crop, self.multiple)
        more = (self.label_convention, self.regions, self.normalisation, self.threshold)
        later: list[Any] = [] if self.origin == TRAINED else [self.adopted.get("card")]
        later += [self.cleaning] if self.cleaning else []
        later += [self.space] if self.space != AS_INGESTED else []
        later += [{"thresholds": self.thresholds}] if self.thresholds else []
        later += [{"presence": self.presence}] if self.presence else []
        later += [{"evidence": self.evidence}] if self.evidence else []
        later += [{"brightness": self.brightness}] if self.brightness else []
        return hashlib.sha256(json.dumps([*parts, *more, *later], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def trained_as(self) -> str:
        """The `model_id` that it had when it was trained, before it was exported with decisions of its own."""
        return self.undecided.fingerprint

    @property
    def undecided(self) -> "Bundle":
        """The bundle as it was trained, without what `export` chose; its `model_id` is as it was."""
        return replace(self, cleaning={}, thresholds={}, presence={}, evidence={}, brightness={})

    @property
    def cut(self) -> float | tuple[float, ...]:
        """Where the regions' probabilities are cut: one threshold for all, or one for each, outermost first."""
        if not self.thresholds:
            return self.threshold
        return tuple(self.thresholds.get(region, self.threshold) for region in self.regions)

    @property
    def leaves_out(self) -> bool:
        """Whether it leaves out what is too small, what nothing speaks for, or what is too dull."""
        return bool(self.cleaning or self.presence or self.evidence or self.brightness)

    @property
    def seal(self) -> str:
        """A hash of all that the bundle says, the hash of every file included: what `--expect-model` asks for."""
        content = {name: value for name, value in asdict(self).items() if name != "url"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def seal_line(self) -> str:
        """The seal, as jobs tell it."""
        return f"seal {self.seal} (for --expect-model)"

    @property
    def has_slices(self) -> bool:
        """Whether a 2D network answers together with this one; see `slices`."""
        return bool(self.network.get("beside"))

    @property
    def neighbours(self) -> int:
        """Distance, in slices, of the two neighbours that a 2D network is shown beside each slice; 0 if it is not."""
        return 0 if self.network["dimensions"] == 3 else int(self.network.get("neighbours") or 0)

    @property
    def channels(self) -> int:
        """Of the network's input: modalities, of each slice that it is shown."""
        return len(self.modalities) * slices_shown(self.neighbours)

    def slices(self, index: bytes | None = None) -> "Bundle":
        """The bundle of the 2D network that answers together with this one, from the content of its `index` or read.

        Raises ModelError if it is another than this one was saved with.
        """
        url = f"{self.url.rstrip('/')}/{SLICES}"
        found = Bundle.load(url) if index is None else _parse(url, json.loads(index))
        if found.trained_as != self.network["beside"]:
            raise ModelError(
                f"Model {self.url} needs {self.network['beside']} in its {SLICES}, not {found.trained_as}", _TRAIN_AGAIN
            )
        return found

    def beside(self) -> dict[str, bytes]:
        """Its index and its weights, as files (`SLICES_TRAINED`) of the model in whose folder it is."""
        fs, folder = _open_folder(self.url)
        return {name: fs.cat_file(f"{folder}{name.removeprefix(SLICES)}") for name in SLICES_TRAINED}

    @property
    def weights_file(self) -> str:
        """The file that holds the weights; earlier versions wrote another."""
        return EARLIER if EARLIER in self.files and WEIGHTS not in self.files else WEIGHTS

    def must_be_trained_here(self, deed: str) -> None:
        """Raise ModelError if the network came from elsewhere, because then there is nothing to do `deed` with."""
        if self.origin != TRAINED:
            name = self.adopted["card"]["network"]["name"]
            raise ModelError(
                f"Model {self.url} is the adopted network {name!r}, which has no Keras weights to {deed}",
                "segment with it as it is, with --runtime openvino",
            )

    @classmethod
    def load(cls, url: str, expected: str | None = None) -> "Bundle":
        """Read the bundle in the directory or URL `url`; `expected` is the seal that it must have.

        Raises ModelError if there is none, if it cannot be read, is not what its `model_id` says, or is
        another than expected. That a directory fits its own hashes does not say who made it.
        """
        fs, folder = _open_folder(url)
        try:
            check_file(fs, f"{folder}/{_INDEX}")
            raw = json.loads(fs.cat_file(f"{folder}/{_INDEX}"))
        except FileNotFoundError:
            raise ModelError(
                f"No model in {url}: {_INDEX} is missing", "give a directory that `train` or `adopt` wrote as --model"
            ) from None
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError(f"Model {url} has an unreadable {_INDEX} ({error})", _TRAIN_AGAIN) from error
        bundle = _parse(url, raw)
        if expected is not None and expected != bundle.seal:
            raise ModelError(
                f"Model {url} has the seal {bundle.seal}, not {expected}",
                "get the model again from whoever gave you the seal",
            )
        return bundle

    def verify(self) -> "Bundle":
        """Give the bundle back; raise ModelError naming every file whose hash is not the listed one."""
        fs, folder = _open_folder(self.url)
        faults = []
        for name, wanted in sorted(self.files.items()):
            try:
                found = _sha256(fs, f"{folder}/{name}")
            except FileNotFoundError:
                faults.append(f"{name} is missing")
                continue
            except OSError as error:
                faults.append(f"{name} cannot be read ({error})")
                continue
            if found != wanted:
                faults.append(f"{name} has sha256 {found[:12]}… instead of {wanted[:12]}…")
        if faults:
            raise ModelError(f"Model {self.url} is damaged: {'; '.join(faults)}", _TRAIN_AGAIN)
        return self

    def with_files(
        self,
        *names: str,
        without: tuple[str, ...] = (),
        inference: Mapping[str, Any] | None = None,
        **decisions: Mapping[str, float],
    ) -> "Bundle":
        """The bundle with these files of its directory hashed again and listed, on disk too; for `export`.

        Files `without` are no longer listed; `inference` and `decisions` (`cleaning`, `thresholds`, …) replace
        what was recorded, where given. Other decisions make another model of it, with another `model_id`.
        """
        fs, folder = _open_folder(self.url)
        kept = {name: known for name, known in self.files.items() if name not in without}
        hashes = {name: _sha256(fs, f"{folder}/{name}") for name in names}
        recorded = self.inference if inference is None else dict(inference)
        decided = {name: dict(values) for name, values in decisions.items()}
        bundle = replace(self, files={**kept, **hashes}, inference=recorded, **decided)  # type: ignore[arg-type]
        bundle = replace(bundle, model_id=bundle.fingerprint)
        _write_index(bundle)
        return bundle


_TRAIN_AGAIN = "copy it again from where it was trained, or train into another --model"


def save_bundle(bundle: Bundle, model: "tf.keras.Model", files: Mapping[str, bytes] | None = None) -> Bundle:
    """Write a trained model's weights, further small `files` and the index of them; gives the bundle as written.

    `weights_sha256`, `model_id` and `files` are filled in. The index goes last, so that a half-written directory is no
    bundle.
    """
    weights = model.get_weights()
    contents = {WEIGHTS: packed(weights), **(files or {})}
    return save_files(replace(bundle, weights_sha256=weights_sha256(weights)), contents)


def save_files(bundle: Bundle, contents: Mapping[str, bytes]) -> Bundle:
    """Write the files of a bundle, then the index of them; gives the bundle with `model_id` and `files` filled in."""
    fs, folder = _open_folder(bundle.url)
    for name, data in contents.items():
        path = f"{folder}/{name}"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        _replace_file(fs, path, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    bundle = replace(bundle, files=hashes)
    bundle = replace(bundle, model_id=bundle.fingerprint)
    _write_index(bundle)
    return bundle


def load_keras(bundle: Bundle) -> "tf.keras.Model":
    """The network of a bundle, for prediction: built from what the bundle says, with the weights of its file.

    Nothing that the directory holds is run. Raises ModelError if the file is not the one that was saved.
    """
    fs, folder = _open_folder(bundle.url)
    try:
        check_file(fs, f"{folder}/{bundle.weights_file}")
        data = fs.cat_file(f"{folder}/{bundle.weights_file}")
    except FileNotFoundError:
        raise ModelError(f"Model {bundle.url} lacks {bundle.weights_file}", _TRAIN_AGAIN) from None
    except OSError as error:
        raise ModelError(f"Model {bundle.url} cannot be read ({error})", _TRAIN_AGAIN) from None
    return with_weights(bundle, data)


def with_weights(bundle: Bundle, data: bytes) -> "tf.keras.Model":
    """The network of a bundle with the content of its file of weights; see `load_keras`."""
    bundle.must_be_trained_here("load")
    name = bundle.weights_file
    if hashlib.sha256(data).hexdigest() != bundle.files.get(name):
        raise ModelError(f"Model {bundle.url} is damaged: {name} is not the file that was saved", _TRAIN_AGAIN)
    network = built(bundle)
    try:
        if name == WEIGHTS:
            network.set_weights(unpacked(data, [array.shape for array in network.get_weights()]))
        else:
            take_earlier(network, data)
    except ValueError as error:
        raise ModelError(
            f"Model {bundle.url} holds no weights of its network in {name} ({error})", _TRAIN_AGAIN
        ) from error
    if weights_sha256(network.get_weights()) != bundle.weights_sha256:
        raise ModelError(f"Model {bundle.url} is damaged: {name} holds other weights than it says", _TRAIN_AGAIN)
    return network


def network_settings(bundle: Bundle) -> NetworkSettings:
    """The shape of a bundle's network. Raises ModelError if no network can have it."""
    names = {setting.name for setting in fields(NetworkSettings)}
    settings = NetworkSettings(**{name: value for name, value in bundle.network.items() if name in names})
    try:
        check_ranges(settings)
    except SegpipeError as error:
        raise ModelError(
            f"Model {bundle.url} has no network that can be built ({error.problem})", _TRAIN_AGAIN
        ) from None
    return settings


def built(bundle: Bundle) -> "tf.keras.Model":
    """The network that a bundle describes, untrained, as it segments."""
    from segpipe.models.unet import build_ensemble, to_segment

    settings = network_settings(bundle)
    return to_segment(build_ensemble(settings, bundle.channels, len(bundle.regions)), settings)


def weights_sha256(weights: list[Any]) -> str:
    """A hash of a list of arrays: shapes, dtypes and values."""
    digest = hashlib.sha256()
    for array in weights:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _write_index(bundle: Bundle) -> None:
    fs, folder = _open_folder(bundle.url)
    content = {"format": FORMAT, **asdict(bundle)}
    del content["url"]
    _replace_file(fs, f"{folder}/{_INDEX}", (json.dumps(content, indent=2) + "\n").encode())


def _parse(url: str, raw: Any) -> Bundle:
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ModelError(f"Model {url} is not of bundle format {FORMAT}", "train it again with this version")
    for name, value in (
        ("inference", {}),
        ("cleaning", {}),
        ("thresholds", {}),
        ("presence", {}),
        ("evidence", {}),
        ("brightness", {}),
        ("space", AS_INGESTED),
        ("origin", TRAINED),
        ("adopted", {}),
    ):
        raw.setdefault(name, value)  # earlier versions wrote none
    names = {f.name for f in fields(Bundle)} - {"url"}
    if set(raw) != names:
        strange = sorted(names.symmetric_difference(raw))
        raise ModelError(
            f"Model {url} lacks or adds the bundle fields {', '.join(strange)}", "train it again with this version"
        )
    if wrong := malformed(raw):
        raise ModelError(f"Model {url} has a malformed {', '.join(wrong)} in its {_INDEX}", _TRAIN_AGAIN)
    for name in ("modalities", "crop"):
        raw[name] = tuple(raw[name])
    raw["regions"] = {region: tuple(labels) for region, labels in raw["regions"].items()}
    bundle = Bundle(url=url, **raw)
    if bundle.model_id != bundle.fingerprint:
        raise ModelError(f"Model {url} says that it is {bundle.model_id} but is {bundle.fingerprint}", _TRAIN_AGAIN)
    return bundle


def _open_folder(url: str) -> "tuple[AbstractFileSystem, str]":
    from segpipe.storage import url_to_fs

    fs, folder = url_to_fs(url)
    return fs, folder.rstrip("/")


def _replace_file(fs: "AbstractFileSystem", path: str, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; durable on a local disk."""
    from segpipe.storage.filesystem import flush_folder, replace

    replace(fs, path, data)
    flush_folder(fs, path.rpartition("/")[0])


def check_file(fs: "AbstractFileSystem", path: str) -> None:
    """Raise OSError for what is there and is no file: a pipe, or a link to a device, would be read for ever."""
    if fs.exists(path) and not fs.isfile(path):
        raise OSError(f"{path} is no file")


def _sha256(fs: "AbstractFileSystem", path: str) -> str:
    digest = hashlib.sha256()
    check_file(fs, path)
    with fs.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
