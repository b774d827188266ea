"""Adopted networks beside the tools that they come from: the same masks, and how fast each makes them.

Two halves, each run by the Python that has what it needs, on the same folder:

    python tools/compare_adopted.py theirs FOLDER SCANS    torch, monai, nnunetv2, onnx, onnxscript, nibabel
    python tools/compare_adopted.py ours FOLDER SCANS      segpipe's environment

The first builds networks with seeded random weights, exports them to ONNX beside the files that their tools describe
a network with, and segments the scans (folders in BraTS layout) with MONAI's and nnU-Net's own inference. The second
adopts the same files, segments the same scans and prints a table. Reading files is not timed. Random weights are a hard
case: such a network is undecided about many voxels, and a trained one about few.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

THREADS = len(os.sched_getaffinity(0))
PLANES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
REGIONS = {"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
LABELS = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}


@dataclass(frozen=True)
class Case:
    """A network and what is done around it; without a `configuration` it is a MONAI bundle, else of an nnU-Net plan."""

    configuration: str = ""
    modalities: tuple[str, ...] = tuple(NAMES)
    regions: bool = False
    patch: tuple[int, ...] = (48, 96, 96)
    spacing: tuple[float, ...] = ()
    features: int = 8
    residual: bool = False
    scheme: str = "ZScoreNormalization"
    reader: str = "SimpleITKIO"
    transposed: tuple[int, ...] = (0, 1, 2)
    strides: tuple[tuple[int, ...], ...] = ()
    exact: bool = True

    @property
    def labels(self) -> dict[str, Any]:
        """Those of dataset.json."""
        if len(self.modalities) == 1:
            return {"background": 0, "lesion": 1}
        return {"background": 0, **REGIONS} if self.regions else LABELS

    @property
    def outputs(self) -> int:
        """Channels of the network."""
        return len(self.labels) - self.regions


CASES = {
    "monai_regions": Case(regions=True, patch=(128, 128, 96)),
    "monai_labels": Case(patch=(96, 96, 48)),
    "monai_spaced": Case(spacing=(1.5, 1.5, 2.0), patch=(64, 64, 32)),
    "nnunet_3d_fullres_float16": Case("3d_fullres", patch=(128, 128, 112), features=16, exact=False),
    "nnunet_3d_fullres": Case("3d_fullres", patch=(128, 128, 112), features=16),
    "nnunet_2d": Case("2d", patch=(192, 160), features=32),
    "nnunet_regions": Case("3d_fullres", regions=True),
    "nnunet_residual": Case("3d_fullres", residual=True),
    "nnunet_lowres": Case("3d_lowres", spacing=(1.9, 1.7, 1.7), patch=(32, 80, 64)),
    "nnunet_ct": Case("3d_fullres", scheme="CTNormalization"),
    "nnunet_reoriented": Case("3d_fullres", reader="NibabelIOWithReorient", transposed=(1, 2, 0), patch=(96, 96, 48)),
    "nnunet_thick": Case(
        "3d_fullres", modalities=("flair",), spacing=(4.0, 0.9, 0.9), patch=(20, 160, 128), strides=((1, 2, 2),) * 2
    ),
}


def paths(scan: Path, case: Case) -> list[Path]:
    return [scan / f"{scan.name}_{modality}.nii.gz" for modality in case.modalities]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def told(folder: Path, scan: Path, labels: np.ndarray, seconds: float, cpu: float) -> None:
    """Keep labels (slices, rows, columns) in SPL, and what they took."""
    np.savez_compressed(folder / f"{scan.name}.npz", labels=labels.astype(np.uint8), seconds=seconds, cpu=cpu)
    print(f"{folder.name} {scan.name}: {seconds:.1f} s, processor {cpu:.1f} s", flush=True)


class Clock:
    """Seconds on the wall and of the processor."""

    def __enter__(self) -> "Clock":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


# ---- theirs


def export(network: Any, case: Case, patch: tuple[int, ...], path: Path) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    network.eval()
    shown = torch.zeros(1, len(case.modalities), *patch)
    torch.onnx.export(network, (shown,), str(path), dynamo=True, opset_version=18)


def monai_segresnet(folder: Path, scans: list[Path], case: Case) -> None:
    """SegResNet, with MONAI's transforms before and after and its sliding-window inferer between."""
    import torch
    from monai.bundle import ConfigParser
    from monai.networks.nets import SegResNet
    from monai.transforms import Orientation

    torch.manual_seed(1)
    network = SegResNet(
        init_filters=case.features,
        in_channels=len(case.modalities),
        out_channels=case.outputs,
        blocks_down=(1, 2, 2, 4),
    )
    export(network, case, case.patch, folder / "model.onnx")
    write_json(folder / "metadata.json", monai_metadata(case))
    config = monai_inference(case)
    write_json(folder / "inference.json", config)
    parser = ConfigParser(config)
    before, inferer, after = (
        parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing")
    )
    load, *rest = before.transforms
    torch.set_num_threads(THREADS)
    for scan in scans:
        item = load({"image": [str(path) for path in paths(scan, case)]})
        with Clock() as clock, torch.inference_mode():
            for transform in rest:
                item = transform(item)
            item["pred"] = inferer(item["image"][None], network)[0]
            found = after(item)["pred"]
        if case.regions:
            tumour, core, enhancing = found[:, None] > 0
            found = torch.where(enhancing, 4, torch.where(core, 1, torch.where(tumour, 2, 0))).to(found.dtype)
        told(folder, scan, Orientation("SPL", labels=None)(found)[0].numpy(), clock.seconds, clock.cpu)


