"""Label maps as DICOM SEG objects (DICOM PS3.3, A.51) that refer to the series they were drawn on, by highdicom."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import segpipe
from segpipe.core.regions import LabelConvention
from segpipe.errors import BadInput, Reason
from segpipe.readers import inflate
from segpipe.readers.mask_files import on_source_grid, source_file

_ROOT = "2.25."  # of UIDs that are numbers of 128 bits
_SERIES_NUMBER = 9000
_HEADER_BYTES = 1 << 14
_MOST_BYTES = 1 << 31
_TYPE_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "PositionReferenceIndicator",
)


def seg_uid(scan_id: str, stamp: str) -> str:
    """The SOP instance UID of a scan's mask: the same for the same scan, model and run."""
    return _uid("instance", scan_id, stamp)


def dicom_seg(
    labels: np.ndarray,
    scan: Mapping[str, Any],
    convention: LabelConvention,
    stamp: str,
    model_id: str,
    contents: Sequence[bytes],
) -> bytes:
    """A DICOM SEG file of a label map (slices, rows, columns), uint8: one binary segment per label of `convention`.

    `scan` is its row of `scans`; `contents` are the files of its source series. Patient and study are copied from
    these, as a viewer needs them: the file is as confidential as its source. Raises BadInput where the series cannot be
    referred to, such as a mosaic.
    """
    import highdicom as hd
    import pydicom

    images = [_complete(_dataset(content), scan["scan_id"]) for content in contents]
    file = source_file(scan)
    if any("MOSAIC" in (image.get("ImageType") or ()) for image in images):
        raise BadInput(
            Reason.UNSUPPORTED, f"Scan {scan['scan_id']} is a mosaic, whose slices no SEG can refer to", "use --nifti"
        )
    native = on_source_grid(labels, scan)
    values = sorted(convention.labels)
    planes = np.zeros((*native.shape[::-1], len(values)), np.uint8)  # (slices, rows, columns, segments)
    for place, value in enumerate(values):
        planes[..., place] = (native == value).transpose(2, 1, 0)
    affine = np.reshape(file["affine"], (4, 4)).copy()
    affine[:2] *= -1  # RAS to LPS
    volume = hd.Volume(
        planes,
        affine[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=images[0].FrameOfReferenceUID if "FrameOfReferenceUID" in images[0] else None,
        channels={"SegmentNumber": list(range(1, len(values) + 1))},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they may quote the patient
            seg = hd.seg.Segmentation(
                source_images=images,
                pixel_array=volume,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(number, convention.labels[value], model_id)
                    for number, value in enumerate(values, start=1)
                ],
                series_instance_uid=_uid("series", scan["scan_id"], model_id),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=seg_uid(scan["scan_id"], stamp),
                instance_number=1,
                manufacturer="segpipe",
                manufacturer_model_name=f"segpipe model {model_id}",
                software_versions=segpipe.__version__,
                device_serial_number=model_id,
                content_label="SEGMENTATION",
                content_description=stamp,
                series_description=f"segpipe {convention.name} {model_id}",
                omit_empty_frames=bool(native.any()),
            )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        problem = f"The series of scan {scan['scan_id']} cannot be referred to by a SEG: {_fault(error)}"
        raise BadInput(Reason.UNSUPPORTED, problem, "use --nifti") from error
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, seg, enforce_file_format=True)
    return buffer.getvalue()


def is_seg(start: bytes, uid: str) -> bool:
    """Whether the first bytes of a file are those of the SEG with this SOP instance UID."""
    return start[128:132] == b"DICM" and uid.encode() in start[:_HEADER_BYTES]


def _dataset(content: bytes) -> Any:
    import pydicom

    if inflate.is_gzip(content):
        content = inflate.up_to(content, _MOST_BYTES, "series")[0]
    return pydicom.dcmread(io.BytesIO(content), force=True)


def _complete(image: Any, scan_id: str) -> Any:
    """The image with the elements that must be there but may be empty (type 2), which de-identification takes out.

    Raises BadInput naming every element that must have a value (type 1) and is missing.
    """
    for name in _TYPE_2:
        if name not in image:
            setattr(image, name, "")
    missing = [name for name in _TYPE_1 if not image.get(name)]
    if missing:
        problem = f"The series of scan {scan_id} cannot be referred to by a SEG: it lacks {', '.join(missing)}"
        raise BadInput(Reason.UNSUPPORTED, problem, "use --nifti")
    return image


def _fault(error: Exception) -> str:
    """The element that highdicom stumbled over; else the kind of error alone, for its text may quote the patient."""
    from pydicom.datadict import tag_for_keyword

    words = [word for word in re.findall(r"[A-Z][A-Za-z0-9]+", str(error)) if tag_for_keyword(word) is not None]
    return f"{' and '.join(dict.fromkeys(words))} ({type(error).__name__})" if words else type(error).__name__


def _description(number: int, label: str, model_id: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    kinds = {
        "necrotic core": codes.SCT.Necrosis,
        "oedema": codes.SCT.Edema,
        "enhancing tumour": codes.NCIt.EnhancingLesion,
        "non-enhancing tumour": codes.NCIt.NonEnhancingLesion,
    }
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=kinds.get(label, codes.SCT.Lesion),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"segpipe model {model_id}", version=segpipe.__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )


def _uid(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return _ROOT + str(int.from_bytes(digest, "big"))
