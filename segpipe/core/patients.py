"""Scans of one patient count as one patient: they err in the same way, so many of them say no more than one."""

from collections.abc import Sequence

import numpy as np

LEAST_PATIENTS = 3
"""Fewer patients than these say nothing, whatever is to be chosen by their labels."""


def patient_numbers(patients: Sequence[str]) -> np.ndarray:
    """The number of each scan's patient, int64 (n,), from 0 on; a scan without a name is a patient of its own.

    >>> patient_numbers(["a", "b", "a", "", ""]).tolist()
    [0, 1, 0, 2, 3]
    """
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name or place, len(numbers)) for place, name in enumerate(patients)], np.int64)


def by_patient(values: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """The mean over the scans of each patient, float64 (p, ...), of one value per scan (n, ...).

    >>> by_patient(np.array([1.0, 5.0, 0.0]), ["a", "b", "a"]).tolist()
    [0.5, 5.0]
    """
    of = patient_numbers(patients)
    sums = np.zeros((int(of.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, of, values)
    scans = np.bincount(of, minlength=len(sums)).astype(np.float64)
    return sums / scans.reshape(-1, *[1] * (values.ndim - 1))