def monai_metadata(case: Case) -> dict[str, Any]:
    outputs = [name for name in case.labels if not (case.regions and name == "background")]
    count = len(case.modalities)
    formats = {
        "inputs": {
            "image": {
                "num_channels": count,
                "spatial_shape": ["8*n"] * 3,
                "channel_def": {str(place): NAMES[name] for place, name in enumerate(case.modalities)},
            }
        },
        "outputs": {
            "pred": {
                "num_channels": len(outputs),
                "channel_def": {str(place): name for place, name in enumerate(outputs)},
            }
        },
    }
    return {"name": "SegResNet, random weights", "network_data_format": formats}


def monai_inference(case: Case) -> dict[str, Any]:
    spaced = {"_target_": "Spacingd", "keys": "image", "pixdim": list(case.spacing), "mode": "bilinear"}
    back = {"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": "@preprocessing"}
    kind = {"sigmoid": True} if case.regions else {"softmax": True}
    return {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                *(
                    [spaced]
                    if case.spacing
                    else [{"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}]
                ),
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": not case.spacing, "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(case.patch),
            "sw_batch_size": 1,
            "overlap": 0.5 if case.regions else 0.25,
            "mode": "gaussian" if case.regions else "constant",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", **kind},
                {**back, "nearest_interp": False, "to_tensor": True},
                {
                    "_target_": "AsDiscreted",
                    "keys": "pred",
                    **({"threshold": 0.5} if case.regions else {"argmax": True}),
                },
            ],
        },
    }


def nnunet(folder: Path, scans: list[Path], case: Case) -> None:
    """A network of nnU-Net, and its whole inference from array to segmentation."""
    import torch

    os.environ.update({name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")})
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(2)
    plans = nnunet_plans(case)
    dataset = {
        "name": "nnU-Net, random weights",
        "channel_names": {str(place): NAMES[name] for place, name in enumerate(case.modalities)},
        "labels": case.labels,
        "file_ending": ".nii.gz",
        **({"regions_class_order": [1, 2, 3]} if case.regions else {}),
    }
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset)
    manager = PlansManager(plans)
    wanted = manager.get_configuration(case.configuration)
    network = get_network_from_plans(
        wanted.network_arch_class_name,
        wanted.network_arch_init_kwargs,
        wanted.network_arch_init_kwargs_req_import,
        len(case.modalities),
        case.outputs,
        deep_supervision=False,
    )
    export(network, case, tuple(wanted.patch_size), folder / "model.onnx")
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(network, manager, wanted, [network.state_dict()], dataset, "nnUNetTrainer", None)
    torch.set_num_threads(THREADS)
    if case.exact:
        sum_in_float32()
    for scan in scans:
        array, properties = manager.image_reader_writer_class().read_images([str(path) for path in paths(scan, case)])
        with Clock() as clock:
            labels = predictor.predict_single_npy_array(array, properties)
        told(folder, scan, in_spl(np.asarray(labels), scan, case), clock.seconds, clock.cpu)


def in_spl(labels: np.ndarray, scan: Path, case: Case) -> np.ndarray:
    """Labels (z, y, x) of one of nnU-Net's readers with axes that run to S, P and L."""
    import nibabel as nib

    image = nib.load(paths(scan, case)[0])
    axes = "RAS" if case.reader.endswith("WithReorient") else nib.aff2axcodes(image.affine)
    own = nib.orientations.axcodes2ornt(axes[::-1])
    turned = nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt("SPL"))
    return nib.orientations.apply_orientation(labels, turned)


def sum_in_float32() -> None:
    """Let nnU-Net sum up its windows in float32.

    It does so in float16, in which the weights in a window's corners, and what they weigh, are no longer numbers but
    steps: there a network that is undecided says what the rounding says.
    """
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    torch.half = torch.float32
    module.compute_gaussian = partial(module.compute_gaussian, dtype=torch.float32)


