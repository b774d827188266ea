"""Scans of one patient count as one patient: they err in the same way, so many of them say no more than one."""

from collections.abc import Sequence

import numpy as np

LEAST_PATIENTS = 3
"""Fewer patients than these say nothing, whatever is to be chosen by their labels."""

LEAST_GAIN = 0.01
"""What the mean Dice over patients must gain, or what was chosen by it is noise."""


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


def plain(gains: np.ndarray) -> np.ndarray:
    """Which of several ways gain plainly, bool (w,), by what each patient gains in Dice by each of them (p, w).

    Where the mean is at least `LEAST_GAIN` and one standard error, and more than one patient gains. With fewer than
    `LEAST_PATIENTS` none does.

    >>> plain(np.array([[0.2, 0.2, 0.02], [0.0, 0.1, 0.0], [0.0, 0.2, 0.01]])).tolist()
    [False, True, True]
    """
    if len(gains) < LEAST_PATIENTS:
        return np.zeros(gains.shape[1], bool)
    means, errors = gains.mean(axis=0), gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
    return np.asarray((means >= np.maximum(LEAST_GAIN, errors)) & ((gains > 0).sum(axis=0) > 1))
