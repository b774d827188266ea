"""Every table, declared once: its name, its schema, what a row stands for.

Tables are folders of plain Parquet files below one warehouse folder. All arrays of a scan have the index
order (slice, row, column); `affine` maps such an index to RAS+ millimetres.
"""

from dataclasses import dataclass

import pyarrow as pa

from segpipe.errors import TableError


@dataclass(frozen=True)
class Table:
    """A table's name, what one of its rows stands for, and its Arrow schema."""

    name: str
    row: str
    schema: pa.Schema

    def check(self, schema: pa.Schema, where: str) -> None:
        """Raise TableError naming every column of `schema` that is missing or of another type.

        Columns of `LATER_COLUMNS` may be missing: they are null in files that an earlier version wrote.
        """
        faults = []
        for field in self.schema:
            if field.name not in schema.names and field.name in LATER_COLUMNS:
                continue
            if field.name not in schema.names:
                faults.append(f"lacks column `{field.name}`")
            elif not _compatible(schema.field(field.name).type, field.type):
                faults.append(f"holds `{field.name}` as {schema.field(field.name).type}, not {field.type}")
        if faults:
            raise TableError(f"Table {self.name} in {where} {'; '.join(faults)}", "write it again with this version")


def with_later_columns(rows: pa.Table, table: Table) -> pa.Table:
    """Rows of a table with the columns, all null, that an earlier version did not write."""
    for field in table.schema:
        if field.name in LATER_COLUMNS and field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows


