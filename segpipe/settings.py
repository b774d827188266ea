"""The settings of every job: frozen dataclasses, the only home of defaults.

Command-line flags, their `--help`, and the keys of `conf/segpipe.toml` are derived from these fields.
"""

import math
import re
import types
import typing
from collections.abc import Collection
from dataclasses import Field, dataclass, field, fields
from typing import Any

from segpipe import registry
from segpipe.errors import UsageError


def option(
    help: str,
    default: Any = None,
    *,
    required: bool = False,
    unless: str | None = None,
    choices: tuple[str | int, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    name: bool = False,
) -> Any:
    """A dataclass field that is also a command-line flag; `help` states the unit and what None means.

    `least`, `most`, `above` and `below` bound a number; `name` asks for a word that may stand in a file name. What is
    `required` may be left out if the switch `unless` is given.
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    return field(
        default=default,
        metadata={"help": help, "required": required, "unless": unless, "choices": choices, "name": name, **bounds},
    )


def help_of(setting: "Field[Any]") -> str:
    """The help line of a field, its default included."""
    default = "" if setting.metadata["required"] else default_of(setting)
    return setting.metadata["help"] + (f" (default: {default})" if default else "")


def default_of(setting: "Field[Any]") -> str:
    """The default of a field as it is shown: on or off for a switch, nothing for None."""
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    return "" if setting.default is None else str(setting.default)


def flag_of(setting: "Field[Any]") -> str:
    """The command-line flag of a field: `part_mb` is `--part-mb`."""
    return "--" + setting.name.replace("_", "-")


def is_excused(setting: "Field[Any]", switches: Collection[str]) -> bool:
    """Whether one of the switches makes an option that is required otherwise one that may be left out."""
    return setting.metadata["unless"] in switches


def plain_type(kind: Any) -> type:
    """The type of a field's values, None apart.

    >>> plain_type(int | None)
    <class 'int'>
    """
    if isinstance(kind, types.UnionType):
        return next(member for member in typing.get_args(kind) if member is not type(None))
    assert isinstance(kind, type)
    return kind


def check(settings: Any) -> None:
    """Raise UsageError naming every flag whose value is out of its range, with the value and the range."""
    on = {setting.name for setting in fields(settings) if getattr(settings, setting.name) is True}
    given = {s: value for s in fields(settings) if (value := getattr(settings, s.name)) != "" or not is_excused(s, on)}
    faults = [fault for setting, value in given.items() if (fault := _fault(setting, value))]
    if isinstance(settings, IngestSettings) and not faults:
        total = settings.train_fraction + settings.validation_fraction
        if total > 1 + 1e-9:
            faults.append(f"--train-fraction and --validation-fraction add up to {total:g} but must be at most 1")
    if getattr(settings, "prepare", False) and settings.resample_to is not None:
        faults.append("--prepare and --resample-to are two ways to one grid, of which one can be taken")
    if faults:
        raise UsageError("; ".join(faults), "correct these options")


def _fault(setting: "Field[Any]", value: Any) -> str | None:
    rules = setting.metadata
    if rules["required"] and value == "":
        return f"{flag_of(setting)} is empty, it needs a value"
    if value is None:
        return None
    if rules["choices"] and value not in rules["choices"]:
        return f"{flag_of(setting)} is {value!r} but must be one of {', '.join(map(str, rules['choices']))}"
    if rules["name"] and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        return f"{flag_of(setting)} is {value!r} but must be letters, digits, `.`, `_` and `-`"
    if isinstance(value, int | float) and not isinstance(value, bool) and not _in_range(value, rules):
        return f"{flag_of(setting)} is {value:g} but must be {bounds_of(setting) or 'finite'}"
    return None


def _in_range(value: float, rules: Any) -> bool:
    return (
        math.isfinite(value)
        and (rules["least"] is None or value >= rules["least"])
        and (rules["most"] is None or value <= rules["most"])
        and (rules["above"] is None or value > rules["above"])
        and (rules["below"] is None or value < rules["below"])
    )


def bounds_of(setting: "Field[Any]") -> str:
    """The bounds of a field's number, such as `at least 0 and below 1`; nothing if there are none."""
    rules, words = setting.metadata, {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    return " and ".join(f"{word} {rules[key]:g}" for key, word in words.items() if rules[key] is not None)


AXES = ("axial", "coronal", "sagittal")
SESSIONS, PREFERENCES, ALSO = ("study", "date", "accession"), ("2d-axial", "3d"), ("ADC", "DWI", "SWI", "PD")
LAYOUTS = ("auto", "manifest", *registry.LAYOUTS)
RUNTIMES, TRAINERS = tuple(registry.RUNTIMES), tuple(registry.TRAINERS)
MOST_NEIGHBOURS = 16

LEAST_EPOCHS, LEAST_STEPS, LEAST_POOLED_STEPS = 20, 700, 1200
SHARED_EPOCHS, SHARED_POOLED_EPOCHS, SHARED_STEPS, SHARED_POOLED_STEPS = 5, 15, 600, 800
"""The same where a 2D network and a 3D one answer together, so that both take little longer than one alone."""
_KEY_FILE = (
    "file or URL of the secret key (at least 16 bytes) with which the names of patients are hashed; if not given, the"
    " file that the environment variable SEGPIPE_SUBJECT_KEY_FILE names, or the key itself in SEGPIPE_SUBJECT_KEY"
)
_LABEL_CONVENTION = (
    "what the numbers of masks mean: brats, brats2023, brats2024, brats-ped, decathlon, binary, or a TOML file of your"
    " own; if not given, it is recognised by names and by all masks together"
)
_HASH_SUBJECTS = (
    "replace the names of subjects, folders and files by keyed hashes in all layouts; for DICOM this is always done"
)
SLICES_PER_STEP, PATCHES_PER_STEP = 16, 2
BEST_MEMBERS = 3


@dataclass(frozen=True, kw_only=True)
class SeriesSettings:
    """How the series of a DICOM archive become scans."""

    session: str = option(
        "which DICOM series make one visit: those of one study, of one day, or of one accession number",
        "study",
        choices=SESSIONS,
    )
    prefer: str = option(
        "which DICOM series to take if a visit has several of one modality: thick axial slices, or 3D volumes",
        "2d-axial",
        choices=PREFERENCES,
    )
    also: str | None = option(
        f"further kinds of DICOM series to take into scans, separated by commas: {', '.join(ALSO)}"
    )
    series_map: str | None = option(
        "CSV file with the columns text (description, protocol or series UID), role (a modality, or ignore) and,"
        " optionally, vendor; it names DICOM series that the rules do not know or get wrong"
    )


@dataclass(frozen=True)
class IngestSettings(SeriesSettings):
    """Read an archive of scans into the tables `scans` and `slices`."""

    source: str = option("folder, manifest or URL (file://, hdfs://) of the archive", "", required=True)
    warehouse: str = option("folder or URL that holds the tables; made if missing", "", required=True, unless="plan")
    cohort: str = option("name of the cohort in the tables", "", required=True, unless="plan", name=True)
    layout: str = option(
        "how the archive is laid out; DICOM needs a subject key, see --subject-key-file", "auto", choices=LAYOUTS
    )
    subject_key_file: str | None = option(_KEY_FILE)
    hash_subjects: bool = option(_HASH_SUBJECTS, False)
    keep_header_text: bool = option(
        "keep the free text of NIfTI and MGH headers (descriptions, programs, comments, extensions with user and host"
        " names), so that restore gives back every byte; without it they are blanked; voxels, grid and scaling are"
        " always exact",
        False,
    )
    label_convention: str | None = option(_LABEL_CONVENTION)
    plan: bool = option(
        "print which patients, visits and modalities are found in the archive, and what cannot be used; nothing is"
        " written, and no warehouse needed, except for DICOM: its table `series` says what would become of each series",
        False,
    )
    axis: str = option("direction of the slices", "axial", choices=AXES)
    resample_to: str | None = option(
        "modality whose grid the others are resampled to; without it, scans on mixed grids are quarantined"
    )
    prepare: bool = option(
        "bring raw scans to one grid of 1 mm that shows only the brain: brain mask, rigid registration, one resampling,"
        " checks; scans that are prepared already are left alone",
        False,
    )
    split_salt: str = option("salt of the split; subjects keep their split as long as it is the same", "segpipe")
    train_fraction: float = option("share of the subjects to train on, 0 to 1", 0.7, above=0, most=1)
    validation_fraction: float = option(
        "share of the subjects to validate on, 0 to 1; the rest is the test split", 0.15, least=0, below=1
    )
    part_mb: int = option("target size of a part file, MB", 192, least=1)
    row_group_mb: int = option("largest row group before compression, MB", 16, least=1)
    max_voxels: int = option("largest number of voxels of one file; larger ones are quarantined", 1 << 30, least=1)
    lock_wait_seconds: float = option("how long to wait for another job on this cohort, seconds", 0.0, least=0)
    strict: bool = option("exit with 3 when an input was quarantined", False)


@dataclass(frozen=True)
class NetworkSettings:
    """The shape of the U-Net."""

    dimensions: int | None = option(
        "2 for slices, 3 for patches; if not given, 3 with --pool 2 for large lesions in voxels that are nearly cubes,"
        " and 2 for anything else",
        choices=(2, 3),
    )
    pool: int = option(
        "edge, in voxels, of the cubes that are averaged for the network: 2 is eight times as fast as 1, and the"
        " network sees twice as far; only for --dimensions 3",
        1,
        choices=(1, 2, 4),
    )
    filters: int = option("filters of the first level, doubled at each level below", 16, least=1)
    depth: int = option("number of times the resolution is halved", 4, least=1, most=7)
    dropout: float = option("share of the bottleneck's activations dropped in training, 0 to 1", 0.0, least=0, below=1)
    normalisation: str = option(
        "normalisation after each convolution", "instance", choices=("instance", "group", "batch", "none")
    )
    padding: str = option(
        "how convolutions treat the border: zeros beyond it, or more weight for what is inside (partial convolution)",
        "zeros",
        choices=("zeros", "partial"),
    )
    upsampling: str = option("how the decoder doubles the resolution", "transposed", choices=("transposed", "resized"))
    precision: str = option("compute precision", "float32", choices=("float32", "bfloat16"))
    mirror: bool | None = option(
        "segment by the mean over the four mirror images of a slice; --no-mirror looks once, which is four times as"
        " fast, but worse on scans that differ from those of the training; if not given, a model that exists stays as"
        " it is, and a new one has it on, but off with --pool, where it gains almost nothing; it can be changed after"
        " the training, without another step"
    )
    quality: str | None = option(
        f"standard is one network; best is the mean of {BEST_MEMBERS} networks, trained one after another from"
        f" different seeds, so that training and segmenting take {BEST_MEMBERS} times as long; if not given, a model"
        " that exists stays as it is, and a new one is standard; it can be changed after the training, which then"
        " trains only the networks that are missing",
        choices=("standard", "best"),
    )

    slices: bool | None = option(
        "a 2D network is trained after the 3D one and sees slices in full detail, and the mean of both decides, because"
        " they err differently; only for --dimensions 3; if not given, a model that exists stays as it is, and a new"
        " one has it on with --pool; it can be changed after the training, which then trains only the network that is"
        " missing"
    )

    neighbours: int = option(
        "distance, in slices, of the two neighbours that a 2D network is shown beside each slice, as further channels;"
        " 0 shows it the slice alone",
        0,
        least=0,
        most=MOST_NEIGHBOURS,
    )

    @property
    def members(self) -> int:
        """How many networks answer together."""
        return BEST_MEMBERS if self.quality == "best" else 1

    @property
    def sees_mirror_images(self) -> bool:
        """Whether it segments by the mean of four mirror images; a network of pooled voxels need not."""
        return self.pool == 1 if self.mirror is None else self.mirror

    @property
    def has_slices(self) -> bool:
        """Whether a 2D network answers together with the 3D one."""
        return self.pool > 1 if self.slices is None else self.slices

    @property
    def axes(self) -> int:
        """The number of spatial axes that the network has; 2 where nobody has decided it."""
        return self.dimensions or 2


@dataclass(frozen=True)
class TrainSettings(NetworkSettings):
    """Train a network on the slices of a cohort, into a model directory."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    cohort: str = option("name of the cohort to train on", "", required=True, name=True)
    model: str = option(
        "model directory to write; if it holds a checkpoint, training goes on from there", "", required=True
    )
    trainer: str = option("how the work is distributed", "orca", choices=TRAINERS)
    workers: int = option("number of training workers; the local trainer has one", 2, least=1)
    epochs: int | None = option(
        f"passes over the training split; if not given {LEAST_EPOCHS}, or as many as it takes for {LEAST_STEPS:,} steps"
        f" ({LEAST_POOLED_STEPS:,} with --pool), because a small cohort needs more passes; with --slices"
        f" {SHARED_POOLED_EPOCHS} of patches, or {SHARED_POOLED_STEPS:,} steps, and {SHARED_EPOCHS} of slices, or"
        f" {SHARED_STEPS:,} steps",
        least=1,
    )
    steps_per_epoch: int | None = option(
        "steps in an epoch; if not given, as many as show each training slice once", least=1
    )
    batch_size: int | None = option(
        "slices (patches with --dimensions 3) in a step, over all workers together; if not given,"
        f" {SLICES_PER_STEP} slices or {PATCHES_PER_STEP} patches",
        least=1,
    )
    learning_rate: float = option("highest learning rate of the cosine schedule", 1e-3, above=0)
    foreground_share: float = option("smallest share of slices with a label in a batch, 0 to 1", 0.5, least=0, most=1)
    coarse_share: float = option(
        "share of the epochs, at the start, that learn from slices of half the size; only for --dimensions 2",
        0.0,
        least=0,
        below=1,
    )
    patch_size: int | None = option(
        "longest edge of a patch, voxels, a multiple of 2^depth times --pool; if not given, 64 times --pool; only for"
        " --dimensions 3",
        least=4,
        most=512,
    )
    tile_overlap: float = option(
        "share by which neighbouring tiles overlap in validation; only for --dimensions 3", 0.25, least=0, most=0.9
    )
    threshold: float = option(
        "probability above which a voxel belongs to a region, 0 to 1; it can be changed after the training",
        0.5,
        above=0,
        below=1,
    )
    deep_supervision: bool = option("train the lower levels of the decoder to segment as well", False)
    augment: bool = option("flip, rotate, scale and shift intensities while training", True)
    validate_every: int = option("epochs from one validation to the next; the last is always validated", 1, least=1)
    patience: int = option(
        "epochs without a better validation Dice after which training stops; 0 never stops early; if it stops early,"
        " the best epoch makes the model instead of the last",
        0,
        least=0,
    )
    seed: int = option("seed of initial weights, order and augmentation", 0, least=0)
    retries: int = option("how often a failed worker group is started again from the last checkpoint", 3, least=0)
    checkpoint_minutes: float = option(
        "minutes from one checkpoint to the next inside an epoch; there is always one at its end", 10.0, above=0
    )
    lock_wait_seconds: float = option("how long to wait for another job that trains this model, seconds", 0.0, least=0)
    ports: str = option(
        "first-last: ports on which workers on several machines listen for each other; on one machine they use"
        " loopback",
        "40300-40399",
    )


@dataclass(frozen=True)
class ExportSettings:
    """Convert the Keras model of a model directory to OpenVINO."""

    model: str = option("model directory", "", required=True)
    expect_model: str | None = option(
        "seal that the model directory must have, as train, export and adopt print it; not checked if not given"
    )
    int8: bool = option(
        "also quantise to INT8 with training scans; it is published if it is faster and Dice drops by at most 0.002",
        False,
    )
    warehouse: str | None = option(
        "folder or URL of the tables that the model was trained on: its validation scans decide the precision, and the"
        " export is recorded in `runs`; if not given, float32"
    )
    clean: bool = option(
        "let segment leave out what is too small to be a lesion, parts of a region with nothing inside, such as oedema"
        " without a tumour, and tumour that is not bright: chosen on labelled scans of the training, for no region in"
        " which that does not fit; needs --warehouse",
        True,
    )
    cut: bool = option(
        "give each region a threshold of its own, chosen on labelled scans of the training; a region keeps that of"
        " train if no other one helps; needs --warehouse",
        True,
    )


@dataclass(frozen=True)
class AdoptSettings:
    """Make a model directory of a network that was trained elsewhere, which then segments like our own."""

    network: str = option(
        "file or URL of the network: .onnx, or the .xml of an OpenVINO IR with its .bin beside it", "", required=True
    )
    card: str = option(
        "file or URL of its card (TOML), or what a card can be made of: a MONAI bundle's metadata.json with"
        " inference.json beside it, an nnU-Net model's plans.json with dataset.json beside it",
        "",
        required=True,
    )
    model: str = option("model directory to write; one that was adopted before is replaced", "", required=True)
    configuration: str | None = option(
        "configuration of the nnU-Net plan; if not given, 3d_fullres, or the first if there is none of that name"
    )
    draft: str | None = option("file or URL to which the card is written as well, so that you can look it over")


@dataclass(frozen=True)
class SegmentSettings(SeriesSettings):
    """Segment scans into the tables `predictions` and `segmentations`."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    cohort: str = option("name of the cohort to segment", "", required=True, name=True)
    model: str = option("model directory, exported", "", required=True)
    expect_model: str | None = option(
        "seal that the model directory must have, as train, export and adopt print it; not checked if not given"
    )
    runtime: str = option("what runs the network", "openvino", choices=RUNTIMES)
    batch_size: int = option("slices per inference request", 8, least=1)
    precision: str = option(
        "arithmetic of OpenVINO; auto is what export chose by measuring",
        "auto",
        choices=("auto", "float32", "bfloat16", "int8"),
    )
    looks: str = option(
        "how many mirror images of a slice the network sees: all four, or one, and a second one for slices that leave"
        " doubt, which costs about 1.5 looks a slice instead of four; doubt is for --runtime openvino, not in int8",
        "all",
        choices=("all", "doubt"),
    )
    overwrite: bool = option("replace what this model has already segmented", False)
    source: str | None = option(
        "folder, manifest or URL of an archive to segment directly, without storing its slices; if not given, the scans"
        " of the tables are segmented"
    )
    layout: str = option("how the archive of --source is laid out", "auto", choices=LAYOUTS)
    subject_key_file: str | None = option(_KEY_FILE)
    hash_subjects: bool = option(_HASH_SUBJECTS + "; the same as for ingest", False)
    label_convention: str | None = option(_LABEL_CONVENTION + "; the same as for ingest")
    resample_to: str | None = option(
        "modality whose grid the others of --source are resampled to; without it, scans on mixed grids are quarantined"
    )
    prepare: bool = option(
        "prepare raw scans of --source as ingest --prepare does; without --source, show the scans that ingest --prepare"
        " has prepared to a model that was trained on scans as ingested",
        False,
    )
    max_voxels: int = option(
        "largest number of voxels of one file of --source; larger ones are quarantined", 1 << 30, least=1
    )
    nifti: str | None = option(
        "folder or URL to write masks to as NIfTI files, in the grid and label convention of their source"
    )
    dicom_seg: str | None = option(
        "folder or URL to write masks to as DICOM SEG files, for DICOM scans; needs --source"
    )
    dicom_sr: str | None = option(
        "folder or URL to write measures of every region to as DICOM structured reports, for DICOM scans;"
        " needs --source"
    )
    lock_wait_seconds: float = option("how long to wait for another job on this cohort, seconds", 0.0, least=0)
    strict: bool = option("exit with 3 when a scan was quarantined", False)


@dataclass(frozen=True)
class EvaluateSettings:
    """Compute the measures of all predictions, per patient and region, and print them."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    cohort: str = option("name of the cohort to judge", "", required=True, name=True)
    model: str = option("model directory, or the model_id of rows in `predictions`", "", required=True)
    expect_model: str | None = option(
        "seal that the model directory must have, as train, export and adopt print it; not checked if not given"
    )
    split: str = option("which patients to report", "test", choices=("train", "validation", "test", "all"))
    other: str | None = option("model directory or model_id to compare with, on the scans that both have segmented")
    empty_truth: str = option(
        "how to count a patient whose truth lacks the region: penalise gives Dice 0 if something was predicted and"
        " leaves the patient out otherwise; reward gives 0 or 1; skip always leaves the patient out",
        "penalise",
        choices=("penalise", "reward", "skip"),
    )
    least_lesion_voxels: int = option("smallest lesion that lesion-wise Dice looks at, voxels", 0, least=0)


@dataclass(frozen=True)
class RestoreSettings:
    """Write the source files of a scan back from the tables."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    scan: str = option("scan_id of the scan to rebuild", "", required=True)
    output: str = option("folder for the files; made if missing", "", required=True)


@dataclass(frozen=True)
class VerifySettings:
    """Check every part of a warehouse against its checksum; damaged parts are named, and the exit code is then 1."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    rebuild: bool = option("also rebuild every source file, as restore does, and compare its checksum", False)


@dataclass(frozen=True)
class CompactSettings:
    """Merge the small part files of many runs into fewer, larger ones, while others read."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    cohort: str | None = option(
        "merge only the parts of this cohort; if not given, those of all cohorts, of quarantine and of runs"
    )
    part_mb: int = option(
        "target size of a part file, MB; parts of at least half that size are left alone", 192, least=1
    )
    keep_hours: float = option(
        "how long replaced parts stay in _replaced for readers that have opened them already, hours", 24.0, least=0
    )
    lock_wait_seconds: float = option("how long to wait for another job of the same cohort, seconds", 0.0, least=0)


@dataclass(frozen=True)
class LocateSettings:
    """Find the files that a keyed hash in the tables stands for; needs the archive and the key."""

    source: str = option("folder, manifest or URL (file://, hdfs://) of the archive", "", required=True)
    token: str = option(
        "what a table shows: a path such as keyed/…, a subject, a scan_id, or a series_id or text_hash of `series`; "
        "the files that it stands for are printed",
        "",
        required=True,
    )
    layout: str = option("how the archive is laid out", "auto", choices=LAYOUTS)
    subject_key_file: str | None = option(_KEY_FILE)


@dataclass(frozen=True)
class RegisterSettings:
    """Enter the tables into Spark's catalogue, so that spark-sql finds them by name."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    database: str = option("database of the catalogue; made if missing", "segpipe", name=True)
    metastore: str | None = option(
        "folder of an embedded metastore; if not given, the Hive metastore that hive-site.xml names, or "
        "an embedded one inside the warehouse if there is none"
    )


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page about a model on a cohort, or about its preparations; it opens from disk by itself."""

    warehouse: str = option("folder or URL that holds the tables", "", required=True)
    cohort: str = option("name of the cohort to report on", "", required=True, name=True)
    model: str | None = option(
        "model directory, or the model_id of rows in `segmentations`; without one, the page shows preparations alone"
    )
    output: str = option("file or URL of the page to write", "report.html")
    note: str | None = option("sentence shown at the top, such as where the data comes from")
    cases: int = option("held-out scans with pictures, the worst first; the table lists all", 24, least=1)
    surfaces: int = option("worst held-out scans whose brain and tumour can be turned in 3D", 6, least=0)
    preparations: int = option("preparations with pictures, the worst check first", 100, least=0)


@dataclass(frozen=True)
class DemoSettings:
    """Run the whole chain, on generated scans unless a source is given."""

    source: str | None = option("archive to use instead of generated scans")
    warehouse: str | None = option(
        "folder for tables, model and report; if not given, demo, or demo-NAME with --source, where NAME is the"
        " source's"
    )
    seed: int = option("seed of the generated cohort", 0, least=0)
    subjects: int = option("number of generated subjects", 24, least=6)
    trainer: str = option("how the training is distributed", "orca", choices=TRAINERS)
    workers: int = option("number of training workers; the local trainer has one", 2, least=1)
    epochs: int | None = option("passes over the training split; if not given, 4, or 12 with --source", least=1)
    steps_per_epoch: int | None = option(
        "steps in an epoch; if not given, as many as show each training slice once", least=1
    )
    filters: int = option("filters of the first level, doubled at each level below", NetworkSettings.filters, least=1)
    depth: int = option("number of times the resolution is halved", NetworkSettings.depth, least=1, most=7)


@dataclass(frozen=True)
class DoctorSettings:
    """Tell what this machine or cluster lacks, with remedies; exit code 1 if something necessary is missing."""

    workers: int | None = option(
        "training workers for which a YARN cluster must have room; without it, the executors of the profile", least=1
    )
