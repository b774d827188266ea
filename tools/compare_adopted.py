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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

MODALITIES = ("flair", "t1", "t1ce", "t2")
THREADS = len(os.sched_getaffinity(0))


def paths(scan: Path) -> list[Path]:
    return [scan / f"{scan.name}_{modality}.nii.gz" for modality in MODALITIES]


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


def export(network: Any, patch: tuple[int, ...], path: Path) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    network.eval()
    torch.onnx.export(network, (torch.zeros(1, 4, *patch),), str(path), dynamo=True, opset_version=18)


def monai_segresnet(folder: Path, scans: list[Path]) -> None:
    """SegResNet of three overlapping regions, MONAI's transforms and its sliding-window inferer."""
    import torch
    from monai.bundle import ConfigParser
    from monai.networks.nets import SegResNet
    from monai.transforms import Orientation

    torch.manual_seed(1)
    patch = (128, 128, 96)
    network = SegResNet(spatial_dims=3, init_filters=8, in_channels=4, out_channels=3, blocks_down=(1, 2, 2, 4))
    export(network, patch, folder / "model.onnx")
    channels = {"0": "FLAIR", "1": "T1", "2": "T1c", "3": "T2"}
    regions = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
    formats = {
        "inputs": {"image": {"num_channels": 4, "spatial_shape": ["8*n"] * 3, "channel_def": channels}},
        "outputs": {"pred": {"num_channels": 3, "channel_def": regions}},
    }
    config = {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(patch),
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            ],
        },
    }
    write_json(folder / "metadata.json", {"name": "SegResNet, random weights", "network_data_format": formats})
    write_json(folder / "inference.json", config)
    parser = ConfigParser(config)
    load, *rest = parser.get_parsed_content("preprocessing").transforms
    inferer, post = parser.get_parsed_content("inferer"), parser.get_parsed_content("postprocessing")
    torch.set_num_threads(THREADS)
    for scan in scans:
        loaded = load({"image": [str(path) for path in paths(scan)]})
        whole = Orientation("RAS", labels=None)(rest[0](loaded)["image"])
        with Clock() as clock, torch.inference_mode():
            item = loaded
            for transform in rest:
                item = transform(item)
            item["pred"] = inferer(item["image"][None], network)[0]
            core, tumour, enhancing = post(item)["pred"] > 0
            labels = torch.where(enhancing, 4, torch.where(core, 1, torch.where(tumour, 2, 0)))
        box = tuple(
            slice(int(first), int(last))
            for first, last in zip(item["foreground_start_coord"], item["foreground_end_coord"], strict=True)
        )
        placed = whole[:1] * 0
        placed[0][box] = labels.to(placed.dtype)
        told(folder, scan, Orientation("SPL", labels=None)(placed)[0].numpy(), clock.seconds, clock.cpu)