def _compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether the types are the same; members of LATER_MEMBERS may be missing in structs of a list."""
    if pa.types.is_list(found) and pa.types.is_list(wanted) and pa.types.is_struct(wanted.value_type):
        members = {one.name: one.type for one in wanted.value_type}
        there = {one.name: one.type for one in found.value_type} if pa.types.is_struct(found.value_type) else {}
        missing = members.keys() - there.keys()
        same = there.keys() <= members.keys() and all(_compatible(kind, members[name]) for name, kind in there.items())
        return same and missing <= LATER_MEMBERS
    return found == wanted or str(found).replace("element: ", "item: ") == str(wanted).replace("element: ", "item: ")


def _table(name: str, row: str, *columns: tuple[str, pa.DataType, bool, str]) -> Table:
    fields = [pa.field(n, t, nullable, {"doc": doc}) for n, t, nullable, doc in columns]
    return Table(name, row, pa.schema(fields))


_STR, _I32, _I64, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float64()
_BIN = pa.binary()
_TIME = pa.timestamp("us", tz="UTC")

_IDENTITY = (
    ("scan_id", _STR, False, "cohort:subject:session"),
    ("cohort", _STR, False, "name given at ingest"),
    ("subject", _STR, False, "the patient; a keyed hash for DICOM sources"),
)


def _struct(*fields: tuple[str, pa.DataType, str]) -> pa.StructType:
    return pa.struct([pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in fields])


FILE = _struct(
    ("role", _STR, "a modality, or `mask`"),
    ("path", _STR, "relative to the source given at ingest; of a DICOM series a hash of its voxels"),
    ("bytes", _I64, "size of the file"),
    ("modified", _STR, "what the file system says of the version: mtime, etag or checksum"),
    ("sha256", _STR, "of the file's bytes; of a DICOM series of its voxels, because its files name the patient"),
    ("dtype", _STR, "as stored in the file, numpy notation with byte order"),
    ("shape", pa.list_(_I32), "of the file, index order of the file"),
    ("channel", _I32, "flat index over the axes behind the third; 0 for 3D files"),
    ("orientation", _STR, "of the file's first three axes, such as LPS"),
    ("affine", pa.list_(_F64), "of the file, 16 values row by row"),
    ("slope", _F64, "a stored value means value * slope + inter"),
    ("inter", _F64, "see slope"),
    ("container", _STR, "what header and extensions are: nifti1, nifti2, analyze, mgh, dicom, …"),
    ("header", _BIN, "the file's own bytes; empty for DICOM"),
    ("extensions", _BIN, "the file's own bytes behind the header"),
    ("blanked", pa.list_(_STR), "parts of header and extensions whose free text was not kept; empty where all was"),
    ("voxels_crc32", _I64, "CRC-32 of the file's voxels, by which `restore` proves what it writes"),
)

INTENSITY = _struct(
    ("modality", _STR, "as in `modalities`"),
    ("voxels", _I64, "finite voxels of the brain"),
    ("mean", _F64, "of their scaled values"),
    ("std", _F64, "standard deviation"),
    ("min", _F64, "least value"),
    ("p01", _F64, "1st percentile"),
    ("median", _F64, "50th percentile"),
    ("p99", _F64, "99th percentile"),
    ("max", _F64, "greatest value"),
)

_LABEL = _struct(("label", _I32, "a number of the label convention"), ("voxels", _I64, "voxels with it"))
_PIXELS = _struct(("region", _STR, "such as whole_tumour"), ("pixels", _I32, "predicted pixels of the slice"))

LESION_SCORE = _struct(
    ("truth_voxels", _I64, "of the true lesion"),
    ("voxels", _I64, "of the predicted components that reach it; 0 where it was missed"),
    ("tp", _I64, "voxels in both"),
    ("dice", _F64, "0 where it was missed"),
    ("hd95_mm", _F64, "null where it was missed"),
)

TRANSFORM = _struct(
    ("role", _STR, "a modality, or `mask`: the role of a source file"),
    ("matrix", pa.list_(_F64), "points of the scan to points of the source file, RAS+ mm, 16 values row by row"),
    ("itk", _STR, "the same as the text of an ITK transform file, LPS mm"),
    ("metric", _F64, "mutual information with the reference inside the brain, negative; null for the reference"),
    ("moved_mm", _F64, "how far the brain lay from where the headers say, mean over its voxels"),
)

CHECK = _struct(
    ("name", _STR, "what was looked at, such as brain_volume_ml"),
    ("role", _STR, "the modality that it is about; null for the whole scan"),
    ("value", _F64, "what was found"),
    ("doubt", _F64, "the bound beyond which the scan is flagged"),
    ("failure", _F64, "the bound beyond which it would have been rejected"),
    ("verdict", _STR, "good or doubtful"),
)

PREPARATION = _struct(
    ("how", _STR, "prepared, or recognised: stripped and co-registered before, and left alone"),
    ("reference", _STR, "the modality that the others were registered to"),
    ("transforms", pa.list_(TRANSFORM), "one per source file; with `files`, the native grids, the way back"),
    ("checks", pa.list_(CHECK), "figures that tell a good preparation from a bad one"),
    ("versions", pa.map_(_STR, _STR), "packages and data that did it"),
)

FOLLOWS = _struct(
    ("session", _STR, "the visit, as in `scans`"),
    ("fingerprint", _STR, "of that visit's scan, as in `scans`"),
)

LATER_COLUMNS = (
    *("lesion_scores", "false_lesions", "may_show_face", "space", "preparation", "flags", "moment"),
    *("follows", "placed", "brain"),
)
"""Nullable columns that came after the first version of their table."""

LATER_MEMBERS = frozenset(("blanked", "voxels_crc32"))
"""The same of members of structs."""

SCANS = _table(
    "scans",
    "a subject's session: one scan",
    *_IDENTITY,
    ("session", _STR, False, "`1` where the archive knows no sessions"),
    ("split", _STR, False, "train, validation or test"),
    ("split_rule", _STR, False, "what made the split: salt and fractions"),
    ("layout", _STR, False, "how the archive was laid out"),
    ("label_convention", _STR, True, "name of the label map's convention; null without mask"),
    ("modalities", pa.list_(_STR), False, "order of the channels in `slices.image`"),
    ("orientation", _STR, False, "direction of (slice, row, column), such as SPL"),
    ("shape", pa.list_(_I32), False, "slices, rows, columns"),
    ("spacing_mm", pa.list_(_F64), False, "along slice, row, column"),
    ("affine", pa.list_(_F64), False, "(slice, row, column, 1) to RAS+ mm, 16 values row by row"),
    ("brain_box", pa.list_(_I32), False, "first and behind-last index per axis of the brain: 6 values"),
    ("brain_voxels", _I64, False, "voxels of the brain, or of all foreground where it is not stripped"),
    ("resampled_to", _STR, True, "modality whose grid all others were resampled to; null for native grids"),
    ("space", _STR, True, "what the scan was prepared to be, such as brain-1mm; null for a scan as ingested"),
    ("preparation", PREPARATION, True, "how it got there, see segpipe.prepare; null for a scan as ingested"),
    ("flags", pa.list_(_STR), True, "what is doubtful about the preparation; null for a scan as ingested"),
    ("follows", FOLLOWS, True, "the visit that it was registered to; null if it stands in its space on its own"),
    ("files", pa.list_(FILE), False, "the source files, one per modality and mask"),
    ("intensity", pa.list_(INTENSITY), False, "statistics over the brain voxels, in scaled values"),
    ("label_counts", pa.list_(_LABEL), True, "null without mask"),
    ("may_show_face", pa.bool_(), True, "false where nothing but a brain is shown, see segpipe.core.faces"),
    ("fingerprint", _STR, False, "hash of the source files' paths, sizes and versions, keyed for DICOM"),
    ("run_id", _STR, False, "the ingest that wrote the row"),
)

SERIES = _table(
    "series",
    "a series of a DICOM archive",
    ("series_id", _STR, False, "keyed hash; a part of a series that shows several things has a suffix"),
    ("cohort", _STR, False, "name given at ingest"),
    ("subject", _STR, False, "the patient, a keyed hash"),
    ("session", _STR, False, "the visit, as in `scans`"),
    ("study", _STR, False, "keyed hash of the study"),
    ("scan_id", _STR, True, "the scan that it is part of; null where it entered none"),
    ("role", _STR, True, "FLAIR, T1, T1ce, T2, mask, or `other`; null where nothing tells"),
    ("confidence", _F64, False, "how sure the role is, 0 to 1"),
    ("evidence", pa.list_(_STR), False, "what told the role"),
    ("decision", _STR, False, "selected, not selected, excluded, conflict, override, or unknown"),
    ("reason", _STR, False, "why; empty where it was selected"),
    ("rules", _STR, False, "version of the rules that decided"),
    ("seconds", _F64, True, "from the start of the visit's first series"),
    (
        "moment",
        _F64,
        True,
        "seconds on a clock of the patient's own, so that only differences mean something; null without date",
    ),
    ("instances", _I64, False, "files"),
    ("slices", _I32, False, "positions"),
    ("times", _I32, False, "images at each position"),
    ("rows", _I32, False, "pixels"),
    ("columns", _I32, False, "pixels"),
    ("pixel_mm", pa.list_(_F64), False, "between rows, between columns"),
    ("step_mm", _F64, True, "between slices"),
    ("plane", _STR, True, "axial, coronal, sagittal or oblique"),
    ("modality", _STR, False, "Modality"),
    ("body_part", _STR, True, "BodyPartExamined, where it is a known word"),
    ("vendor", _STR, True, "a known manufacturer"),
    ("image_type", pa.list_(_STR), False, "the known words of ImageType"),
    ("sequence", pa.list_(_STR), False, "ScanningSequence and SequenceVariant"),
    ("dimensions", _STR, True, "2D or 3D, MRAcquisitionType"),
    ("acquisition_contrast", _STR, True, "AcquisitionContrast"),
    ("echo_time_ms", _F64, True, "TE"),
    ("repetition_time_ms", _F64, True, "TR"),
    ("inversion_time_ms", _F64, True, "TI"),
    ("flip_angle", _F64, True, "degrees"),
    ("b_values", pa.list_(_F64), False, "s/mm2"),
    ("agent", pa.bool_(), True, "whether ContrastBolusAgent or its sequence names one; null where neither is there"),
    ("words", pa.list_(_STR), False, "the known words of description and protocol; the text itself is not kept"),
    ("text_hash", _STR, False, "keyed hash of description and protocol: equal texts have equal hashes"),
    ("bytes", _I64, False, "size of the files"),
    ("run_id", _STR, False, "the ingest that wrote the row"),
)

SLICES = _table(
    "slices",
    "a slice of a scan",
    *_IDENTITY,
    ("split", _STR, False, "train, validation or test"),
    ("slice_index", _I32, False, "from 0"),
    ("height", _I32, False, "rows"),
    ("width", _I32, False, "columns"),
    ("dtypes", pa.list_(_STR), False, "of each channel, numpy notation, little-endian"),
    ("image", _BIN, False, "stored voxels, one byte-separated plane per channel; see segpipe.core.codec"),
    ("mask_dtype", _STR, True, "numpy notation, little-endian; null without mask"),
    ("mask", _BIN, True, "stored labels, the same layout; null without mask"),
    ("foreground_pixels", _I32, False, "pixels with a label other than 0"),
    ("brain_pixels", _I32, False, "pixels of the brain"),
)

QUARANTINE = _table(
    "quarantine",
    "a rejected input",
    ("run_id", _STR, False, "the run that rejected it"),
    ("job", _STR, False, "ingest or segment"),
    ("cohort", _STR, False, "name given to the job"),
    ("scan_id", _STR, True, "null where no scan could be told"),
    ("paths", pa.list_(_STR), False, "the files, relative to the source; keyed hashes for DICOM, see `locate`"),
    ("reason", _STR, False, "a value of segpipe.errors.Reason"),
    ("message", _STR, False, "what is wrong, in a sentence"),
    ("fingerprint", _STR, False, "hash of the files' paths, sizes and versions, keyed for DICOM"),
    ("time", _TIME, False, "when it was rejected"),
)

PREDICTIONS = _table(
    "predictions",
    "a slice and a model",
    *_IDENTITY,
    ("model_id", _STR, False, "of the model"),
    ("slice_index", _I32, False, "as in `slices`"),
    ("height", _I32, False, "rows"),
    ("width", _I32, False, "columns"),
    ("label_convention", _STR, True, "the model's, which `mask` is in; a name of segpipe.core.regions.CONVENTIONS"),
    ("mask", _BIN, False, "label map, uint8, row by row, in the model's label convention"),
    ("region_pixels", pa.list_(_PIXELS), False, "predicted pixels"),
    ("run_id", _STR, False, "the run that wrote the row"),
)

PLACED = _struct(
    ("space", _STR, "as in `scans`, like all here"),
    ("shape", pa.list_(_I32), "slices, rows, columns"),
    ("orientation", _STR, "direction of (slice, row, column)"),
    ("affine", pa.list_(_F64), "(slice, row, column, 1) to RAS+ mm, 16 values row by row"),
    ("flags", pa.list_(_STR), "what is doubtful about the preparation"),
    ("follows", FOLLOWS, "the visit that it was registered to"),
    ("moment", _F64, "seconds on a clock of the patient's own; null without date"),
)

SEGMENTATIONS = _table(
    "segmentations",
    "a scan, a region and a model",
    *_IDENTITY,
    ("session", _STR, False, "as in `scans`"),
    ("split", _STR, False, "train, validation or test"),
    ("model_id", _STR, False, "of the model"),
    ("region", _STR, False, "such as whole_tumour"),
    ("voxels", _I64, False, "predicted voxels"),
    ("volume_ml", _F64, False, "predicted volume"),
    ("centroid_mm", pa.list_(_F64), True, "RAS+ x, y, z; null where nothing was predicted"),
    ("box_mm", pa.list_(_F64), True, "RAS+ least x, y, z, greatest x, y, z of voxel centres"),
    ("lesions", _I32, False, "26-connected components"),
    ("longest_diameter_mm", _F64, True, "within one slice, as in RANO; null where nothing was predicted"),
    ("perpendicular_diameter_mm", _F64, True, "at a right angle to the longest, in the same slice"),
    ("mean_probability", _F64, True, "over the predicted voxels"),
    ("max_probability", _F64, True, "over the scan"),
    ("qc_flags", pa.list_(_STR), False, "empty where nothing is suspicious"),
    ("truth_voxels", _I64, True, "null without a mask, as all columns below"),
    ("truth_volume_ml", _F64, True, "volume of the true region"),
    ("tp", _I64, True, "voxels in both"),
    ("fp", _I64, True, "voxels predicted only"),
    ("fn", _I64, True, "voxels true only"),
    ("dice", _F64, True, "null where both are empty: decide at query time"),
    ("hd95_mm", _F64, True, "null where either is empty"),
    (
        "lesion_scores",
        pa.list_(LESION_SCORE),
        True,
        "one per true lesion, largest first, see segpipe.core.lesions; empty where the true region is",
    ),
    ("false_lesions", pa.list_(_I64), True, "voxels of each predicted component that reaches no true lesion"),
    ("placed", PLACED, True, "where a scan lies that was prepared straight from an archive; null if `scans` tells it"),
    ("brain", _BIN, True, "every third voxel of such a scan's brain along each axis, as bits, by zlib"),
    ("fingerprint", _STR, True, "of the scan that was segmented; `scans` has another one once its source has changed"),
    ("run_id", _STR, False, "the run that wrote the row"),
)

LESION_CHANGE = _struct(
    ("fate", _STR, "new, gone, grown (by 40 % or more), shrunk (by 65 % or more) or same"),
    ("volume_before_ml", _F64, "at the visit before; 0 where it is new"),
    ("volume_ml", _F64, "0 where it is gone"),
    ("centroid_mm", pa.list_(_F64), "RAS+ x, y, z of what is there now, or was before"),
)

CHANGES = _table(
    "changes",
    "a scan that is not its patient's first, a region and a model",
    *_IDENTITY,
    ("session", _STR, False, "as in `scans`"),
    ("split", _STR, False, "train, validation or test"),
    ("model_id", _STR, False, "of the model"),
    ("region", _STR, False, "such as whole_tumour"),
    ("previous_session", _STR, False, "the visit before, which lesions are compared with"),
    ("baseline_session", _STR, False, "the patient's first visit in the tables"),
    ("nadir_session", _STR, False, "the visit before this one with the least product of diameters"),
    ("days_since_previous", _F64, True, "null where no dates are known"),
    ("days_since_baseline", _F64, True, "null where no dates are known"),
    ("volume_ml", _F64, False, "predicted volume"),
    ("previous_volume_ml", _F64, False, "at the visit before"),
    ("baseline_volume_ml", _F64, False, "at the first visit"),
    (
        "product_mm2",
        _F64,
        False,
        "longest times perpendicular diameter of the lesion that is longest at this visit, which need not be the same"
        " at each, nor is it the sum of RANO's target lesions; 0 where there is nothing",
    ),
    ("baseline_product_mm2", _F64, False, "at the first visit"),
    ("nadir_product_mm2", _F64, False, "the least before this visit"),
    ("change_from_baseline", _F64, True, "of the product: -0.5 is half of it; null where that of the baseline is 0"),
    ("change_from_nadir", _F64, True, "of the product; null where the least is 0"),
    ("decrease_threshold", _F64, False, "of RANO 2.0, beside `change_from_baseline`: -0.5; a number, no verdict"),
    ("increase_threshold", _F64, False, "of RANO 2.0, beside `change_from_nadir`: 0.25; a number, no verdict"),
    ("new_lesions", _I32, False, "since the visit before, of any size; `lesions` has their volumes"),
    ("gone_lesions", _I32, False, "of any size"),
    ("grown_lesions", _I32, False, "of any size"),
    ("shrunk_lesions", _I32, False, "of any size"),
    ("lesions", pa.list_(LESION_CHANGE), False, "all of both visits, largest first, see segpipe.core.follow_up"),
    ("brains_dice", _F64, False, "of the brains of this visit and the one before in their common space"),
    ("flags", pa.list_(_STR), False, "what is doubtful about the preparation of either scan"),
    ("fingerprint", _STR, False, "of the scans and predictions that the row rests on"),
    ("run_id", _STR, False, "the run that wrote the row"),
)

RUNS = _table(
    "runs",
    "a job run",
    ("run_id", _STR, False, "time of start and a random part"),
    ("job", _STR, False, "ingest, train, export, segment, evaluate, …"),
    ("cohort", _STR, True, "null where the job has none"),
    ("model_id", _STR, True, "null where the job has none"),
    ("started", _TIME, False, "UTC"),
    ("seconds", _F64, False, "wall time"),
    ("outcome", _STR, False, "done, failed or interrupted"),
    ("message", _STR, True, "the error of a failed run"),
    ("parameters", pa.map_(_STR, _STR), False, "every setting"),
    ("versions", pa.map_(_STR, _STR), False, "segpipe, python, pyspark, …"),
    ("stage_seconds", pa.map_(_STR, _F64), False, "wall time per stage"),
    ("counts", pa.map_(_STR, _I64), False, "rows and bytes in and out, quarantined, skipped, …"),
)

TABLES = {table.name: table for table in (SERIES, SCANS, SLICES, QUARANTINE, PREDICTIONS, SEGMENTATIONS, CHANGES, RUNS)}

FAMILIES = ((SERIES,), (SLICES, SCANS), (QUARANTINE,), (PREDICTIONS, SEGMENTATIONS), (CHANGES,), (RUNS,))
"""Tables that are written together, part by part: a row of the last, the index table, makes the others' rows exist."""

INDEX_OF = {table.name: family[-1].name for family in FAMILIES for table in family}
"""The index table of each table."""
