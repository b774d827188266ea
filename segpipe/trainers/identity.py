"""What makes a training that one and no other: nobody may go on with it under other settings or on other scans."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from segpipe.errors import ModelError
from segpipe.trainers.contract import TrainPlan

_FREE = (
    *("warehouse", "model", "trainer", "workers", "retries", "checkpoint_minutes", "lock_wait_seconds", "ports"),
    *("mirror", "quality", "slices", "threshold"),
)
"""Settings that may change from one run to the next: they change nothing that is learnt."""

_EARLIER = {"pool": 1, "neighbours": 0}
"""Settings that trainings of earlier versions do not know, and what they were."""


def identity(plan: TrainPlan) -> dict[str, Any]:
    """Every setting that matters, and what is trained on; plain JSON."""
    settings = {name: value for name, value in asdict(plan.settings).items() if name not in _FREE}
    settings = {name: value for name, value in settings.items() if value != _EARLIER.get(name, ...)}
    data = [
        (scan.scan_id, scan.split, scan.shape, scan.mean.tolist(), scan.inverse_std.tolist()) for scan in plan.scans
    ]
    return {
        **settings,
        "modalities": ",".join(plan.modalities),
        "label_convention": plan.convention_name,
        "scans": hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16],
    }


def check_identity(plan: TrainPlan, found: dict[str, Any]) -> None:
    """Raise ModelError naming the first thing in which the training `found` in the directory differs from `plan`."""
    wanted = identity(plan)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) == found.get(name):
            continue
        model = plan.settings.model
        if name == "scans":
            raise ModelError(f"Model directory {model} holds a training on other scans", "give another --model")
        flag = f"--{name.replace('_', '-')}"
        earlier = _EARLIER.get(name)
        trained = found.get(name, earlier)
        raise ModelError(
            f"Model directory {model} holds a training with {flag} {trained}, not {wanted.get(name, earlier)}",
            f"give another --model, or {flag} {trained} to go on with that one",
        )
