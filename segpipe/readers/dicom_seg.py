"""Label maps as DICOM SEG objects (DICOM PS3.3, A.51) that refer to the series they were drawn on, by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import segpipe
from segpipe.core.regions import LabelConvention
from segpipe.errors import BadInput, Reason
from segpipe.readers import dicom_objects
from segpipe.readers.mask_files import grid_file, in_file_order

_SERIES_NUMBER = 9000
_TYPE_1 = (*dicom_objects.TYPE_1, "FrameOfReferenceUID")


def seg_uid(scan_id: str, stamp: str) -> str:
    """The SOP instance UID of a scan's mask: the same for the same scan, model and run."""
    return dicom_objects.uid("instance", scan_id, stamp)


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
    these, as a viewer needs them: the file is as confidential as its source. Raises BadInput if the series cannot be
    referred to, such as a mosaic.
    """
    import highdicom as hd

    images = _images(contents, scan["scan_id"])
    native = in_file_order(labels, scan)
    values = sorted(convention.labels)
    volume = _volume(native, values, scan, images[0].get("FrameOfReferenceUID"))
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
                series_instance_uid=dicom_objects.uid("series", scan["scan_id"], model_id),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=seg_uid(scan["scan_id"], stamp),
                instance_number=1,
                manufacturer="segpipe",
                manufacturer_model_name=f"segpipe model {model_id}",
                software_versions=segpipe.__version__,
                device_serial_number=model_id,
                content_label="SEGMENTATION",
                content_description=stamp,
                series_description=f"segpipe {convention.title} {model_id}"[: dicom_objects.LONGEST_TEXT],
                omit_empty_frames=bool(native.any()),
            )
    except (ValueError, AttributeError, LookupError, TypeError, RuntimeError) as error:
        raise dicom_objects.refused(scan["scan_id"], "SEG", error) from error
    return dicom_objects.written(seg)


def _images(contents: Sequence[bytes], scan_id: str) -> list[Any]:
    """The images that a SEG refers to."""
    images = dicom_objects.images(contents, scan_id, "SEG", _TYPE_1)
    if any("MOSAIC" in (image.get("ImageType") or ()) for image in images):
        raise BadInput(
            Reason.UNSUPPORTED, f"Scan {scan_id} is a mosaic: a SEG file cannot refer to its slices", "use --nifti"
        )
    return images


def _volume(native: np.ndarray, values: Sequence[int], scan: Mapping[str, Any], frame_of_reference: str | None) -> Any:
    """A volume of highdicom's, one channel for each label, of a label map on the source's own grid."""
    import highdicom as hd

    planes = np.zeros((*native.shape[::-1], len(values)), np.uint8)  # (slices, rows, columns, segments)
    for place, value in enumerate(values):
        planes[..., place] = (native == value).transpose(2, 1, 0)
    affine = np.reshape(grid_file(scan)["affine"], (4, 4)).copy()
    affine[:2] *= -1  # RAS to LPS
    return hd.Volume(
        planes,
        affine[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference,
        channels={"SegmentNumber": list(range(1, len(values) + 1))},
    )


def _description(number: int, label: str, model_id: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label[: dicom_objects.LONGEST_TEXT],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=dicom_objects.finding(label),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"segpipe model {model_id}", version=segpipe.__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )
