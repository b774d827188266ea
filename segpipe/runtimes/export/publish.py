"""The whole export of a model: what is made of it, what is chosen by measuring, and what is put into its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segpipe.core.prediction import Sample
from segpipe.models.bundle import Bundle, load_keras
from segpipe.runtimes.export import judge
from segpipe.runtimes.export.convert import convert
from segpipe.runtimes.export.decisions import choose_decisions
from segpipe.runtimes.export.quantise import quantise
from segpipe.runtimes.looks import once
from segpipe.runtimes.openvino import INT8_FILES, LOOK_FILES, ir_files, sees_mirror_images
from segpipe.storage import filesystem as files
from segpipe.storage import url_to_fs

_IR = tuple[bytes, ...]


def export(
    bundle_url: str,
    validation: Sequence[Sample] = (),
    calibration: Sequence[Sample] | None = None,
    expected: str | None = None,
    clean: bool = True,
    learnt: Sequence[Sample] = (),
    cut: bool = True,
) -> Bundle:
    """Convert a Keras model to an IR from int16 slices to uint8 labels, in its bundle, whose new index is given back.

    The precision that `segment` is to use is measured on the scans of `validation`, see `judge.choose`; without any it
    is float32. Where each region is cut is chosen on these and on the `learnt` ones of the training if `cut` says so,
    and what is too small to be a lesion if `clean` says so, see `choose_decisions`; the model then has another
    `model_id`. With scans for `calibration` an INT8 model is made too and published where `judge.judge_int8` lets it.
    The index is written last and names the hashes of the new files, so that a half-written export is refused as damaged
    and the next one puts it right. Raises ModelError for a network that cannot be converted, and for one whose float32
    masks are not those of Keras, and for a model of another seal than `expected`.
    """
    bundle = Bundle.load(bundle_url, expected)
    bundle.must_be_trained_here("convert")
    bundle = bundle.undecided  # what an earlier export chose is chosen again
    contents = convert(load_keras(bundle), bundle)
    chosen, _ = judge.choose(bundle, contents, validation)
    decided = choose_decisions(bundle, contents, chosen["precision"], validation, learnt, cut, clean)
    chosen |= decided.told
    if any(decided.fields.values()):
        chosen["trained_as"] = bundle.trained_as
    if decided.thresholds:
        bundle = replace(bundle, thresholds=decided.thresholds)
        if bundle.network["dimensions"] != 3:  # a 3D network's probabilities are cut outside of it
            contents = convert(load_keras(bundle), bundle)
    int8 = None
    if calibration is not None:
        int8, chosen["int8"] = _int8(bundle, contents, chosen["precision"], calibration, validation)
    written = dict(zip(ir_files(bundle), contents, strict=True)) | _look_files(bundle)
    if int8 is not None:
        written |= zip(INT8_FILES, int8, strict=True)
        chosen |= {"precision": "int8"}
    _put_all(bundle.url, written)
    gone = tuple(name for name in (*INT8_FILES, *LOOK_FILES) if name not in written)
    return bundle.with_files(*written, without=gone, inference=chosen, **decided.fields)


def _int8(
    bundle: Bundle, contents: _IR, precision: str, calibration: Sequence[Sample], validation: Sequence[Sample]
) -> tuple[tuple[bytes, bytes] | None, dict[str, Any]]:
    """The INT8 model where it may be published, and what is told of it."""
    if bundle.network["dimensions"] == 3:
        return None, {"published": False, "reason": "3D networks are not quantised in this version"}
    xml, weights = contents
    made = quantise((xml, weights), bundle, calibration)
    told = judge.judge_int8(bundle, (xml, weights), made, precision, validation)
    return (made if told["published"] else None), told


def _look_files(bundle: Bundle) -> dict[str, bytes]:
    """Of a network that sees mirror images, the one that looks once and tells its probabilities."""
    if not sees_mirror_images(bundle):
        return {}
    look = replace(bundle, network=once(bundle.network))
    return dict(zip(LOOK_FILES, convert(load_keras(look), look, with_probability=True), strict=True))


def _put_all(url: str, written: Mapping[str, bytes]) -> None:
    """Write files aside and rename them into their places, so that they outlive a power cut on a local disk."""
    fs, root = url_to_fs(url)
    for name, data in written.items():
        path = f"{root.rstrip('/')}/{name}"
        folder = path.rpartition("/")[0]
        fs.makedirs(folder, exist_ok=True)
        files.replace(fs, path, data)
        files.flush_folder(fs, folder)
