"""Which scans an archive holds: every layout, every trick."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.errors import BadInput, NotFound, Reason, UsageError
from segpipe.readers import archive as archives
from segpipe.readers.layouts import decathlon
from segpipe.readers.scan import load
from segpipe.readers.sources import Listing, ScanSource, find
from tests.readers.conftest import head, save


def touch(root: Path, *paths: str) -> Path:
    """Files that only have names."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def shape(listing: Listing) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Identity -> role and path of every file."""
    return {(s.subject, s.session): [(f.role, f.path) for f in s.files] for s in listing.scans}


def reasons(listing: Listing) -> dict[str, Reason]:
    return {path: item.reason for item in listing.rejected for path in item.paths}


class TestBrats:
    """2018 to 2021, and 2023 on."""

    def test_old_names(self, tmp_path: Path) -> None:
        case = "HGG/Brats18_2013_2_1/Brats18_2013_2_1"
        touch(tmp_path, *(f"{case}_{role}.nii" for role in ("t2", "seg", "t1ce", "flair", "t1")), "survival.csv")
        listing = find(str(tmp_path))
        roles = [("FLAIR", "flair"), ("T1", "t1"), ("T1ce", "t1ce"), ("T2", "t2"), ("mask", "seg")]
        assert shape(listing) == {("Brats18_2013_2_1", "1"): [(role, f"{case}_{word}.nii") for role, word in roles]}
        assert listing.scans[0].label_convention == "brats"
        assert listing.scans[0].layout == "brats"
        assert listing.ignored == 1

    def test_new_names_know_timepoints(self, tmp_path: Path) -> None:
        for case in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001"):
            touch(tmp_path, *(f"{case}/{case}-{role}.nii.gz" for role in ("t2f", "t1n", "t1c", "t2w", "seg")))
        listing = find(str(tmp_path))
        assert [(s.subject, s.session) for s in listing.scans] == [
            ("BraTS-GLI-00005", "000"),
            ("BraTS-GLI-00005", "001"),
        ]
        assert listing.scans[0].modalities == ("FLAIR", "T1", "T1ce", "T2")
        assert {s.label_convention for s in listing.scans} == {"brats2023"}

    def test_any_subset_of_modalities(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/a_t1.nii.gz", "b/b_flair.nii.gz", "b/b_seg.nii.gz")
        assert [s.modalities for s in find(str(tmp_path)).scans] == [("T1",), ("FLAIR",)]

    def test_the_mask_of_2020_that_is_named_unlike_all_others(self, tmp_path: Path) -> None:
        folder = "BraTS20_Training_355"
        touch(tmp_path, f"{folder}/{folder}_t1.nii", f"{folder}/W39_1998.09.19_Segm.nii")
        assert [f.role for f in find(str(tmp_path)).scans[0].files] == ["T1", "mask"]

    def test_real_archive(self, real_data: Path) -> None:
        listing = find(str(real_data / "brats2021"))
        assert [len(s.files) for s in listing.scans] == [5] * 6
        assert not listing.rejected


class TestDecathlon:
    """dataset.json, 4D images."""

    @pytest.fixture
    def task(self, tmp_path: Path) -> Path:
        folder = tmp_path / "Task01_BrainTumour"
        images = np.stack([head(seed=seed) for seed in range(4)], axis=-1)
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2, 2, 1:3] = (2, 3)
        save(folder / "imagesTr" / "BRATS_001.nii.gz", images)
        save(folder / "labelsTr" / "BRATS_001.nii.gz", mask)
        save(folder / "imagesTs" / "BRATS_485.nii.gz", images)
        touch(folder, "imagesTr/._BRATS_001.nii.gz")
        content = {
            "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
            "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    def test_channels_are_modalities(self, task: Path) -> None:
        listing = find(str(task))
        assert [s.subject for s in listing.scans] == ["BRATS_001", "BRATS_485"]
        scan = load(listing.root, listing.scans[0])
        assert scan.modalities == ("FLAIR", "T1", "T1ce", "T2")
        np.testing.assert_array_equal(scan.images["T1ce"], head(seed=2).T)
        assert scan.label_convention == "decathlon"
        assert scan.label_counts == {2: 1, 3: 1}
        assert [row["channel"] for row in scan.file_rows] == [0, 1, 2, 3, 0]
        assert load(listing.root, listing.scans[1]).mask is None

    def test_channels_that_are_not_there(self, task: Path) -> None:
        save(task / "Task01_BrainTumour" / "imagesTs" / "BRATS_485.nii.gz", head())
        listing = find(str(task))
        with pytest.raises(BadInput) as caught:
            load(listing.root, listing.scans[1])
        assert caught.value.reason == Reason.GRID_MISMATCH

    def test_data_sets_do_not_take_each_others_files(self, tmp_path: Path) -> None:
        for name in ("Task1", "Task10", "Task1/inner"):
            touch(tmp_path, f"{name}/imagesTr/{Path(name).name}_001_0000.nii.gz")
            (tmp_path / name / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2"}, "labels": {}}))
        assert [scan.subject for scan in find(str(tmp_path)).scans] == ["Task10_001", "Task1_001", "inner_001"]

    def test_files_of_one_channel_each(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"imagesTr/case_1_000{n}.nii.gz" for n in range(2)), "labelsTr/case_1.nii.gz")
        content = {"channel_names": {"0": "T2", "1": "FLAIR"}, "labels": {"background": 0, "lesion": 1}}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        (scan,) = find(str(tmp_path)).scans
        wanted = [("FLAIR", "case_1_0001"), ("T2", "case_1_0000"), ("mask", "case_1")]
        assert [(f.role, Path(f.path).name.removesuffix(".nii.gz")) for f in scan.files] == wanted
        assert scan.label_convention == "binary"

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"modality": 3}', '{"modality": {"1": "T1"}}', "[" * 100_000])
    def test_a_broken_description(self, tmp_path: Path, content: str) -> None:
        touch(tmp_path, "imagesTr/a.nii.gz")
        (tmp_path / "dataset.json").write_text(content)
        assert reasons(find(str(tmp_path))) == {"dataset.json": Reason.CORRUPT, "imagesTr/a.nii.gz": Reason.CORRUPT}

    @pytest.mark.parametrize(
        ("labels", "convention"),
        [
            ({"0": "background", "1": "necrotic", "2": "edema", "3": "enhancing"}, "brats2023"),
            ({"background": 0, "NCR": 1, "ED oedema": 2, "ET enhancing": 4}, "brats"),
            ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, "brats2023"),
            (
                {"0": "background", "1": "Anterior", "2": "Posterior"},
                "dataset|1=Anterior,2=Posterior|Anterior=1,Posterior=2",
            ),
            ({"background": 0, **{f"part {n}": n for n in range(1, 30)}}, "other"),
            ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, "decathlon"),
            ({"background": 0, "whole tumor": [1, 2, 3]}, "other"),
            ({"0": "background", "1": "cancer"}, "binary"),
        ],
    )
    def test_label_names(self, labels: dict[str, object], convention: str) -> None:
        assert decathlon.convention_of_labels(labels) == convention


