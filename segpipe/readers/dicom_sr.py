"""Measures of a scan as a DICOM structured report (PS3.16, TID 1500, by highdicom), so that a PACS shows them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import segpipe
from segpipe.readers import dicom_objects

_SERIES_NUMBER = 9001
_LANGUAGE = "en"


def sr_uid(scan_id: str, stamp: str) -> str:
    """The SOP instance UID of a scan's report: the same for the same scan, model and run."""
    return dicom_objects.uid("report", scan_id, stamp)


def dicom_sr(
    measures: Sequence[Mapping[str, Any]], scan_id: str, stamp: str, model_id: str, contents: Sequence[bytes]
) -> bytes:
    """A Comprehensive SR of a scan's `measures`, its rows of `segmentations`: a group (TID 1501) per region.

    A group has the volume, cm3, and, where something was found, the longest diameter within one slice and the longest
    at a right angle to it, mm (long and short axis). `contents` are the files of the series that was segmented, which
    the groups refer to; patient and study are copied from them. Raises BadInput, naming the element, where the series
    cannot be referred to.
    """
    import highdicom as hd

    images = dicom_objects.images(contents, scan_id, "structured report")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they may quote the patient
            report = hd.sr.ComprehensiveSR(
                evidence=images,
                content=_content(measures, scan_id, stamp, model_id, images),
                series_instance_uid=dicom_objects.uid("report series", scan_id, model_id),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=sr_uid(scan_id, stamp),
                instance_number=1,
                manufacturer="segpipe",
                is_complete=True,
                series_description=f"segpipe measures {model_id}",
                manufacturer_model_name=f"segpipe model {model_id}",
                software_versions=segpipe.__version__,
                device_serial_number=model_id,
            )
    except (ValueError, AttributeError, LookupError, TypeError, RuntimeError) as error:
        raise dicom_objects.refused(scan_id, "structured report", error) from error
    return dicom_objects.written(report)


def _content(
    measures: Sequence[Mapping[str, Any]], scan_id: str, stamp: str, model_id: str, images: Sequence[Any]
) -> Any:
    """The tree of a measurement report."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=dicom_objects.uid("model", model_id),
        name="segpipe",
        manufacturer_name="segpipe",
        model_name=f"segpipe model {model_id}",
        serial_number=model_id,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    sources = [
        hd.sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
        for image in sorted(images, key=lambda image: str(image.SOPInstanceUID))
    ]
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.BrainMRI,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            hd.sr.CodedConcept(_LANGUAGE, "RFC5646", "English")
        ),
        imaging_measurements=[_group(one, scan_id, stamp, model_id, sources) for one in measures],
    )[0]


def _group(row: Mapping[str, Any], scan_id: str, stamp: str, model_id: str, sources: Sequence[Any]) -> Any:
    """The measures of one region."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    values = (
        (codes.SCT.Volume, row["volume_ml"], codes.UCUM.CubicCentimeter),
        (codes.SCT.LongAxis, row["longest_diameter_mm"], codes.UCUM.Millimeter),
        (codes.SCT.ShortAxis, row["perpendicular_diameter_mm"], codes.UCUM.Millimeter),
    )
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=dicom_objects.uid("region", scan_id, row["region"], stamp), identifier=row["region"]
        ),
        finding_type=dicom_objects.finding(row["region"]),
        finding_sites=[hd.sr.FindingSite(codes.SCT.Brain)],
        algorithm_id=hd.sr.AlgorithmIdentification(f"segpipe model {model_id}", segpipe.__version__),
        measurements=[
            hd.sr.Measurement(name=name, value=round(float(value), 3), unit=unit)
            for name, value, unit in values
            if value is not None
        ],
        source_images=sources,
    )
