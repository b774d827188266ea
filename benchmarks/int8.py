"""INT8 beside the precision that export chose: slices per second of the network, and what Dice it costs.

Both are measured by `export --int8` itself, on the validation scans, because that decides whether the INT8 model is
published.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from benchmarks import report
from benchmarks._segmenting import COHORT, bench
from segpipe.errors import SegpipeError
from segpipe.settings import ExportSettings


def main() -> None:
    """Export with INT8 and report what that measured."""
    from jobs.export import scans
    from segpipe.runtimes.export import export

    with bench("int8") as setup:
        copy = f"{setup.bundle.url}-int8"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(setup.bundle.url, copy)
        settings = ExportSettings(model=copy, warehouse=setup.warehouse.url)
        validation, train = (
            scans(settings, replace(setup.bundle, cohort=COHORT), split, 3) for split in ("validation", "train")
        )
        found = export(copy, validation, train).inference["int8"]
    if "slices_per_second" not in found:
        raise SegpipeError(f"INT8 was not measured: {found['reason']}", "take more scans with BENCH_SCANS")
    print(f"published: {found['published']}, {found['reason']}; Dice {found['mean_dice']}", flush=True)
    speed = dict(found["slices_per_second"])
    ours = speed.pop("int8")
    report("int8", ours, next(iter(speed.values())), "slices/s")
