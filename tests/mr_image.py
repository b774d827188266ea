"""One slice of an MR series as a scanner writes it, for tests that say only what matters to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

INT16 = {
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}
"""How pixels of one signed 16-bit number are described."""
_PERSON = {
    "PatientID": "P1",
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19510203",
    "PatientSex": "F",
    "StudyDate": "20200101",
    "StudyTime": "101010",
    "StudyID": "1",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
}


def dataset_of(values: dict[str, Any]) -> Dataset:
    """A data set with these attributes; None leaves one out."""
    dataset = Dataset()
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def mr_image(study: str, series: int, number: int, description: str, pixels: np.ndarray, **more: Any) -> Dataset:
    """Slice `number`, from 1 on, of a series; `pixels` (rows, columns), `more` says where it lies."""
    return dataset_of(
        {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": f"{study}.{series}.{number}",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.{series}",
            "FrameOfReferenceUID": f"{study}.99",
            **_PERSON,
            "Modality": "MR",
            "SeriesDescription": description,
            "SeriesNumber": series + 1,
            "InstanceNumber": number,
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            **INT16,
            **more,
            "PixelData": pixels.astype("<i2").tobytes(),
        }
    )


def axes_of(rows: np.ndarray, columns: np.ndarray) -> list[float]:
    """ImageOrientationPatient: the unit vectors, in LPS, along a row and along a column."""
    return [round(float(value), 8) for value in (*rows, *columns)]


def write(image: Dataset, path: Path) -> None:
    """Write a slice as a file of DICOM's own form."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, image, enforce_file_format=True)