def nnunet_plain(folder: Path, scans: list[Path], configuration: str, exact: bool = False) -> None:
    """PlainConvUNet of four exclusive labels, nnU-Net's whole inference from array to segmentation."""
    import nibabel as nib
    import torch

    os.environ.update({name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")})
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(2)
    plans = nnunet_plans()
    dataset = {
        "name": "PlainConvUNet, random weights",
        "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
        "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3},
        "file_ending": ".nii.gz",
    }
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset)
    manager = PlansManager(plans)
    wanted = manager.get_configuration(configuration)
    network = get_network_from_plans(
        wanted.network_arch_class_name,
        wanted.network_arch_init_kwargs,
        wanted.network_arch_init_kwargs_req_import,
        4,
        4,
        deep_supervision=False,
    )
    export(network, tuple(wanted.patch_size), folder / "model.onnx")
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(network, manager, wanted, [network.state_dict()], dataset, "nnUNetTrainer", None)
    torch.set_num_threads(THREADS)
    if exact:
        sum_in_float32()
    for scan in scans:
        images = [nib.load(path) for path in paths(scan)]
        assert nib.aff2axcodes(images[0].affine) == ("L", "P", "S"), "nnU-Net keeps the files' axes"
        array = np.stack([np.asarray(image.dataobj, np.float32).T for image in images])
        spacing = [float(size) for size in images[0].header.get_zooms()[::-1]]
        with Clock() as clock:
            labels = predictor.predict_single_npy_array(array, {"spacing": spacing})
        told(folder, scan, np.asarray(labels), clock.seconds, clock.cpu)


def sum_in_float32() -> None:
    """Let nnU-Net sum up its windows in float32.

    It does so in float16, in which the weights in a window's corners, and what they weigh, are no longer numbers but
    steps: there a network that is undecided says what the rounding says.
    """
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    torch.half = torch.float32
    module.compute_gaussian = partial(module.compute_gaussian, dtype=torch.float32)


def nnunet_plans() -> dict[str, Any]:
    def configuration(patch: list[int], stages: int, features: list[int]) -> dict[str, Any]:
        dimensions = len(patch)
        resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        return {
            "data_identifier": "generated",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": patch,
            "median_image_size_in_voxels": patch,
            "spacing": [1.0] * dimensions,
            "normalization_schemes": ["ZScoreNormalization"] * 4,
            "use_mask_for_norm": [True] * 4,
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling,
            "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": stages,
                    "features_per_stage": features,
                    "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                    "kernel_sizes": [[3] * dimensions] * stages,
                    "strides": [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
                    "n_conv_per_stage": [2] * stages,
                    "n_conv_per_stage_decoder": [2] * (stages - 1),
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

    return {
        "dataset_name": "Dataset900_Generated",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [140, 170, 140],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(4)},
        "configurations": {
            "2d": configuration([192, 160], 6, [32, 64, 128, 256, 512, 512]),
            "3d_fullres": configuration([128, 128, 112], 5, [16, 32, 64, 128, 256]),
        },
    }


EXACT = "_float32"
NETWORKS = ("monai_segresnet", "nnunet_3d_fullres", f"nnunet_3d_fullres{EXACT}", "nnunet_2d")


def configuration_of(name: str) -> str | None:
    return name.removeprefix("nnunet_").removesuffix(EXACT) if name.startswith("nnunet_") else None


def theirs(folder: Path, scans: list[Path], networks: list[str]) -> None:
    for name in networks:
        if configuration := configuration_of(name):
            nnunet_plain(folder / name, scans, configuration, name.endswith(EXACT))
        else:
            monai_segresnet(folder / name, scans)


# ---- ours


def ours(folder: Path, scans: list[Path], networks: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from segpipe.models.cards import load_card
    from segpipe.runtimes.adopt import adopt
    from segpipe.runtimes.contract import PredictorSpec

    print("| network | scan | voxels that agree | labelled voxels | theirs, slices/s | ours, slices/s | processor s |")
    print("|---|---|---|---|---|---|---|")
    for name in networks:
        here = folder / name
        file = here / ("metadata.json" if name.startswith("monai") else "plans.json")
        card, content, toml = load_card(str(file), configuration_of(name))
        bundle = adopt(str(here / "model.onnx"), card, content, str(here / "adopted"), toml)
        predictor = PredictorSpec(bundle.url, precision="float32").open(THREADS)
        for scan in scans:
            channels, described = read(scan, bundle.modalities)
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


def read(scan: Path, modalities: tuple[str, ...]) -> Any:
    """The channels of a scan in SPL, and what its row of `scans` would say of them."""
    import nibabel as nib

    from segpipe.core.intensity import brain_mask, statistics
    from segpipe.core.orientation import axis_codes, reorient
    from segpipe.core.prediction import ScanInput

    files = dict(zip(("FLAIR", "T1", "T1ce", "T2"), paths(scan), strict=True))
    channels = []
    for name in modalities:
        image = nib.load(files[name])
        stored = np.asarray(image.dataobj)
        channels.append(np.ascontiguousarray(reorient(stored, axis_codes(image.affine), "SPL")))
    brain = brain_mask(channels)
    used = np.argwhere(brain)
    box = [int(edge) for first, last in zip(used.min(0), used.max(0) + 1, strict=True) for edge in (first, last)]
    numbers = [statistics(channel[brain]) for channel in channels]
    count = len(channels)
    spacing = tuple(float(size) for size in image.header.get_zooms()[:3][::-1])
    means, deviations = tuple(one.mean for one in numbers), tuple(one.std for one in numbers)
    described = ScanInput(channels[0].shape, means, deviations, (1.0,) * count, (0.0,) * count, tuple(box), spacing)
    return channels, described


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("theirs", "ours"))
    parser.add_argument("folder", type=Path, help="where networks, cards and masks are kept")
    parser.add_argument("scans", type=Path, nargs="+", help="folders of scans in BraTS layout")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this one; may be repeated")
    given = parser.parse_args()
    half = theirs if given.half == "theirs" else ours
    half(given.folder.resolve(), given.scans, given.network or list(NETWORKS))


if __name__ == "__main__":
    main()