def nnunet_plans(case: Case) -> dict[str, Any]:
    dimensions, stages = len(case.patch), 6 if len(case.patch) == 2 else 5
    strides = [(1,) * dimensions, *case.strides]
    strides += [(2,) * dimensions] * (stages - len(strides))
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    kind = "ResidualEncoderUNet" if case.residual else "PlainConvUNet"
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6]} if case.residual else {"n_conv_per_stage": [2] * stages}
    count = len(case.modalities)
    configuration = {
        "data_identifier": "generated",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(case.patch),
        "median_image_size_in_voxels": list(case.patch),
        "spacing": list(case.spacing or [1.0] * dimensions),
        "normalization_schemes": [case.scheme] * count,
        "use_mask_for_norm": [case.scheme == "ZScoreNormalization"] * count,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [
                    min(case.features << stage, 512 if dimensions == 2 else 320) for stage in range(stages)
                ],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * stages,
                "strides": [list(stride) for stride in strides],
                "n_conv_per_stage_decoder": [1 if case.residual else 2] * (stages - 1),
                **blocks,
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    seen = {"mean": 400.0, "median": 390.0, "std": 170.0, "min": 0.0, "max": 2000.0}
    return {
        "dataset_name": "Dataset900_Generated",
        "plans_name": "nnUNetResEncUNetMPlans" if case.residual else "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [140, 170, 140],
        "image_reader_writer": case.reader,
        "transpose_forward": list(case.transposed),
        "transpose_backward": [case.transposed.index(axis) for axis in range(3)],
        "experiment_planner_used": "nnUNetPlannerResEncM" if case.residual else "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): {**seen, "percentile_00_5": 30.0, "percentile_99_5": 1200.0} for channel in range(count)
        },
        "configurations": {case.configuration: configuration},
    }


def theirs(folder: Path, scans: list[Path], names: list[str]) -> None:
    for name in names:
        case = CASES[name]
        (nnunet if case.configuration else monai_segresnet)(folder / name, scans, case)


# ---- ours


def ours(folder: Path, scans: list[Path], names: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from segpipe.models.cards import load_card
    from segpipe.runtimes.adopt import adopt
    from segpipe.runtimes.contract import PredictorSpec

    print("| network | scan | voxels that agree | labelled voxels | theirs, slices/s | ours, slices/s | processor s |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        here, case = folder / name, CASES[name]
        file = here / ("plans.json" if case.configuration else "metadata.json")
        card, content, toml = load_card(str(file), case.configuration or None)
        bundle = adopt(str(here / "model.onnx"), card, content, str(here / "adopted"), toml)
        predictor = PredictorSpec(bundle.url, precision="float32").open(THREADS)
        for scan in scans:
            channels, described = read(scan, case)
            with Clock() as clock:
                labels = predictor.segment(described, [(range(len(channels[0])), channels)]).labels
            kept = np.load(here / f"{scan.name}.npz")
            wanted = kept["labels"]
            agree, slices = (labels == wanted).mean(), len(labels)
            print(
                f"| {name} | {scan.name} | {agree:.5%} | {(wanted > 0).mean():.1%} | {slices / kept['seconds']:.1f}"
                f" | {slices / clock.seconds:.1f} | {float(kept['cpu']):.0f} / {clock.cpu:.0f} |",
                flush=True,
            )


def read(scan: Path, case: Case) -> Any:
    """The channels of a scan in SPL, and what its row of `scans` would say of them."""
    import nibabel as nib

    from segpipe.core.intensity import brain_mask, statistics
    from segpipe.core.orientation import axis_codes, reorient, spacing_mm
    from segpipe.core.prediction import ScanInput

    channels = []
    for path in paths(scan, case):
        image = nib.load(path)
        codes = axis_codes(image.affine)
        channels.append(np.ascontiguousarray(reorient(np.asarray(image.dataobj), codes, "SPL")))
    brain = brain_mask(channels)
    used = np.argwhere(brain)
    box = [int(edge) for first, last in zip(used.min(0), used.max(0) + 1, strict=True) for edge in (first, last)]
    numbers = [statistics(channel[brain]) for channel in channels]
    count = len(channels)
    sizes = dict(zip(map(PLANES.get, codes), spacing_mm(image.affine), strict=True))
    spacing = tuple(float(sizes[PLANES[code]]) for code in "SPL")
    means, deviations = tuple(one.mean for one in numbers), tuple(one.std for one in numbers)
    described = ScanInput(channels[0].shape, means, deviations, (1.0,) * count, (0.0,) * count, tuple(box), spacing)
    return channels, described


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("theirs", "ours"))
    parser.add_argument("folder", type=Path, help="where networks, cards and masks are kept")
    parser.add_argument("scans", type=Path, nargs="+", help="folders of scans in BraTS layout")
    parser.add_argument("--network", action="append", choices=CASES, help="only this one; may be repeated")
    given = parser.parse_args()
    half = theirs if given.half == "theirs" else ours
    half(given.folder.resolve(), given.scans, given.network or list(CASES))


if __name__ == "__main__":
    main()