class TestBids:
    """Subjects, sessions, derivatives."""

    def test_images_and_lesion_masks(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "dataset_description.json",
            "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz",
            "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.json",
            "sub-01/ses-pre/anat/sub-01_ses-pre_ce-gadolinium_T1w.nii.gz",
            "sub-01/ses-pre/anat/sub-01_ses-pre_FLAIR.nii.gz",
            "sub-01/ses-pre/func/sub-01_ses-pre_task-rest_bold.nii.gz",
            "sub-02/anat/sub-02_T2w.nii",
            "derivatives/manual/sub-01/ses-pre/anat/sub-01_ses-pre_label-lesion_mask.nii.gz",
            "derivatives/manual/sub-01/ses-pre/anat/sub-01_ses-pre_space-MNI_label-lesion_mask.nii.gz",
            "derivatives/prep/sub-01/ses-pre/anat/sub-01_ses-pre_desc-brain_mask.nii.gz",
            "derivatives/prep/sub-01/ses-pre/anat/sub-01_ses-pre_dseg.nii.gz",
            "derivatives/prep/sub-01/ses-pre/anat/sub-01_ses-pre_desc-preproc_T1w.nii.gz",
        )
        listing = find(str(tmp_path))
        assert not listing.rejected
        (one, two) = listing.scans
        assert (one.subject, one.session, one.layout) == ("sub-01", "ses-pre", "bids")
        assert [f.role for f in one.files] == ["FLAIR", "T1", "T1ce", "mask"]
        assert one.files[-1].path.endswith("pre_label-lesion_mask.nii.gz")
        assert (two.subject, two.session, two.modalities) == ("sub-02", "1", ("T2",))

    def test_acq_tells_contrast_where_ce_does_not(self, tmp_path: Path) -> None:
        words = {"acq-pre": "T1", "acq-postgad": "T1ce", "acq-postop": "T1", "acq-postgad_ce-none": "T1"}
        words |= {"ce-pregad": "T1", "ce-noGd": "T1", "ce-sinContraste": "T1", "ce-postgad": "T1ce", "ce-gd": "T1ce"}
        touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_{word}_T1w.nii.gz" for n, word in enumerate(words)))
        assert [scan.files[0].role for scan in find(str(tmp_path)).scans] == list(words.values())

    def test_a_minus_beside_the_agent_in_a_file_name_is_before_contrast(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"P{n}/T1_{word}.nii.gz" for n in (1, 2) for word in ("C-", "C+")))
        listing = find(str(tmp_path))
        assert [[(file.role, file.path) for file in scan.files] for scan in listing.scans] == [
            [("T1", f"P{n}/T1_C-.nii.gz"), ("T1ce", f"P{n}/T1_C+.nii.gz")] for n in (1, 2)
        ]
        assert not listing.rejected

    def test_suffixes_that_are_no_weight_and_templates_that_are_nobody(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"sub-01/anat/sub-01_{word}.nii.gz" for word in ("acq-x_T1w", "FLASH", "T2w", "T2starw")))
        touch(tmp_path, "tpl-MNI/anat/tpl-MNI_res-1_T1w.nii.gz")
        listing = find(str(tmp_path))
        (scan,) = listing.scans
        assert scan.modalities == ("T1", "T2", "FLASH", "T2starw")
        assert listing.kinds == {"BIDS template": 1}

    def test_a_second_run_is_rejected(self, tmp_path: Path) -> None:
        touch(tmp_path, "sub-01/anat/sub-01_run-1_T1w.nii.gz", "sub-01/anat/sub-01_run-2_T1w.nii.gz")
        listing = find(str(tmp_path))
        assert reasons(listing) == {"sub-01/anat/sub-01_run-2_T1w.nii.gz": Reason.DUPLICATE}
        assert len(listing.scans) == 1


class TestManifest:
    """CSV, TSV, Parquet."""

    ROWS = (
        {"subject": "p1", "session": "a", "modality": "flair", "path": "one/x.nii"},
        {"subject": "p1", "session": "a", "modality": "seg", "path": "./one/y.nii", "label_convention": "decathlon"},
        {"subject": "p1", "session": "b", "modality": "CEST", "path": "z.nii"},
    )

    def write(self, root: Path, name: str, rows: tuple[dict[str, str], ...] = ROWS) -> str:
        touch(root, "one/x.nii", "one/y.nii", "z.nii")
        table = pa.Table.from_pylist(
            list(rows), pa.schema([(k, pa.string()) for k in {k: 0 for row in rows for k in row}])
        )
        path = root / name
        if name.endswith(".parquet"):
            pq.write_table(table, path)
        else:
            comma = "\t" if name.endswith(".tsv") else ","
            lines = [table.column_names, *([row[c] or "" for c in table.column_names] for row in table.to_pylist())]
            path.write_text("\ufeff" + "\n".join(comma.join(line) for line in lines) + "\n", encoding="utf-8")
        return str(path)

    @pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.parquet"])
    def test_rows_are_files(self, tmp_path: Path, name: str) -> None:
        listing = find(self.write(tmp_path, name))
        assert shape(listing) == {
            ("p1", "a"): [("FLAIR", "one/x.nii"), ("mask", "one/y.nii")],
            ("p1", "b"): [("CEST", "z.nii")],
        }
        assert listing.scans[0].label_convention == "decathlon"
        assert listing.scans[0].layout == "manifest"

    def test_scans_load_from_the_manifests_own_url(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, "m.csv", ({"subject": "p", "modality": "T1", "path": "one/x.nii"},))
        save(tmp_path / "one" / "x.nii")
        assert load(source, find(source).scans[0]).modalities == ("T1",)

    @pytest.mark.parametrize("path", ["../x.nii", "/etc/passwd", "one/../../x.nii", "file:///etc/x.nii", "a\\b.nii"])
    def test_paths_that_leave_the_folder(self, tmp_path: Path, path: str) -> None:
        rows = (*self.ROWS, {"subject": "q", "modality": "T1", "path": path})
        listing = find(self.write(tmp_path, "m.csv", rows))
        assert [item.reason for item in listing.rejected] == [Reason.UNSAFE_PATH]
        assert len(listing.scans) == 2

    def test_files_that_are_not_there(self, tmp_path: Path) -> None:
        rows = (*self.ROWS, {"subject": "q", "modality": "T1", "path": "none.nii"})
        assert reasons(find(self.write(tmp_path, "m.csv", rows))) == {"none.nii": Reason.UNREADABLE}

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            (({"subject": "p", "path": "z.nii"},), "lacks the columns modality"),
            (({"subject": "", "modality": "T1", "path": "z.nii"},), "row 2 has no subject"),
            (({"subject": "p", "modality": "T1", "path": "z.nii", "channel": "-1"},), "channel '-1'"),
            (({"subject": "p", "modality": "seg", "path": "z.nii", "label_convention": "x"},), "label_convention 'x'"),
        ],
    )
    def test_tables_that_are_no_manifest(self, tmp_path: Path, rows: tuple[dict[str, str], ...], problem: str) -> None:
        with pytest.raises(UsageError, match=problem):
            find(self.write(tmp_path, "m.csv", rows))

    @pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
    def test_bytes_that_are_no_table(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\xff\xfe\x00PAR1 nonsense")
        with pytest.raises(UsageError, match=r"not a readable table|lacks"):
            find(str(tmp_path / name))

    def test_a_folder_is_no_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a manifest"):
            find(str(tmp_path), "manifest")


class TestPlain:
    """Names that tell what they can."""

    def test_open_ms(self, real_data: Path) -> None:
        listing = find(str(real_data / "open_ms"))
        assert {(s.subject, s.session): s.modalities for s in listing.scans} == {
            ("long_patient01", "study1"): ("FLAIR", "T1", "T2"),
            ("long_patient01", "study2"): ("FLAIR", "T1", "T2"),
            ("long_patient04", "study1"): ("FLAIR", "T1", "T2"),
            ("xs_patient07", "1"): ("FLAIR", "T1", "T1ce", "T2"),
        }
        assert [scan.files[-1].role for scan in listing.scans] == ["T2", "T2", "mask", "mask"]
        assert listing.kinds == {".txt": 12, "map of anatomy": 4}
        assert reasons(listing) == {"long_patient01/gt.nii.gz": Reason.MASK_MISMATCH}

    @pytest.mark.parametrize(
        ("paths", "identity", "roles"),
        [
            (["p7/flair.nii", "p7/t1_post.nii", "p7/mask.nii"], ("p7", "1"), ["FLAIR", "T1ce", "mask"]),
            (["p7_T1.nii", "p7_T2-FLAIR.nii", "p7_seg.nii"], ("p7", "1"), ["FLAIR", "T1", "mask"]),
            (["p7/visit2/T1.nii", "p7/visit2/pd.nii"], ("p7", "visit2"), ["T1", "PD"]),
            (["images/p7_T1w.nii", "images/p7_T2w.nii", "masks/p7.nii"], ("p7", "1"), ["T1", "T2", "mask"]),
            (["p7/p7_T1.nii", "p7/p7_T2.nii", "p7/lesion.nii"], ("p7", "1"), ["T1", "T2", "mask"]),
            (["p7.nii", "p7_seg.nii"], ("p7", "1"), ["image", "mask"]),
            (["p7_T1.hdr", "p7_T1.img"], ("p7", "1"), ["T1"]),
            (["p7_T1.hdr.gz", "p7_T1.img.gz"], ("p7", "1"), ["T1"]),
            (["p7_T1.mgz"], ("p7", "1"), ["T1"]),
            (["p7_T1.nii", "p7_brain_mask.nii"], ("p7", "1"), ["T1"]),
        ],
    )
    def test_names(self, tmp_path: Path, paths: list[str], identity: tuple[str, str], roles: list[str]) -> None:
        listing = find(str(touch(tmp_path, *paths)))
        assert not listing.rejected
        (scan,) = listing.scans
        assert (scan.subject, scan.session) == identity
        assert [f.role for f in scan.files] == roles

    def test_one_file(self, tmp_path: Path) -> None:
        touch(tmp_path, "p7_T1.nii", "p8_T1.nii", "pair.hdr", "pair.img")
        assert shape(find(str(tmp_path / "p7_T1.nii"))) == {("p7", "1"): [("T1", "p7_T1.nii")]}
        (scan,) = find(str(tmp_path / "pair.img")).scans
        assert scan.paths == ("pair.hdr", "pair.img")
        assert scan.bytes == 2

    def test_an_img_without_hdr(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_T1.img", "b_T1.nii")
        assert reasons(find(str(tmp_path))) == {"a_T1.img": Reason.NOT_AN_IMAGE}

    def test_a_mask_without_image(self, tmp_path: Path) -> None:
        assert reasons(find(str(touch(tmp_path, "p7_seg.nii")))) == {"p7_seg.nii": Reason.MISSING_MODALITY}


class TestIdentity:
    """Two scans with one name, and names that are none."""

    def test_the_second_of_two_scans_is_rejected_whole(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            touch(tmp_path, f"{folder}/BraTS_1/BraTS_1_t1.nii", f"{folder}/BraTS_1/BraTS_1_seg.nii")
        listing = find(str(tmp_path))
        assert [s.paths for s in listing.scans] == [("a/BraTS_1/BraTS_1_t1.nii", "a/BraTS_1/BraTS_1_seg.nii")]
        (item,) = listing.rejected
        assert item.reason == Reason.DUPLICATE
        assert item.paths == ("b/BraTS_1/BraTS_1_t1.nii", "b/BraTS_1/BraTS_1_seg.nii")

    @pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31mb", "a\u202eb", "a\\b", "a\x7fb", "a\udce9b"])
    def test_names_that_trick(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, "good_T1.nii", f"{name}_T1.nii")
        listing = find(str(tmp_path))
        assert [s.subject for s in listing.scans] == ["good"]
        (item,) = listing.rejected
        assert item.reason == Reason.UNSAFE_PATH
        assert "\n" not in item.message
        item.message.encode()
        "".join(item.paths).encode()

    def test_a_colon_would_break_the_scan_id(self, tmp_path: Path) -> None:
        assert reasons(find(str(touch(tmp_path, "a:b_T1.nii")))) == {"a:b_T1.nii": Reason.UNSAFE_PATH}

    def test_a_key_of_an_object_store_that_climbs(self) -> None:
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        for path in ("/bucket/good_T1.nii", "/bucket/sub/../../evil_T1.nii"):
            fs.store[path] = fsspec.implementations.memory.MemoryFile(fs, path, b"x")
        fs.pseudo_dirs[:] = ["/bucket"]
        listing = find("memory://bucket")
        assert [s.subject for s in listing.scans] == ["good"]
        assert [item.reason for item in listing.rejected] == [Reason.UNSAFE_PATH]
        fs.store.clear()


class TestLinks:
    """Symbolic links and special files."""

    def test_a_link_that_leaves(self, tmp_path: Path) -> None:
        outside = save(tmp_path / "secret_T1.nii")
        archive = touch(tmp_path / "archive", "a_T1.nii")
        (archive / "b_T1.nii").symlink_to(outside)
        (archive / "c_T1.nii").symlink_to("../secret_T1.nii")
        (archive / "more").symlink_to(tmp_path)
        listing = find(str(archive))
        assert reasons(listing) == dict.fromkeys(("b_T1.nii", "c_T1.nii", "more"), Reason.UNSAFE_PATH)
        assert [s.subject for s in listing.scans] == ["a"]

    def test_a_link_inside_is_a_file(self, tmp_path: Path) -> None:
        save(tmp_path / "store" / "x.nii")
        (tmp_path / "p_T1.nii").symlink_to("store/x.nii")
        listing = find(str(tmp_path))
        assert ("p", "1") in shape(listing)
        assert load(listing.root, next(s for s in listing.scans if s.subject == "p")).modalities == ("T1",)

    def test_links_to_nothing_and_in_circles(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_T1.nii")
        (tmp_path / "b_T1.nii").symlink_to("gone.nii")
        (tmp_path / "c_T1.nii").symlink_to("c_T1.nii")
        (tmp_path / "loop").symlink_to(tmp_path)
        listing = find(str(tmp_path))
        assert reasons(listing) == dict.fromkeys(("b_T1.nii", "c_T1.nii"), Reason.UNREADABLE)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        touch(tmp_path, "a_T1.nii")
        os.mkfifo(tmp_path / "b_T1.nii")
        assert reasons(find(str(tmp_path))) == {"b_T1.nii": Reason.UNREADABLE}

    def test_the_source_may_be_a_link(self, tmp_path: Path) -> None:
        touch(tmp_path / "real", "a_T1.nii")
        (tmp_path / "link").symlink_to("real")
        listing = find(str(tmp_path / "link"))
        assert [s.subject for s in listing.scans] == ["a"]
        assert not listing.rejected


class TestListing:
    """The whole: deterministic, lazy, quick, with remedies."""

    def test_mixed_layouts(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "BraTS2021_1/BraTS2021_1_t1.nii.gz",
            "bids/sub-01/anat/sub-01_T1w.nii.gz",
            "p7/flair.nii",
            "task/imagesTr/c.nii.gz",
            ".hidden/x_T1.nii",
            "__MACOSX/x_T1.nii",
            "README.txt",
        )
        (tmp_path / "task" / "dataset.json").write_text('{"modality": {"0": "T1"}}')
        listing = find(str(tmp_path))
        assert {s.subject: s.layout for s in listing.scans} == {
            "BraTS2021_1": "brats",
            "c": "decathlon",
            "p7": "plain",
            "sub-01": "bids",
        }
        assert not listing.rejected
        assert listing.kinds["hidden folder"] == 2

    def test_every_odd_file_is_a_scan_or_a_rejection(self, real_data: Path) -> None:
        listing = find(str(real_data / "odd"), subject_key=b"key")
        named = [path for item in (*listing.scans, *listing.rejected) for path in item.paths]
        assert len(named) == len(set(named))
        named += [entry.path for one in listing.series for entry in one.series.entries()]
        texts = {"LICENSE", "LICENSE.md", "COPYING"}
        wanted = {str(p.relative_to(real_data / "odd")) for p in (real_data / "odd").rglob("*") if p.is_file()}
        assert set(named) == {path for path in wanted if Path(path).name not in texts}
        assert listing.ignored == 5

    def test_the_order_of_files_does_not_matter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"{f}/BraTS_{n}/BraTS_{n}_{role}.nii" for f in "ab" for n in range(5) for role in ("t1", "t2", "seg")]
        touch(tmp_path, *names, "x/T1.nii", "x/T1_b.nii", "x/mask.nii")
        wanted = find(str(tmp_path))
        walk = archives.walk

        def shuffled(*args: object) -> object:
            entries, rejected = walk(*args)  # type: ignore[arg-type]
            items = list(entries.items())
            random.Random(1).shuffle(items)
            return dict(items), rejected

        monkeypatch.setattr("segpipe.readers.sources.walk", shuffled)
        assert find(str(tmp_path)) == wanted

    def test_no_image_is_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "p_T1.nii", "BraTS_1/BraTS_1_t1.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz")

        def refuse(*args: object, **options: object) -> None:
            raise AssertionError(f"opened {args}")

        monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem._open", refuse)
        monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", refuse)
        assert len(find(str(tmp_path)).scans) == 3

    def test_a_fingerprint_follows_its_files_alone(self, brats_case: Callable[..., Path]) -> None:
        def prints(root: Path) -> dict[str, str]:
            return {s.subject: s.fingerprint for s in find(str(root)).scans}

        root = brats_case("BraTS2021_1")
        before = prints(root)
        brats_case("BraTS2021_2")
        both = prints(root)
        assert both["BraTS2021_1"] == before["BraTS2021_1"]
        path = root / "BraTS2021_1" / "BraTS2021_1_t1.nii.gz"
        os.utime(path, (1, 1))
        after = prints(root)
        assert after["BraTS2021_1"] != before["BraTS2021_1"]
        assert after["BraTS2021_2"] == both["BraTS2021_2"]

    def test_sources_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="does not exist"):
            find(str(tmp_path / "none"))
        with pytest.raises(NotFound, match="is empty"):
            find(str(tmp_path))
        touch(tmp_path, "notes.txt")
        with pytest.raises(NotFound, match="no image"):
            find(str(tmp_path))
        with pytest.raises(UsageError, match="unknown"):
            find(str(tmp_path), "brain")

    def test_other_file_systems(self) -> None:
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pipe("/archive/BraTS_1/BraTS_1_t1.nii", b"x")
        listing = find("memory://archive")
        assert listing.root == "memory:///archive"
        assert shape(listing) == {("BraTS_1", "1"): [("T1", "BraTS_1/BraTS_1_t1.nii")]}
        fs.store.clear()

    def test_a_hundred_thousand_files_take_seconds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file system aside, whose share depends on the disk."""
        ids = [f"BraTS2021_{number:05d}" for number in range(20_000)]
        roles = ("flair", "t1", "t1ce", "t2", "seg")
        paths = [f"{case}/{case}_{role}.nii.gz" for case in ids for role in roles]
        entries = {path: archives.Entry(path, 1, "1.0") for path in paths}
        monkeypatch.setattr("segpipe.readers.sources.walk", lambda *_: (entries, []))
        start = time.process_time()
        listing = find(str(tmp_path))
        seconds = time.process_time() - start
        assert len(listing.scans) == 20_000
        assert seconds < 10


def test_identity_of_a_scan_source() -> None:
    file = archives.SourceFile("T1", "a.hdr", 3, "1", companion="a.img")
    one = ScanSource("p", "1", (file,), "plain")
    assert one.paths == ("a.hdr", "a.img")
    assert len(one.fingerprint) == 32
