"""Whose each file is, which visit, which role: archives as hospitals and publishers name them, without voxels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.errors import UsageError
from segpipe.pipelines.ingest import check_reference
from segpipe.readers.archive import Listing
from segpipe.readers.chains import Use
from segpipe.readers.names import BRAIN, MASK, cut, describe, folder, is_generic, kind_of, take_visits
from segpipe.readers.naming import naming_of
from segpipe.readers.people import name_of, people
from segpipe.readers.plan import lines
from segpipe.readers.sources import find
from segpipe.readers.visit_forms import BEGINNING, BEGINNINGS, END, ENDS, Form, may_hold_a_visit

FOUR = ("FLAIR", "T1", "T1ce", "T2")


def read(root: Path, *paths: str) -> Listing:
    """The listing of an archive whose files only have names."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return find(str(root))


def roles(listing: Listing) -> dict[str, str]:
    """The role of each file that is part of a scan."""
    return {file.path: file.role for scan in listing.scans for file in scan.files}


def visits(listing: Listing) -> dict[str, set[str]]:
    """The sessions of each subject."""
    found: dict[str, set[str]] = {}
    for scan in listing.scans:
        found.setdefault(scan.subject, set()).add(scan.session)
    return found


def expand(*patterns: str, **words: tuple[str, ...]) -> list[str]:
    """Each pattern with every combination of the words."""
    paths = list(patterns)
    for name, values in words.items():
        paths = [path.replace(f"<{name}>", value) for path in paths for value in values]
    return list(dict.fromkeys(paths))


def test_who_is_seen_at_two_sites_is_one_subject_unless_anybody_may_be_called_so(tmp_path: Path) -> None:
    for subject, count in (("sub-1234567", 1), ("sub-01", 2)):
        paths = [f"site{s}/{subject}/ses-{n}/anat/{subject}_ses-{n}_T1w.nii" for s, n in (("A", 1), ("B", 2))]
        assert len(visits(read(tmp_path / subject, *paths))) == count


def test_a_plus_behind_the_patient_is_an_agent(tmp_path: Path) -> None:
    listing = read(tmp_path, *expand("P<n>/P<n><w>.nii", n=("1", "2"), w=("_T1", "+C")))
    assert roles(listing) == {path: "T1ce" if "+" in path else "T1" for path in roles(listing)}
    assert [scan.modalities for scan in listing.scans] == [("T1", "T1ce")] * 2


class TestCopies:
    """Windows calls a copy `P4 (1)` or `P4 - Copy`; the original stays."""

    def test_originals_stay(self, tmp_path: Path) -> None:
        paths = expand("<p>/<w>.nii", p=("GB03", "GB03 - Copy", "GB04", "GB04 (1)"), w=("T1", "FLAIR"))
        listing = read(tmp_path, *paths)
        assert set(visits(listing)) == {"GB03", "GB04"}
        assert set(roles(listing)) == {path for path in paths if path[4] == "/"}
        assert {str(one.reason) for one in listing.rejected} == {"duplicate"}

    def test_a_modality_that_another_copy_alone_has_is_spare(self, tmp_path: Path) -> None:
        pattern = expand("P<p>/<w>.nii", p=("1", "2"), w=("flair", "t1", "processed/flair", "processed/lesion"))
        listing = read(tmp_path / "made", *pattern)
        for scan in listing.scans:
            assert [(file.role, file.spare) for file in scan.files] == [("FLAIR", False), ("T1", True), (MASK, False)]
            assert "processed" in scan.files[0].path
        assert [one.paths for one in listing.rejected] == [("P1/flair.nii",), ("P2/flair.nii",)]
        places = [*expand("study/<s>/P1_<w>.nii", s=("berlin", "ulm"), w=("t1",)), "study/ulm/P1_flair.nii"]
        assert not any(file.spare for scan in read(tmp_path / "places", *places).scans for file in scan.files)

    def test_folders_with_other_files_are_somebody_else(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "Patient/T1.nii", "Patient (2)/FLAIR.nii", "Patient (3)/T2.nii")
        assert set(visits(listing)) == {"Patient", "Patient (2)", "Patient (3)"}

    def test_numbers_in_brackets_are_patients_where_nobody_else_is_called_so(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("<p>/<w>.nii", p=("Patient (1)", "Patient (2)"), w=("T1", "FLAIR")))
        assert set(visits(listing)) == {"Patient (1)", "Patient (2)"}


class TestWhoseItIs:
    """Words that could be nobody's and are somebody's, and the reverse."""

    @pytest.mark.parametrize(
        ("paths", "right"),
        [
            # one patient has one baseline, and what is called like others' names is no month
            (expand("<p>/<w>.nii", p=("BL04", "BL05"), w=("T1", "FLAIR")), {"BL04": 1, "BL05": 1}),
            (expand("<p>_T1.nii", p=("BL04", "BL05", "KM06")), {"BL04": 1, "BL05": 1, "KM06": 1}),
            (expand("HGG/<p>/T1.nii", "LGG/BL09/T1.nii", p=("BL04", "BL05")), {f"HGG_BL0{n}": 1 for n in "45"}),
            (expand("<p>/T1.nii", p=("01M", "02F", "03M")), {"01M": 1, "02F": 1, "03M": 1}),
            (expand("<p>/<v>/T1.nii", p=("06M", "07M"), v=("V1", "V2")), {"06M": 2, "07M": 2}),
            (expand("<p>/<v>/T1.nii", p=("TP04", "TP05"), v=("baseline", "followup")), {"TP04": 2, "TP05": 2}),
            # what repeats below patients is a visit all the same
            (expand("<p>/<v>/T1.nii", p=("Anna", "Bert"), v=("BL01", "BL02")), {"Anna": 2, "Bert": 2}),
            (expand("<p>/<v>/T1.nii", p=("M05", "M06"), v=("06M", "12M")), {"M05": 2, "M06": 2}),
            (expand("P01/<v>/T1.nii", v=("06M", "12M")), {"P01": 2}),
        ],
    )
    def test_codes_of_visits_may_be_names(self, tmp_path: Path, paths: list[str], right: dict[str, int]) -> None:
        found = {name: len(sessions) for name, sessions in visits(read(tmp_path, *paths)).items()}
        assert {name: found.get(name) for name in right} == right

    @pytest.mark.parametrize(
        ("paths", "right"),
        [
            (
                expand("<f>/<w>.nii", f=("fsm_t1_110", "fsm_t2_110", "fsm_t1_111", "asl_epi_9"), w=("image", "mask")),
                {"fsm_110": 1, "fsm_111": 1, "9": 1},
            ),
            (expand("strip_v1.5/<f>/<w>.nii", f=("fsm_t1_1", "ixi_t2_8"), w=("x", "mask")), {"fsm_1": 1, "ixi_8": 1}),
            (expand("ixi_t2_<n>.nii", n=("005", "006")), {"ixi_005": 1, "ixi_006": 1}),
            (expand("<w>_<n>/image.nii", w=("T1", "FLAIR"), n=("001", "002")), {"001": 1, "002": 1}),
            (expand("fsm_<w>_<n>.nii", w=("t1", "t2"), n=("7", "8", "8_mask")), {"fsm_7": 1, "fsm_8": 1}),
            # what repeats behind several names is a visit, and a series' number is nothing
            (expand("<p>_<w>_<n>.nii", p=("Anna", "Bert"), w=("t1", "t2"), n=("1", "2")), {"Anna": 2, "Bert": 2}),
            (expand("<p>_<w>.nii", p=("Anna", "Bert"), w=("t1_4", "t2_501", "t2_601")), {"Anna": 1, "Bert": 1}),
        ],
    )
    def test_numbers_behind_modalities(self, tmp_path: Path, paths: list[str], right: dict[str, int]) -> None:
        listing = read(tmp_path, *paths)
        assert {name: len(sessions) for name, sessions in visits(listing).items()} == right

    @pytest.mark.parametrize("case", ["P-031", "HH-11", "P-1"])
    def test_time_points_end_names_of_brats(self, tmp_path: Path, case: str) -> None:
        names = [f"{case}-100", f"{case}-101"]
        for place, paths in (("flat", "<n>-<w>.nii"), ("folders", "<n>/<n>-<w>.nii")):
            listing = read(tmp_path / place, *expand(paths, n=tuple(names), w=("t1n", "t1c", "t2w", "t2f", "seg")))
            assert visits(listing) == {case: {"100", "101"}}
            assert any("100, 101" in line for line in listing.told)
        sites = read(tmp_path / "sites", *expand("site-0<s>-00<p>-t1n.nii", s=("1", "2"), p=("1", "2")))
        assert len(visits(sites)) == 4

    @pytest.mark.parametrize(("names", "people"), [(("Meier2019", "Kunz2019"), 2), (("WMH2017",), 3)])
    def test_small_numbers_below_names_with_a_year(self, tmp_path: Path, names: tuple[str, ...], people: int) -> None:
        listing = read(tmp_path, *expand("<p>/<n>/T1.nii", p=names, n=("1", "2", "3")))
        assert len(visits(listing)) == people
        assert listing.told

    @pytest.mark.parametrize("word", ["train", "Case", "image", "volume"])
    def test_a_technical_word_with_a_number_is_a_patient_where_nothing_else_is(self, tmp_path: Path, word: str) -> None:
        paths = expand(f"preproc/{word}_00<n>/<f>.nii", n=("0", "1", "2"), f=("ct", "mri", "lesion_mask"))
        listing = read(tmp_path, *paths)
        assert len(visits(listing)) == 3
        assert not listing.rejected

    def test_numbered_folders_of_different_files_are_nobody(self, tmp_path: Path) -> None:
        assert len(visits(read(tmp_path, "part1/P001/T1.nii", "part2/P001/FLAIR.nii", "part2/P002/T1.nii"))) == 2

    def test_folders_of_year_month_and_day_are_a_visit(self, tmp_path: Path) -> None:
        days = ("2019/03/04", "2020/09/12")
        below = read(tmp_path / "below", *expand("MRN77881<p>/<d>/<w>.nii", p=("2", "3"), d=days, w=("T1", "FLAIR")))
        above = read(tmp_path / "above", *expand("<d>/P<p>/<w>.nii", p=("2", "3"), d=days, w=("T1", "FLAIR")))
        for listing in (below, above):
            assert [len(sessions) for sessions in visits(listing).values()] == [2, 2]

    def test_a_year_with_numbers_below_holds_patients(self, tmp_path: Path) -> None:
        assert set(visits(read(tmp_path, *expand("2019/0<n>/T1.nii", "2020/0<n>/T1.nii", n=("1", "2"))))) == {
            "01",
            "02",
        }

    def test_words_and_numbers_alone_are_patients_and_visits(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("00<p>_MR_<v>/<w>.nii", p=("1", "2", "3"), v=("1", "2"), w=("T1", "FLAIR")))
        assert [len(sessions) for sessions in visits(listing).values()] == [2, 2, 2]

    def test_a_name_that_others_go_on_from_is_whole(self, tmp_path: Path) -> None:
        people = ("101-001", "101-002", "102-001")
        listing = read(tmp_path, *expand("ACME-<p>_<v>_T1.nii", p=people, v=("SCR", "W08", "W16")))
        assert {name: len(found) for name, found in visits(listing).items()} == {f"ACME-{one}": 3 for one in people}

    def test_numbers_below_a_site_that_have_visits_are_patients(self, tmp_path: Path) -> None:
        paths = expand("X/DE/101/101-00<p>/<v>/T1.nii", p=("1", "2"), v=("Baseline", "Week12"))
        assert [len(found) for found in visits(read(tmp_path, *paths)).values()] == [2, 2]

    @pytest.mark.parametrize(
        "pair",
        [
            ("1.5T", "3T"),
            ("admission", "90days"),
            ("interim", "final"),
            ("test", "retest"),
            ("1. MRT", "2. MRT"),
            ("201901", "202003"),
            ("IRM du 2 janvier 2019", "IRM du 14 mars 2020"),
            ("prima visita", "seconda visita"),
            ("MRI 12 januari 2019", "MRI 03 maart 2020"),
            ("1.2.840.113619.2.5.97.78", "1.2.840.113619.2.5.99.80"),
        ],
    )
    def test_folders_below_a_patient_are_visits(self, tmp_path: Path, pair: tuple[str, str]) -> None:
        listing = read(tmp_path, *expand("sub_1<p>/<v>/<w>.nii", p=("1", "2"), v=pair, w=("T1", "FLAIR")))
        assert {name: len(found) for name, found in visits(listing).items()} == {"sub_11": 2, "sub_12": 2}
        assert not listing.rejected

    def test_numbers_of_examinations_below_numbers_of_patients(self, tmp_path: Path) -> None:
        exams = {"4455123": ("20113344", "20188712"), "4455199": ("20133111",), "4455777": ("20191919", "20202020")}
        listing = read(
            tmp_path, *(f"{p}/{exam}/{w}.nii" for p, es in exams.items() for exam in es for w in ("T1", "T2"))
        )
        assert {name: len(found) for name, found in visits(listing).items()} == {p: len(e) for p, e in exams.items()}

    def test_folders_whose_files_are_called_for_the_study_are_patients(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("GBM2021/case_4<p>/GBM2021_<w>.nii", p=("1", "2"), w=("T1", "FLAIR")))
        assert [len(found) for found in visits(listing).values()] == [1, 1]

    def test_numbered_scans_in_folders_of_kinds_are_patients(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("project/<w>/scan<p>_<w>.nii", p=("1", "2"), w=("T1", "FLAIR")))
        assert {scan.subject: scan.modalities for scan in listing.scans} == dict.fromkeys(
            ("scan1", "scan2"), ("FLAIR", "T1")
        )
        assert any("scan1, scan2" in sentence for sentence in listing.told)
        assert len(visits(read(tmp_path / "one", *expand("Meier/scan<p>/<w>.nii", p=("1", "2"), w=("T1", "T2"))))) == 1

    @pytest.mark.parametrize(
        ("pattern", "people"),
        [
            ("APIS/train_00<p>/<w>.nii", 2),
            ("Meier/image_<p>/<w>.nii Roe/image_<p>/<w>.nii", 2),
            ("Meier/MR_<p>/<w>.nii", 1),
            ("GBM2021/x0<p>.nii", 2),
            ("SITE_MRI/0000309<p>_20201007_MR_2091<p>70157/<w>.nii", 2),
            ("SITE_MRI/00003092_2020100<p>_MR_2091<p>70157/<w>.nii SITE_MRI/00003093_20201007_MR_20901057/<w>.nii", 2),
        ],
    )
    def test_folders_of_files_words_with_numbers(self, tmp_path: Path, pattern: str, people: int) -> None:
        listing = read(tmp_path, *expand(*pattern.split(), p=("1", "2"), w=("T1", "FLAIR")))
        assert len(visits(listing)) == people

    def test_a_copy_with_a_mask_is_used(self, tmp_path: Path) -> None:
        paths = expand(
            "P<p>/<d>/<w>.nii", "P<p>/registered/lesion.nii", p=("1", "2"), d=("native", "registered"), w=("T1",)
        )
        used = roles(read(tmp_path, *paths))
        assert set(used) == {path for path in paths if "registered" in path}

    def test_visits_in_brackets(self, tmp_path: Path) -> None:
        for pair in (("1st", "2nd"), ("pre", "post")):
            listing = read(tmp_path / pair[0], *expand("P<p> (<v>)/<w>.nii", p=("7", "8"), v=pair, w=("T1", "T2")))
            assert {name: len(found) for name, found in visits(listing).items()} == {"P7": 2, "P8": 2}

    def test_folders_of_processing_are_no_visits(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("P<p>/<v>/<w>.nii", p=("7", "8"), v=("orig", "registered"), w=("T1", "T2")))
        assert {name: len(found) for name, found in visits(listing).items()} == {"P7": 1, "P8": 1}

    def test_study_uids_alone_are_told_apart(self, tmp_path: Path) -> None:
        assert len(visits(read(tmp_path, *expand("1.2.840.113619.2.5.<n>/T1.nii", n=("7", "8"))))) == 2

    def test_a_visit_before_names_that_anybody_has(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("<v>_sub0<p>/T1.nii", v=("bl", "m12"), p=("1", "2")))
        assert {name: len(found) for name, found in visits(listing).items()} == {"sub01": 2, "sub02": 2}

    def test_a_word_for_masks_before_a_number_names_a_patient(self, tmp_path: Path) -> None:
        paths = expand("VS-SEG-00<p>/<m>/<m>.nii", "VS-SEG-00<p>/<m>/seg.nii", p=("1", "2"), m=("T1", "T2"))
        listing = read(tmp_path, *paths)
        assert {scan.subject: scan.modalities for scan in listing.scans} == dict.fromkeys(
            ("VS-SEG-001", "VS-SEG-002"), ("T1", "T2")
        )

    def test_what_spm_writes_beside_an_image_is_of_its_patient(self, tmp_path: Path) -> None:
        paths = expand("<m>S0<p>_T1.nii", m=("", "m", "wm", "c1", "y_"), p=("7", "8"))
        listing = read(tmp_path, *paths)
        assert set(visits(listing)) == {"S07", "S08"}
        assert set(roles(listing)) == {"S07_T1.nii", "S08_T1.nii"}
        small = read(tmp_path / "small", *expand("s0<p>_T1.nii", "ms0<p>_T1.nii", p=("7", "8")))
        assert len(visits(small)) == 4  # `ms07` may be the seventh with multiple sclerosis

    def test_files_called_for_the_number_of_their_series_are_of_one_scan(self, tmp_path: Path) -> None:
        series = ("5-t1_mprage_sag/resources/NIFTI/files/5", "7-t2_space_dark_fluid/resources/NIFTI/files/7")
        listing = read(tmp_path, *expand("S0<p>_MR2019030<p>/scans/<s>.nii.gz", p=("1", "2"), s=series))
        assert {scan.subject: scan.modalities for scan in listing.scans} == dict.fromkeys(
            ("S01", "S02"), ("FLAIR", "T1")
        )

    @pytest.mark.parametrize("name", ["Glioma_Seg_Study_07", "wmh_study_3"])
    def test_study_behind_a_word_for_masks_ends_a_name(self, tmp_path: Path, name: str) -> None:
        listing = read(tmp_path, *expand(f"{name}_<w>.nii", w=("FLAIR", "T1")))
        assert list(visits(listing)) == [name]
        assert set(roles(listing).values()) == {"FLAIR", "T1"}

    def test_a_study_of_masks_holds_images(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("Mask_study/Non<p>/<w>.nii", p=("P1", "P2"), w=("FLAIR", "T1")))
        assert {scan.modalities for scan in listing.scans} == {("FLAIR", "T1")}
        listing = read(tmp_path / "one", "LesionSegmentation/P1/T1.nii", "LesionSegmentation/P2/T1.nii")
        assert {scan.subject: scan.modalities for scan in listing.scans} == {"P1": ("T1",), "P2": ("T1",)}
        paths = expand("images/P1/<w>.nii", "Mask_files/P1/<w>.nii", w=("FLAIR", "T1"))
        (scan,) = read(tmp_path / "both", *paths).scans
        assert [file.role for file in scan.files] == ["FLAIR", "T1", MASK]

    @pytest.mark.parametrize("beside", [(), ("Controls/C3/T1.nii", "Controls/C3/FLAIR.nii")])
    def test_a_study_of_masks_holds_images_and_masks_in_folders(self, tmp_path: Path, beside: tuple[str, ...]) -> None:
        files = ("Data/GADO.nii", "Data/FLAIR.nii", "Masks/Consensus.nii")
        listing = read(tmp_path, *beside, *expand("MSSEG-Training/Center_0<c>/Patient_1/<f>", c=("1", "2"), f=files))
        of_patients = [scan for scan in listing.scans if "Center" in scan.subject]
        assert [[file.role for file in scan.files] for scan in of_patients] == [["FLAIR", "T1ce", MASK]] * 2
        assert not listing.rejected

    def test_repeats_below_people_without_numbers_are_theirs(self, tmp_path: Path) -> None:
        paths = expand("<p>/mri/T1.mgz", "<p>/mri/orig/001.mgz", p=("hanna", "jonas"))
        assert set(visits(read(tmp_path, *paths, "hanna/mri/orig/002.mgz"))) == {"hanna", "jonas"}

    @pytest.mark.parametrize("around", ["zenodo_7890123", "MRI_Data_v2"])
    def test_people_without_numbers_in_a_folder_around_all(self, tmp_path: Path, around: str) -> None:
        listing = read(tmp_path, *expand(f"{around}/<p>/<w>.nii", p=("anna", "bert", "carl"), w=("T1", "FLAIR")))
        assert set(visits(listing)) == {"anna", "bert", "carl"}
        assert any(f"{around}/anna, {around}/bert" in sentence for sentence in listing.told) == (
            around == "zenodo_7890123"
        )

    def test_what_all_names_say_behind_a_patient_is_nobody(self, tmp_path: Path) -> None:
        paths = expand(
            "R1/ATL_00<p>/ses_1/ATL_00<p>_ses_1_space_MNI152NLin2009aSym_<w>.nii", p=("1", "2"), w=("T1w", "mask")
        )
        assert set(visits(read(tmp_path, *paths))) == {"ATL_001", "ATL_002"}

    @pytest.mark.parametrize("name", ["MSSEG01", "T2DM01"])
    def test_a_word_and_a_number_in_one_are_a_patients(self, tmp_path: Path, name: str) -> None:
        paths = expand(f"{name}<p>/{name}<p>_<w>.nii", f"{name}<p>_<w>.nii", p=("2", "3"), w=("T1", "FLAIR"))
        for place, some in (("folders", paths[:4]), ("flat", paths[4:])):
            listing = read(tmp_path / place, *some)
            assert {scan.subject: scan.modalities for scan in listing.scans} == dict.fromkeys(
                (f"{name}2", f"{name}3"), ("FLAIR", "T1")
            )

    def test_visits_by_a_letter_below_people_without_numbers(self, tmp_path: Path) -> None:
        alike = read(tmp_path / "alike", *expand("<p>/<v>/T1.nii", p=("Anna", "Bert"), v=("V01", "V02")))
        other = read(tmp_path / "other", "Anna/V02/T1.nii", "Anna/baseline/T1.nii", "Anna_ses-M06_T1w.nii")
        assert {name: len(found) for name, found in visits(alike).items()} == {"Anna": 2, "Bert": 2}
        assert {name: len(found) for name, found in visits(other).items()} == {"Anna": 3}

    @pytest.mark.parametrize(
        "pattern", ["sub-07/<v>/anat/sub-07_<v>_T1w.nii", "sub-07/anat/sub-07_<v>_T1w.nii", "sub-07_<v>_T1w.nii"]
    )
    @pytest.mark.parametrize("visit", ["V<n>", "2019010<n>", "month0<n>"])
    def test_other_words_for_sessions_of_bids(self, tmp_path: Path, pattern: str, visit: str) -> None:
        listing = read(
            tmp_path, *expand(pattern.replace("<v>", visit), n=("1", "2")), "sub-08/anat/sub-08_T1_w_T1w.nii"
        )
        assert {name: len(found) for name, found in visits(listing).items()} == {"sub-07": 2, "sub-08": 1}

    @pytest.mark.parametrize("pattern", ["<p>/<v>/T1w.nii", "<p>/<v>/anat/<p>_T1w.nii", "<p>_<v>_T1w.nii"])
    def test_examinations_of_bids_without_a_session(self, tmp_path: Path, pattern: str) -> None:
        some = [pattern.replace("<v>", "MRI_<n>")] + ["<p>/<v>/T1w.nii"] * ("_<v>" not in pattern)
        for path, names in zip(some, (("3", "4"), ("test", "retest")), strict=False):
            paths = expand(path, p=("sub-01", "sub-02"), n=names, v=names)
            found = visits(read(tmp_path / names[0], *paths))
            assert {name: len(sessions) for name, sessions in found.items()} == {"sub-01": 2, "sub-02": 2}

    def test_folders_of_bids_that_were_processed_are_no_sessions(self, tmp_path: Path) -> None:
        assert visits(read(tmp_path, *expand("sub-01/<d>/T1w.nii", d=("orig", "registered")))) == {"sub-01": {"1"}}

    @pytest.mark.parametrize("pattern", ["sub-07/anat/sub-07_<v>_T1w.nii", "sub-07_<v>_T1w.nii"])
    def test_a_number_behind_a_sessions_letters(self, tmp_path: Path, pattern: str) -> None:
        listing = read(tmp_path, *expand(pattern, v=("ses-month_3", "ses-month_12")))
        assert visits(listing) == {"sub-07": {"ses-month_3", "ses-month_12"}}

    def test_a_number_behind_a_subjects_letters(self, tmp_path: Path) -> None:
        paths = expand("sub-HUG_<p>_ses-d<n>_T1w.nii", "sub-UKE_<p>_T1w.nii", p=("21", "22"), n=("1", "2"))
        found = {name: len(sessions) for name, sessions in visits(read(tmp_path, *paths)).items()}
        assert found == {"sub-HUG_21": 2, "sub-HUG_22": 2, "sub-UKE_21": 1, "sub-UKE_22": 1}

    def test_a_man_is_no_month(self, tmp_path: Path) -> None:
        assert set(visits(read(tmp_path, *expand("<p>/<w>.nii", p=("101M", "102F"), w=("T1", "FLAIR"))))) == {
            "101M",
            "102F",
        }


class TestCopiesOfShares:
    """Copies by their words."""

    def test_a_conflicted_copy_is_no_visit(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "P 1/T1.nii", "P 1/T1 (conflicted copy 2021-03-04 101112).nii", "P 1/FLAIR.nii")
        assert set(roles(listing)) == {"P 1/T1.nii", "P 1/FLAIR.nii"}
        assert [str(one.reason) for one in listing.rejected] == ["duplicate"]

    def test_a_backup_of_a_data_set_is_nobody_else(self, tmp_path: Path) -> None:
        paths = expand("<d>sub-0<p>/anat/sub-0<p>_T1w.nii", d=("", "backup_2021/"), p=("1", "2"))
        listing = read(tmp_path, *paths)
        assert set(visits(listing)) == {"sub-01", "sub-02"}
        assert not any("backup" in path for path in roles(listing))


@pytest.mark.parametrize(
    "path", ["P1/\u2460_T1.nii", "P1/\u00b2_T1.nii", "\u75c5\u4eba1/\u2460/\u2460_T1.nii", "imagesTr/P\u2460_0001.nii"]
)
def test_a_sign_that_is_a_digit_and_no_number_stops_nothing(tmp_path: Path, path: str) -> None:
    listing = read(tmp_path, path, "P2/P2_T1.nii")
    assert {file.path for scan in listing.scans for file in scan.files} == {path, "P2/P2_T1.nii"}


def test_space_is_a_pulse_or_where_an_image_lies() -> None:
    said = {name: describe(name).role for name in ("t2-space-dark-fluid-sag", "T2_SPACE-FLAIR", "T1w_space-FLAIR")}
    assert said == {"t2-space-dark-fluid-sag": "FLAIR", "T2_SPACE-FLAIR": "FLAIR", "T1w_space-FLAIR": "T1"}
    assert [describe(name).role for name in ("sub_1_inv_1_MP2RAGE", "UNI_MP2RAGE")] == ["inversion", "T1"]


def test_words_for_a_flair_among_those_of_processing() -> None:
    assert [describe(words).role for words in ("brain_fl_ants", "fl_reg", "brain_fl2d")] == ["FLAIR", "FLAIR", "T2*"]


def test_labels_may_have_a_channels_number(tmp_path: Path) -> None:
    listing = read(tmp_path, *expand("Task1_X/<d>/sub001_00<p>_0000.nii", d=("imagesTr", "labelsTr"), p=("1", "2")))
    assert [[file.role for file in scan.files] for scan in listing.scans] == [["channel-0", MASK]] * 2
    assert not listing.rejected


def test_what_stands_behind_a_date_may_be_a_patient(tmp_path: Path) -> None:
    paths = expand("STX05_2019010<p>_CRY1101<p>/T1.nii", p=("1", "2", "3"))
    assert len(visits(read(tmp_path, *paths))) == 3


def test_who_is_in_several_folds_is_one_person(tmp_path: Path) -> None:
    paths = ("fold_0/train/T1/GL01.nii", "fold_0/val/T1/GL02.nii", "fold_1/train/T1/GL02.nii", "fold_1/val/T1/GL01.nii")
    assert set(visits(read(tmp_path, *paths))) == {"GL01", "GL02"}


class TestBeforeAndBehind:
    """Visits that stand before the patients, letters and years behind them, and groups."""

    @pytest.mark.parametrize(
        "pattern",
        [
            "<v>/P01/<w>.nii",
            "<v>_GBM00<p>_<w>.nii",
            "E1_GBM00<p>_<w>.nii E2_GBM00<p>_<w>.nii",
            "M0_GBM00<p>_<w>.nii M6_GBM00<p>_<w>.nii",
            "P0<p>_I/<w>.nii P0<p>_II/<w>.nii",
            "P0<p>_early/<w>.nii P0<p>_late/<w>.nii",
            "P0<p>a/<w>.nii P0<p>b/<w>.nii",
            "P0<p>pre/<w>.nii P0<p>postop/<w>.nii",
            "P0<p>_visitA/<w>.nii P0<p>_visitB/<w>.nii",
            "Meier-<n>_2019_<w>.nii Meier-<n>_2020_<w>.nii",
            "GBM0<p>_01.02.19_<w>.nii GBM0<p>_13.05.20_<w>.nii",
            "GBM0<p>/01-02-19/<w>.nii GBM0<p>/13-05-20/<w>.nii",
            "GBM0<p>_cycle1_<w>.nii GBM0<p>_cycle10_<w>.nii",
            "GBM0<p>_2019Q1_<w>.nii GBM0<p>_2019Q3_<w>.nii",
            "2021_Pat<p>/<w>.nii 2022_Pat<p>/<w>.nii",
            "P00<p>_20240115_MR_ACC12<p>/<w>.nii P00<p>_20250120_MR_ACC87<p>/<w>.nii",
            "HC0<p>_IBS_20220805_100824_145000/<w>.nii HC0<p>_IBS_20230101_090807_222000/<w>.nii",
            "003456<p>_RA1990<p>11_<w>.nii 003456<p>_RA2077<p>13_<w>.nii",
            "GK.10<p>/Course_4<p>/GK.10<p>_<w>.nii GK.10<p>/Course_5<p>/GK.10<p>_<w>.nii",
        ],
    )
    def test_are_visits(self, tmp_path: Path, pattern: str) -> None:
        pattern = pattern.replace("P01", "P0<p>") if pattern.startswith("<v>/") else pattern
        words = {"p": ("1", "2", "3"), "n": ("Anna", "Bernd", "Cleo"), "v": ("1", "2"), "w": ("FLAIR", "T2")}
        found = visits(read(tmp_path, *expand(*pattern.split(), **words)))
        assert [len(sessions) for sessions in found.values()] == [2, 2, 2], found

    @pytest.mark.parametrize(
        "groups",
        [
            ("grade2", "grade3"),
            ("WHO2", "WHO4"),
            ("IDH1mut", "IDH1wt"),
            ("GE3T", "Siemens3T"),
            ("Station 3", "Station 4"),
        ],
    )
    def test_a_group_with_a_number_is_no_patient(self, tmp_path: Path, groups: tuple[str, ...]) -> None:
        found = visits(read(tmp_path, *expand("<g>/<p>/<w>.nii", g=groups, p=("01", "02", "03"), w=("FLAIR", "T2"))))
        assert [len(sessions) for sessions in found.values()] == [1] * 6, found

    @pytest.mark.parametrize("pattern", ["C<c>_P0<p>/<w>.nii", "UKE<c>/00<p>/<w>.nii", "1<c>-000<p>/<w>.nii"])
    def test_a_centre_is_no_visit(self, tmp_path: Path, pattern: str) -> None:
        found = visits(read(tmp_path, *expand(pattern, c=("1", "2"), p=tuple("123456789"), w=("FLAIR", "T2"))))
        assert len(found) == 18, found

    @pytest.mark.parametrize("pair", [("Pat0<p>", "pat0<p>"), ("P<p>", "P00<p>")])
    def test_another_spelling_is_nobody_else(self, tmp_path: Path, pair: tuple[str, str]) -> None:
        paths = [*expand(f"baseline/{pair[0]}/T1.nii", p=("1", "2")), *expand(f"fu1/{pair[1]}/T1.nii", p=("1", "2"))]
        listing = read(tmp_path, *paths)
        assert len(visits(listing)) == 2
        assert "differ from others in case or zeros" in "".join(listing.told)
        paths = expand("c/<q>/T1.nii", q=(pair[0].replace("<p>", "7"), pair[1].replace("<p>", "7")))
        apart = read(tmp_path / "c", *paths)
        assert len(visits(apart)) == 2
        assert "if they are one" in "".join(apart.told)

    def test_what_may_be_a_place_before_a_patient_is_told(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("<v>_P0<p>_<w>.nii", v=("A", "B"), p=("1", "2"), w=("T1", "T2")))
        assert len(visits(listing)) == 4
        assert "if they begin with a visit" in "".join(listing.told)

    def test_what_is_told_names_nobody_with_a_key(self, tmp_path: Path) -> None:
        read(tmp_path, *expand("P0<p>a/<w>.nii", "P0<p>b/<w>.nii", p=("1", "2"), w=("FLAIR", "T2")))
        (plain,) = find(str(tmp_path)).told
        (hashed,) = find(str(tmp_path), "auto", b"a-test-secret-of-more-than-sixteen-bytes", hash_subjects=True).told
        assert " (a, b) were read" in plain
        assert "(" not in hashed
        assert hashed.endswith("manifest")


class TestWhoseMask:
    """A person's mask goes before a program's, and parts of a lesion are no whole."""

    @pytest.mark.parametrize(
        "name", ["P1_pred_seg", "pred_seg", "P1_auto_seg", "P1_nnUNet_seg", "P1_AI_seg", "P1_prediction"]
    )
    @pytest.mark.parametrize("truth", ["P1_seg", "P1_lesion"])
    def test_a_program_comes_last(self, tmp_path: Path, name: str, truth: str) -> None:
        found = read(tmp_path, "P1/P1_flair.nii", f"P1/{name}.nii", f"P1/{truth}.nii")
        assert roles(found) == {"P1/P1_flair.nii": "FLAIR", f"P1/{truth}.nii": MASK}
        assert [one.paths for one in found.rejected] == [(f"P1/{name}.nii",)]

    def test_masks_of_parts_alone_are_unclear(self, tmp_path: Path) -> None:
        found = read(tmp_path, "P1/t1ce.nii", *(f"P1/{part}.nii" for part in ("edema", "enhancing", "necrosis")))
        assert roles(found) == {"P1/t1ce.nii": "T1ce"}
        assert [str(one.reason) for one in found.rejected] == ["unknown_labels"] * 3

    @pytest.mark.parametrize(
        "names",
        ["seg_NCR seg_ED seg_ET", "mask_NETC mask_SNFH mask_ET mask_RC", "ET_mask ED_mask NCR_mask",
         "oedema_mask cavity_mask", "nonenhancing_mask enhancing_mask", "core_pred_seg edema_pred_seg"],
    )  # fmt: skip
    def test_however_parts_are_called(self, tmp_path: Path, names: str) -> None:
        found = read(tmp_path, "P1/t1ce.nii", *(f"P1/{name}.nii" for name in names.split()))
        assert roles(found) == {"P1/t1ce.nii": "T1ce"}
        assert {str(one.reason) for one in found.rejected} == {"unknown_labels"}

    def test_a_mask_of_all_goes_before_those_of_parts(self, tmp_path: Path) -> None:
        found = read(tmp_path, "P1/t1ce.nii", "P1/tumour.nii", "P1/edema.nii")
        assert roles(found) == {"P1/t1ce.nii": "T1ce", "P1/tumour.nii": MASK}


class TestVisits:
    """A patient who came twice is one subject with two sessions."""

    @pytest.mark.parametrize(
        ("pattern", "words"),
        [
            ("<p>/<v>/FLAIR.nii.gz", ("20190102", "2020-03-04")),
            ("<p>/<v>/T1.nii", ("Timepoint_1", "Timepoint_2")),
            ("<p>/<v>/T1.nii", ("ses-M00", "ses-M12")),
            ("<p>_<v>_T1.nii", ("ses-M00", "ses-M12")),
            ("<p>/<v>/T1.nii", ("baseline", "month06", "V02", "preop", "postop")),
            ("<p>/<v>/<p>_<v>_T1.nii", ("ses-01", "ses-02")),
            ("<p>/<v>/T1.nii", ("week-000-1", "week-000-2", "week-040")),
            ("<p>/<v>/T1.nii", ("pre", "post")),
            ("<p>/<v>/T1.nii", ("1", "2")),
            ("<p>_<v>_T1.nii", ("01", "02")),
            ("<p>_<v>_T1.nii", ("m06", "m12")),
            ("<p>_T1_<v>.nii", ("20190102", "20190709")),
            ("<v>/<p>/T1.nii", ("visit1", "visit2")),
            ("<v>/<p>/T1.nii", ("2019", "2020")),
            ("<p>/MR_<v>_brain/T1.nii", ("02.01.2019", "09.07.2019")),
            ("<p>/<v>/NIFTI/T1.nii", ("Zeitpunkt1", "Zeitpunkt2")),
            ("<p>/<v>/T1.nii", ("术前", "术后")),
            ("<p>/<v>/T1.nii", ("2019年01月02日", "第2次")),
            ("<p>/<v>/T1.nii", ("pré-opératoire", "post-opératoire")),
            ("<v>_<p>_T1.nii", ("V1", "V2")),
            ("<p>_<v>/mri/T1.mgz", ("tp1", "tp2.long.x_base")),
        ],
        ids=lambda value: value if isinstance(value, str) else ",".join(value),
    )
    def test_of_two_patients(self, tmp_path: Path, pattern: str, words: tuple[str, ...]) -> None:
        listing = read(tmp_path, *expand(pattern, p=("P01", "P02"), v=words))
        assert not listing.rejected
        found = visits(listing)
        assert set(found) == {"P01", "P02"}
        assert {len(sessions) for sessions in found.values()} == {len(words)}

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (("X-017_00_0000", "X-017_01_0412"), {"X-017": {"00_0000", "01_0412"}}),
            (("S1_00_0000", "S1_01_0090", "S2_01_0041"), {"S1": {"00_0000", "01_0090"}, "S2": {"01_0041"}}),
            (("GLI12_B", "GLI12_F1"), {"GLI12": {"1", "F1"}}),
            (("A1_01_001", "A1_01_002"), {"A1_01_001": {"1"}, "A1_01_002": {"1"}}),  # a site's two patients
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_named_flat(self, tmp_path: Path, names: tuple[str, ...], expected: dict[str, set[str]]) -> None:
        listing = read(tmp_path, *expand("<n>_<w>.nii", n=names, w=("T1", "T2")))
        assert visits(listing) == expected
        assert any("one patient each" in line for line in listing.told) == (len(expected) < len(names))

    def test_above_the_subjects(self, tmp_path: Path) -> None:
        paths = expand("<s>/<p>_T1w.nii", s=("ses-1", "ses-2"), p=("sub-01", "sub-02"))
        assert visits(read(tmp_path, *paths)) == {"sub-01": {"ses-1", "ses-2"}, "sub-02": {"ses-1", "ses-2"}}

    def test_images_of_other_kinds_below_a_patient_are_theirs(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "X/1/FLAIR.nii", "X/1/T1.nii", "X/1/V.MR_DWI.706/V.MR_DWI.706.nii", "X/2/T1.nii")
        assert set(visits(listing)) == {"X_1", "X_2"}

    def test_numbers_behind_long_numbers(self, tmp_path: Path) -> None:
        paths = expand("x/UPENN-GBM-<n>/UPENN-GBM-<n>_T1.nii", n=("00001_11", "00001_21", "00002_11"))
        assert visits(read(tmp_path, *paths)) == {"UPENN-GBM-00001": {"11", "21"}, "UPENN-GBM-00002": {"11"}}

    def test_a_doubtful_reading_is_told(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("<p>_<v>_T1.nii", p=("A07", "A08"), v=("1", "2")))
        assert visits(listing) == {"A07": {"1", "2"}, "A08": {"1", "2"}}
        assert len(listing.told) == 1
        assert "manifest" in listing.told[0]

    def test_folders_below_the_case_that_files_name_are_nobody(self, tmp_path: Path) -> None:
        paths = [
            f"ADNI/{p}/MPRAGE/2006-04-18_08_20_30.0/I{n}/ADNI_{p}_MR_MPRAGE_br_raw_20060418193538653_1_S134_I{n}.nii"
            for n, p in ((13722, "002_S_0295"), (13725, "002_S_0413"))
        ]
        assert visits(read(tmp_path, *paths)) == {"002_S_0295": {"20060418"}, "002_S_0413": {"20060418"}}

    @pytest.mark.parametrize("folder", ["disc1/<p>_<v>/PROCESSED/T88_111", "disc1/<p>_<v>/RAW"])
    def test_a_visit_at_the_end_of_a_patients_folder(self, tmp_path: Path, folder: str) -> None:
        paths = expand(f"{folder}/<p>_<v>_mpr_n4_anon_111_t88_gfc.nii", p=("OAS1_0061", "OAS1_0080"), v=("MR1", "MR2"))
        assert visits(read(tmp_path, *paths)) == {"OAS1_0061": {"MR1", "MR2"}, "OAS1_0080": {"MR1", "MR2"}}

    @pytest.mark.parametrize(
        ("pattern", "persons"),
        [
            ("STUDY/<p>_T1.nii", {"PAT0001": ("190312", "200511"), "PAT0002": ("180101",)}),
            ("STUDY/STUDY-<p>/STUDY-<p>_T1.nii", {"0002": ("01", "02"), "0005": ("01",)}),
            ("GBM<p>/T1.nii", {"001": ("a", "b"), "002": ("a",)}),
            ("<p>/T1.nii", {"P03": ("pre", "post"), "P04": ("pre", "post1", "post2")}),
            ("BRATS/pat<p>/T1.nii", {"105": ("0001", "0104"), "117": ("0001",)}),
            ("<p>/T1.nii", {"1000011": ("202_2_0", "202_3_0"), "1000027": ("202_2_0", "202_3_0")}),
        ],
    )
    def test_of_some_patients(self, tmp_path: Path, pattern: str, persons: dict[str, tuple[str, ...]]) -> None:
        names = [
            f"{person}{'' if len(visit) == 1 else '_'}{visit}" for person, visits in persons.items() for visit in visits
        ]
        found = visits(read(tmp_path, *expand(pattern, p=tuple(names))))
        assert sorted(map(len, found.values())) == sorted(map(len, persons.values()))

    @pytest.mark.parametrize("days", [("190312", "200511"), ("120319", "310120"), ("00_0000", "01_0106")])
    def test_days_and_counted_visits_below_a_patient(self, tmp_path: Path, days: tuple[str, ...]) -> None:
        paths = expand("G-<p>/<v>/T1.nii", p=("01", "02"), v=days)
        assert visits(read(tmp_path, *paths)) == {"G-01": {*days}, "G-02": {*days}}

    def test_six_digits_that_are_no_days_are_people(self, tmp_path: Path) -> None:
        paths = expand("Study2/<p>/T1.nii", p=("190312", "104577")) + expand("S3_<p>_T1.nii", p=("190312", "104577"))
        assert len(visits(read(tmp_path, *paths))) == 4

    def test_subject_and_session_in_one_folder_of_bids(self, tmp_path: Path) -> None:
        paths = expand("sub-<p>_ses-<v>/anat/sub-<p>_ses-<v>_T1w.nii", p=("01", "02"), v=("1", "2"))
        paths += expand("derivatives/freesurfer/<f>/mri/T1.mgz", f=("sub-01_ses-1", "sub-01_ses-1.long.sub-01"))
        assert visits(read(tmp_path, *paths)) == {"sub-01": {"ses-1", "ses-2"}, "sub-02": {"ses-1", "ses-2"}}

    def test_folders_that_repeat_and_go_on(self, tmp_path: Path) -> None:
        paths = expand("<p>/<p>_AD/<p>_AD_<v>_MR_1/T1.nii", p=("188", "189"), v=("01", "02"))
        assert [len(found) for found in visits(read(tmp_path, *paths)).values()] == [2, 2]

    def test_series_in_folders_and_names_of_their_own(self, tmp_path: Path) -> None:
        folders = "<p>_<v>_MR/unprocessed/<w>_MPR_vNav_4e/<p>_<v>_MR_<w>_vNav_4e.nii"
        files = "C3L-0<p>/2019-03-0<v>/<n>.000000-AX <w>-1123<n>.nii"
        pairs = [("4", "T1"), ("6", "T2")]
        paths = expand(folders, p=("HCA6001", "HCA6002"), v=("V1", "V2"), w=("T1w", "T2w"))
        paths += [path for n, w in pairs for path in expand(files, p="12", v="12", n=(n,), w=(w,))]
        listing = read(tmp_path, *paths)
        assert [len(found) for found in visits(listing).values()] == [2] * 4
        assert {scan.modalities for scan in listing.scans} == {("T1", "T2")}

    def test_a_year_and_a_number_are_no_date(self, tmp_path: Path) -> None:
        found = visits(read(tmp_path, *expand("Glioma_2013_<p>_1_T1.nii", p=("10", "11"))))
        assert len(found) == 2

    def test_folders_below_a_patient_that_name_nobody(self, tmp_path: Path) -> None:
        paths = expand("P0<p>/BraTS/<v>/<w>.nii", p="12", v=("baseline", "fu1"), w=("t1", "odd"))
        assert visits(read(tmp_path, *paths)).keys() == {"P01", "P02"}

    def test_numbers_of_series_are_no_visits(self, tmp_path: Path) -> None:
        paths = [f"{p}/{n}_{word}.nii" for p in ("P1", "P2") for n, word in (("003", "t1_mprage"), ("004", "flair"))]
        assert visits(read(tmp_path, *paths)) == {"P1": {"1"}, "P2": {"1"}}

    def test_t1_may_be_the_first_time_point(self, tmp_path: Path) -> None:
        paths = expand("<p>/<t>/<p>_<t>_<m>.nii", p=("P1", "P2"), t=("T1", "T2"), m=("T1", "T2", "FLAIR", "MASK"))
        listing = read(tmp_path, *paths)
        assert visits(listing) == {"P1": {"T1", "T2"}, "P2": {"T1", "T2"}}
        assert {scan.modalities for scan in listing.scans} == {("FLAIR", "T1", "T2")}
        flat = read(tmp_path / "flat", *(path.rpartition("/")[2] for path in paths))
        assert visits(flat) == visits(listing)

    def test_a_mask_of_one_of_two_visits_must_say_which(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "P1/v1/T1.nii", "P1/v2/T1.nii", "P1/v1/seg.nii", "P1/gt.nii")
        assert roles(listing)["P1/v1/seg.nii"] == MASK
        assert [item.paths for item in listing.rejected] == [("P1/gt.nii",)]


class TestPatients:
    """Two patients are never one subject."""

    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (
                expand("<p>/pre/FLAIR.nii", p=("Utrecht/0", "Utrecht/2", "Singapore/0")),
                {"Utrecht_0", "Utrecht_2", "Singapore_0"},
            ),
            (expand("<p>/mri/T1.mgz", p=("bert", "ernie")), {"bert", "ernie"}),
            (
                expand("Center_<c>/Patient_01/Raw/T1.nii", c=("01", "07")),
                {"Center_01_Patient_01", "Center_07_Patient_01"},
            ),
            (expand("<p>/T1/image.nii", p=("HC01", "HC02")), {"HC01", "HC02"}),
            (expand("SUBJECTS/<p>/1_T1/NIFTI/T1.nii", p=("EGD-1", "EGD-2")), {"EGD-1", "EGD-2"}),
            (expand("IXI-T1/<p>-Guys-0828-T1.nii", p=("IXI002", "IXI012")), {"IXI002-Guys-0828", "IXI012-Guys-0828"}),
            (expand("<p>_T1.nii", p=("TCGA-02-0001", "TCGA-06-0122")), {"TCGA-02-0001", "TCGA-06-0122"}),
            (expand("T1_<p>.nii", p=("001", "002")), {"001", "002"}),
            (expand("<p>_T1.nii", p=("01-001", "01-002", "02-001")), {"01-001", "01-002", "02-001"}),
            (
                expand("Center<c>/<p>/T1.nii", c="AB", p=("01-001", "01-002")),
                {"CenterA_01-001", "CenterA_01-002", "CenterB_01-001", "CenterB_01-002"},
            ),
            (expand("Trial13/<p>/T1.nii", p=("02-0001", "06-0122")), {"02-0001", "06-0122"}),
            (expand("<p>_T1.nii", p=("Mother_FAM1", "Child_FAM1", "FAM1")), {"Mother_FAM1", "Child_FAM1", "FAM1"}),
            (expand("<g>/<g>_a1/T1.nii", g=("Tumor", "lesion")), {"Tumor_a1", "lesion_a1"}),
            (expand("<p>_T1.nii", p=("BM_001", "BM_002", "C_001")), {"BM_001", "BM_002", "C_001"}),
            (expand("<p>_T1.nii", p=("MS_lesion_P1", "brain_tumor_07")), {"MS_lesion_P1", "brain_tumor_07"}),
            (
                expand("<p>_T1.nii", p=("GT_02", "PD_014", "Lesion01", "tumour7")),
                {"GT_02", "PD_014", "Lesion01", "tumour7"},
            ),
            (
                expand("<p>/<p>_T1.nii", p=("GT_02", "MASK_study_3", "SEG2020_01")),
                {"GT_02", "MASK_study_3", "SEG2020_01"},
            ),
            (expand("<p>/v1/T1.nii", p=("QIN-DSC-MRI-01", "QIN-DSC-MRI-02")), {"QIN-DSC-MRI-01", "QIN-DSC-MRI-02"}),
            (expand("<s>/images/1.nii", s=("train", "test")), {"train_1", "test_1"}),
            (expand("imagesTr/<p>_<c>.nii", p=("case_001", "case_002"), c=("0000", "0001")), {"case_001", "case_002"}),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_names(self, tmp_path: Path, paths: list[str], names: set[str]) -> None:
        listing = read(tmp_path, *paths)
        assert not listing.rejected
        assert set(visits(listing)) == names
        assert all(len(scan.files) == 1 or "T1" not in scan.modalities for scan in listing.scans)
        assert MASK not in roles(listing).values()

    def test_zeros_before_a_number_make_nobody_else(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "P001/P1_T1.nii", "P001/1_FLAIR.nii", "P002/p-2_T1.nii")
        assert visits(listing) == {"P001": {"1"}, "P002": {"1"}}

    def test_a_word_before_the_whole_name_of_another(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "NICU_010_T1.nii", "NICU_012_T1.nii", "Zmap_NICU_010_ADC.nii")
        assert [scan.modalities for scan in listing.scans] == [("T1", "ADC"), ("T1",)]
        assert "Zmap_NICU_010" in listing.told[0]

    def test_one_name_at_two_hospitals(self, tmp_path: Path) -> None:
        listing = read(tmp_path / "a", *expand("Hospital_<c>/GBM001/T1.nii", c="AB"))
        assert set(visits(listing)) == {"Hospital_A_GBM001", "Hospital_B_GBM001"}
        assert "GBM001" in listing.told[0]
        other = read(tmp_path / "b", "Hospital_A/GBM001/T1.nii", "Hospital_B/GBM001/FLAIR.nii", "Site/GBM2/T1.nii")
        assert set(visits(other)) == {"GBM001", "GBM2"}
        numbers = read(tmp_path / "d", *expand("<c>/01-001/T1.nii", c=("east", "west")), "east/01-002/T1.nii")
        assert set(visits(numbers)) == {"east_01-001", "west_01-001", "01-002"}
        parts = read(tmp_path / "e", "east/01-001/T1.nii", "east/01-001/T2.nii", "west/01-001/seg.nii")
        assert [(scan.subject, len(scan.files)) for scan in parts.scans] == [("01-001", 3)]
        copies = read(tmp_path / "c", *expand("<c>/GBM001/T1.nii", c=("SiteA", "SiteA_processed")))
        assert set(visits(copies)) == {"GBM001"}

    @pytest.mark.parametrize(("kind", "people"), [("raw", {"A_sub-1", "B_sub-1"}), ("derivative", {"sub-1"})])
    def test_data_sets_of_bids_with_descriptions(self, tmp_path: Path, kind: str, people: set[str]) -> None:
        for place, said in (("A", "raw"), ("B", kind)):
            (tmp_path / place).mkdir()
            (tmp_path / place / "dataset_description.json").write_text(json.dumps({"DatasetType": said}))
        listing = read(tmp_path, "A/sub-1/anat/sub-1_T1w.nii", "B/sub-1/anat/sub-1_FLAIR.nii")
        assert set(visits(listing)) == people

    def test_images_of_no_known_kind_are_not_thrown_together(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "x/one.nii", "x/two.nii", "y/one.nii", "y/two.nii")
        assert visits(listing) == {"x": {"one", "two"}, "y": {"one", "two"}}

    def test_a_name_is_what_nobody_else_has(self) -> None:
        assert name_of(("a", "BraTS_1")) == "BraTS_1"
        assert name_of(("siteA", "P1")) == "siteA_P1"
        assert [is_generic(name) for name in ("P1", "patient 3", "0", "Meier")] == [True, True, True, False]

    def test_nothing_depends_on_the_order(self) -> None:
        chains = [("A", f"P{n}", str(v)) for n in range(4) for v in range(3)]
        uses = {chain: Use(frozenset({"T1"})) for chain in chains}
        assert people(uses) == people(dict(reversed(uses.items())))


class TestMasks:
    """A mask is a mask, an image an image."""

    def test_a_word_of_lesions_before_a_modality_that_is_there_makes_a_mask(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "R1/R1_FLAIR.nii", "R1/R1_Lesion_FLAIR.nii", "R2/R2_Lesion_FLAIR.nii")
        assert roles(listing) == {
            "R1/R1_FLAIR.nii": "FLAIR",
            "R1/R1_Lesion_FLAIR.nii": MASK,
            "R2/R2_Lesion_FLAIR.nii": "FLAIR",
        }

    def test_patients_may_be_called_as_masks_and_modalities_are(self, tmp_path: Path) -> None:
        paths = expand("<p>/<w>.nii", p=("ROI04", "SEG13"), w=("T1", "FLAIR"))
        listing = read(tmp_path, *paths, "T2DM_12_T1.nii", "T2DM_12_T2.nii")
        assert set(roles(listing).values()) == {"T1", "T2", "FLAIR"}
        assert set(visits(listing)) == {"ROI04", "SEG13", "T2DM_12"}

    def test_masks_of_a_folder_of_lesions_belong_to_images_elsewhere(self, tmp_path: Path) -> None:
        paths = expand("T1w/<p>_T1w.nii", "Lesions/<p>_lesion.nii", p=("hc_014", "ms_003"))
        assert {scan.files[-1].role for scan in read(tmp_path, *paths).scans} == {MASK}

    @pytest.mark.parametrize(
        "word",
        [
            "seg",
            "SEG",
            "Segm",
            "mask",
            "msk",
            "mask1",
            "wmh",
            "gtv",
            "tumorMask",
            "lesionMap",
            "lesion_bin",
            "strokeLesion",
            "腫瘍マスク",
            "LesionSeg",
            "StrokeMask",
            "lesMask",
            "T2lesion",
            "ManualSegmentation",
            "lesion",
            "Consensus",
            "GT",
            "roi",
            "label",
            "ground_truth",
            "lesion_mask",
            "Maske",
            "máscara",
            "maschera",
            "segmentación",
            "肿瘤标注",
        ],
    )
    def test_words(self, tmp_path: Path, word: str) -> None:
        listing = read(tmp_path, "P1/P1_T1.nii", f"P1/P1_{word}.nii", "P2_T1.nii", f"P2_{word}.nii")
        assert [[file.role for file in scan.files] for scan in listing.scans] == [["T1", MASK]] * 2

    def test_a_folder_of_masks(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "images/P1.nii", "labels/P1.nii", "images/P2.nii", "labels/P2.nii")
        assert [[file.role for file in scan.files] for scan in listing.scans] == [["image", MASK]] * 2

    def test_a_lesion_may_stand_before_a_patients_name(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("<w>_P0<p>.nii", w=("flair", "t1", "lesion"), p=("1", "2")))
        assert set(visits(listing)) == {"P01", "P02"}
        assert [[file.role for file in scan.files] for scan in listing.scans] == [["FLAIR", "T1", MASK]] * 2

    def test_a_lesion_comes_before_organs(self, tmp_path: Path) -> None:
        found = roles(read(tmp_path, "P1/T1.nii", *expand("P1/segmentations/<w>.nii", w=("brain", "eye", "lesion"))))
        assert found == {"P1/T1.nii": "T1", "P1/segmentations/lesion.nii": MASK}

    def test_words_with_a_dash_below_bids_folders(self, tmp_path: Path) -> None:
        paths = expand("sub-01/ses-01/<w>.nii", w=("T1", "FLAIR-reg", "TumorMask-CL"))
        assert sorted(roles(read(tmp_path, *paths)).values()) == ["FLAIR", "T1", MASK]

    def test_a_folder_named_for_a_class_makes_none(self, tmp_path: Path) -> None:
        assert set(roles(read(tmp_path, "Tumor/P1/T1.nii", "lesion/P2/T1.nii")).values()) == {"T1"}

    def test_a_folder_named_for_lesions_beside_images_does(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "FLAIR/P1.nii", "lesion/P1.nii", "FLAIR/P2.nii", "lesion/P2.nii")
        assert [[file.role for file in scan.files] for scan in listing.scans] == [["FLAIR", MASK]] * 2

    @pytest.mark.parametrize("word", ["brain_mask", "BrainMask", "bm", "aseg", "skull_strip_mask", "wm_seg", "wmparc"])
    def test_maps_of_anatomy_are_counted(self, tmp_path: Path, word: str) -> None:
        listing = read(tmp_path, "P1_T1.nii", "P1_seg.nii", f"P1_{word}.nii", "notes.txt")
        assert roles(listing) == {"P1_T1.nii": "T1", "P1_seg.nii": MASK}
        assert listing.kinds == {BRAIN: 1, ".txt": 1}

    def test_maps_made_of_an_image_begin_with_letters_before_its_name(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("S1/<w>.nii", w=("T1", "c1T1", "wc2T1", "y_T1")), "p1T1.nii", "p2T1.nii")
        assert roles(listing) == {"S1/T1.nii": "T1", "p1T1.nii": "T1", "p2T1.nii": "T1"}

    def test_a_folder_whose_name_ends_in_seg_may_hold_images(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("iSeg-2017/subject-1-<w>.nii", w=("T1", "T2", "label")))
        assert [file.role for file in listing.scans[0].files] == ["T1", "T2", MASK]

    def test_a_mask_that_says_what_it_shows_comes_first(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("0/<w>.nii", w=("FLAIR", "3DT1_mask", "wmh")))
        assert roles(listing)["0/wmh.nii"] == MASK

    def test_words_beside_a_modality(self, tmp_path: Path) -> None:
        listing = read(tmp_path, "Q1/Q1_FLAIR.nii", "Q1/Q1_FLAIR_lesion.nii")
        assert roles(listing) == {"Q1/Q1_FLAIR.nii": "FLAIR", "Q1/Q1_FLAIR_lesion.nii": MASK}

    def test_a_mask_that_was_corrected_comes_before_others_and_a_bare_one_last(self, tmp_path: Path) -> None:
        paths = expand("P1/<w>.nii", w=("T1", "tumorseg_FeTS", "tumorseg_manual_correction"))
        assert MASK in roles(read(tmp_path, *paths, "P2/T1.nii", "P2/mask.nii", "P2/seg.nii"))["P1/" + paths[2][3:]]
        assert roles(read(tmp_path, *paths))["P2/seg.nii"] == MASK

    def test_a_folder_of_labelled_scans_holds_images(self, tmp_path: Path) -> None:
        paths = expand("labeled/<p>/<w>_12_03_2018.nii", p=("A_B", "C_D"), w=("scan", "lesions_gt"))
        found = roles(read(tmp_path, *paths))
        assert {path: role for path, role in found.items() if role == MASK} == dict.fromkeys(paths[1::2], MASK)
        assert set(found) == set(paths)

    def test_a_minus_beside_a_plus_says_without_an_agent(self, tmp_path: Path) -> None:
        found = roles(read(tmp_path, *expand("P<p>/T1<w>.nii", p=("1", "2"), w=("-C", "+C"))))
        assert found == {f"P{p}/T1{sign}C.nii": role for p in "12" for sign, role in (("-", "T1"), ("+", "T1ce"))}

    def test_what_made_a_mask_is_nobody(self, tmp_path: Path) -> None:
        mask = "Patient-001/week-040/HD-GLIO-AUTO-segmentation/native/segmentation_CT1.nii"
        assert roles(read(tmp_path, "Patient-001/week-040/CT1.nii", mask))[mask] == MASK

    @pytest.mark.parametrize("best", ["Consensus", "STAPLE"])
    def test_the_consensus_comes_first(self, tmp_path: Path, best: str) -> None:
        masks = ("ManualSegmentation_1", "Manual_2", best)
        listing = read(tmp_path, "Patient_01/Raw_Data/3DFLAIR.nii", *(f"Patient_01/Masks/{name}.nii" for name in masks))
        assert roles(listing)[f"Patient_01/Masks/{best}.nii"] == MASK
        assert len(listing.rejected) == 2


class TestSites:
    """`sub-01` of two hospitals are two people, of two disks one."""

    @pytest.mark.parametrize(("places", "count"), [(("siteA", "siteB"), 2), (("disk1", "disk2"), 1)])
    def test_of_one_subject(self, tmp_path: Path, places: tuple[str, str], count: int) -> None:
        paths = [f"{one}/sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii" for n, one in enumerate(places)]
        listing = read(tmp_path, *paths)
        assert len(visits(listing)) == count
        assert any("of several data sets (sub-01)" in line for line in listing.told)


class TestModalities:
    """All words of a name tell its modality, not the first."""

    @pytest.mark.parametrize(
        ("word", "role"),
        [
            ("T1WI", "T1"), ("T1+C", "T1ce"), ("T1pre", "T1"), ("T1post", "T1ce"), ("CT1", "T1ce"), ("t1gd", "T1ce"),
            ("3DFLAIR", "FLAIR"), ("3DT1GADO", "T1ce"), ("t2_tirm_tra_dark-fluid_4", "FLAIR"), ("t2f", "FLAIR"),
            ("dark_fluid", "FLAIR"), ("fla", "FLAIR"), ("ceT1", "T1ce"), ("hrT2", "T2"),
            ("T1WKS", "T1ce"), ("t1_mpr_post", "T1ce"), ("mpr_c", "T1ce"), ("T1CWI", "T1ce"), ("ФЛАИР", "FLAIR"),
            ("FL_to_SRI_brain", "FLAIR"),
            ("Т1_с_контрастом", "T1ce"), ("Т2", "T2"),  # with Cyrillic letters
            ("t1_mprage_sag_p2_iso_KM_9", "T1ce"), ("T1_to_FLAIR", "T1"), ("T1_N4_brain_regtoMNI", "T1"),
            ("MP-RAGE__br_raw", "T1"), ("da-fl", "FLAIR"), ("e-THRIVE_T1", "T1"), ("rT1c", "T1ce"),
            ("T1CE_native", "T1ce"), ("T1sinGd", "T1"), ("MPRAGE_post", "T1ce"), ("T1_FLAIR", "T1"),
            ("T1conGd", "T1ce"), ("t1_mpr_ns_sag_cm", "T1ce"),
            ("T2s", "T2s"), ("T1_T2_ratio", "map"), ("T1_minus_T1c", "subtraction"), ("T1_relaxation", "map"),
            ("t2_fl2d_tra_hemo", "SWI"),
        ],
    )  # fmt: skip
    def test_words(self, tmp_path: Path, word: str, role: str) -> None:
        assert set(roles(read(tmp_path, f"P1/{word}.nii", f"P2/P2_{word}.nii")).values()) == {role}

    def test_t1_and_t2_of_one_channel_are_time_points(self, tmp_path: Path) -> None:
        paths = [*expand("<s>/P1_<t>_FLAIR_0000.nii", s=("train",), t=("T1", "T2")), "test/P9_T1_FLAIR_0000.nii"]
        listing = read(tmp_path, *paths)
        assert visits(listing) == {"P1": {"T1", "T2"}, "P9": {"T1"}}
        assert set(roles(listing).values()) == {"FLAIR"}
        alone = read(tmp_path / "alone", *expand("P1_<w>_FLAIR.nii", w=("T1", "T2")))
        assert sorted(roles(alone).values()) == ["FLAIR", "T1"]

    def test_a_case_stays_together(self, tmp_path: Path) -> None:
        words = ("flair", "T1", "t1gd", "t2", "adc", "swi", "subtraction", "seg", "brain_mask")
        listing = read(tmp_path, *(f"P5/P5_{word}.nii.gz" for word in words))
        (scan,) = listing.scans
        assert scan.modalities[:4] == FOUR
        assert set(scan.modalities[4:]) == {"ADC", "SWI", "subtraction"}
        assert scan.files[-1].role == MASK

    def test_the_plainest_name_stays(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("P1/<w>.nii", w=("t1_pre", "bravo", "t1_gd", "flair", "flair_brain")))
        assert {path for path, role in roles(listing).items() if role != "T1ce"} == {"P1/t1_pre.nii", "P1/flair.nii"}

    def test_a_word_before_a_modality_that_is_there_makes_no_visit(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("MS_0<p>/<w>.nii", p="12", w=("FLAIR", "T1", "odd_FLAIR")))
        assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1")] * 2
        assert {path.rpartition("/")[2] for one in listing.rejected for path in one.paths} == {"odd_FLAIR.nii"}

    def test_a_doubled_series_tears_no_visit_apart(self, tmp_path: Path) -> None:
        names = ("3-T1/T1pre", "4-T1/T1post", "5-FLAIR/FLAIR", "7-T1/dT1")
        scans = read(tmp_path, *expand("PGBM-001/2019-03-04/<w>.nii", w=names)).scans
        assert [scan.modalities for scan in scans] == [("FLAIR", "T1", "T1ce")]


class TestWords:
    """Names taken apart."""

    def test_visits(self) -> None:
        for text in ("Brats18_2013_2_1", "BraTS2021_00002", "IXI002-Guys-0828", "TCGA-02-0001", "3DT1", "P1"):
            assert take_visits(text) == ((), text)

    def test_stems(self) -> None:
        assert cut("1-LesionSeg-Flair").text == "1"
        assert cut("UPENN-GBM-00001_11_T1GD").tail == "T1GD"
        assert cut("P01FLAIR").text == "P01"
        assert cut("q[1]_T1").text == "q[1]"

    def test_folders(self) -> None:
        assert [folder(name).text for name in ("images_structural", "5_MASK", "anat2", "mri")] == [""] * 4
        assert folder("UCSF-PDGM-0433_FU001d_nifti").visits == ("FU001d",)
        assert kind_of("lesion") == "weak"
        assert describe("P1").role is None


@pytest.mark.parametrize(
    ("cases", "people"),
    [
        (("GBM7_baseline", "GBM7_month06", "GBM8_baseline"), {"GBM7": 2, "GBM8": 1}),
        (("P1_T1", "P1_T2", "P2_T1"), {"P1": 2, "P2": 1}),
        (("BraTS-GLI-02060-100", "BraTS-GLI-02060-101"), {"BraTS-GLI-02060": 2}),
        (("BRATS_001", "BRATS_002"), {"BRATS_001": 1, "BRATS_002": 1}),
        (("train_000", "train_001"), {"train_000": 1, "train_001": 1}),
    ],
)
def test_cases_of_a_data_set_for_nnu_net_may_be_visits(
    tmp_path: Path, cases: tuple[str, ...], people: dict[str, int]
) -> None:
    content = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    listing = read(tmp_path, *expand("imagesTr/<c>_0000.nii", "labelsTr/<c>.nii", c=cases))
    assert {name: len(found) for name, found in visits(listing).items()} == people
    assert not listing.rejected


class TestVisitForms:
    """The tables of forms that visits have at the ends and beginnings of names, row by row."""

    @pytest.mark.parametrize("form", [*ENDS, *BEGINNINGS], ids=lambda form: "".join(form.example))
    def test_an_example_has_the_parts_that_its_row_says(self, form: Form) -> None:
        pattern = (END if form in ENDS else BEGINNING)[form.kind]
        match = pattern.fullmatch("".join(form.example))
        assert match
        assert match.groups() == form.example
        assert may_hold_a_visit(match[0])

    @pytest.mark.parametrize("form", ENDS, ids=lambda form: "".join(form.example))
    def test_of_the_ends_that_are_compared_no_earlier_row_takes_the_example(self, form: Form) -> None:
        name = "".join(form.example)
        first = next(kind for kind, pattern in END.items() if pattern.fullmatch(name))
        assert first == form.kind or form.kind in ("counted", "dated", "written on")

    def test_most_names_need_one_look(self) -> None:
        assert not any(map(may_hold_a_visit, ("BraTS2021_00012", "GBM001", "IXI012")))


def test_two_files_of_one_name_beside_maps_are_both_told(tmp_path: Path) -> None:
    listing = read(tmp_path, "P1/mri_T1.nii", "P1/mri_T1.nii.gz", "P2/mri_T1.nii")
    assert sorted(path for scan in listing.scans for path in scan.paths) == ["P1/mri_T1.nii", "P2/mri_T1.nii"]
    assert [one.paths for one in listing.rejected] == [("P1/mri_T1.nii.gz",)]
    assert not listing.kinds


class TestDrawnLayouts:
    """Folders as README files of public repositories draw them."""

    @pytest.mark.parametrize(
        ("paths", "right"),
        [
            (expand("study/study_<p>/T1.nii", p=("03_01", "03_02", "05_01")), {"study_03": 2, "study_05": 1}),
            (expand("uvm1/uvm1_<p>_T1.nii", p=("03_01", "03_02", "07_01")), {"uvm1_03": 2, "uvm1_07": 1}),
            (expand("<p>/<v>/T1.nii", p=("101/101_AB", "102/102_KM"), v=("m0", "m6")), {"101_AB": 2, "102_KM": 2}),
            (["Meier/image_1.nii", "Meier/image_2.nii", "Kunz/image_1.nii"], {"Meier": 2, "Kunz": 1}),
            (expand("Meier/image_<n>/<w>.nii", n=("1", "2"), w=("T1", "FLAIR")), {"Meier": 2}),
            (expand("MSSEG2016/<p>/T1.nii", p=("A7", "B2")), {"A7": 1, "B2": 1}),
            (expand("edinburgh/pt01.<d>/T1.nii", d=("2009-03-04", "2010-03-04")), {"edinburgh_pt01": 2}),
            (["Meier/5885/T1.nii", "Meier/5990/T1.nii", "Kunz/2001-03-10/T1.nii"], {"Meier": 2, "Kunz": 1}),
            (expand("<p>/T1.nii", p=("Meier_2019", "Decker_2019")), {"Meier_2019": 1, "Decker_2019": 1}),
            (expand("DEV_00<n>/<w>.nii", n=("1", "2"), w=("T1", "bold_RUN1")), {"DEV_001": 1, "DEV_002": 1}),
            (expand("out/<a>-Case<n>/<a>-t1n.nii", a=("Aug0", "Aug1"), n=("1", "2")), {"out_Case1": 2, "out_Case2": 2}),
        ],
    )
    def test_who_and_how_often(self, tmp_path: Path, paths: list[str], right: dict[str, int]) -> None:
        listing = read(tmp_path, *paths)
        assert {subject: len(found) for subject, found in visits(listing).items()} == right

    def test_a_folder_of_other_images_holds_more_of_the_patients_beside_it(self, tmp_path: Path) -> None:
        beside = expand("<f>/MS<p>_<f>.nii", f=("T1", "FLAIR"), p=("03", "07"))
        listing = read(tmp_path, *beside, *expand("PETdata/MS<p>_rbv.nii", p=("03", "07")))
        assert set(visits(listing)) == {"MS03", "MS07"}
        assert any("PETdata" in line for line in listing.told)
        apart = read(tmp_path / "sites", *expand("<s>/<p>/T1.nii", s=("Utrecht", "Ulm"), p=("S1", "S2")))
        assert len(visits(apart)) == 4

    def test_numbers_of_images_below_a_modality_are_no_visits(self, tmp_path: Path) -> None:
        paths = [
            f"PPMI/100001/20210202/{w}/14975{n}/PPMI-100001-20210202-{w}-14975{n}.nii"
            for w, n in (("T1w", "71"), ("T2Flair", "81"))
        ]
        assert visits(read(tmp_path, *paths)) == {"PPMI_100001": {"20210202"}}

    def test_folders_before_and_after_contrast_are_no_visits(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *(f"{c}/P{n}_T1_{c.upper()}.nii" for c in ("Pre", "Post") for n in (1, 2)))
        assert [scan.modalities for scan in listing.scans] == [("T1", "T1ce")] * 2

    def test_words_are_found_inside_of_words(self, tmp_path: Path) -> None:
        paths = ["AllT2/T2_1.nii", "AllT2/T2_2.nii", "in/c001_bestt1w.nii", "in/c001_bestt2w.nii"]
        listing = read(tmp_path, *paths)
        assert roles(listing) == dict(zip(paths, ("T2", "T2", "T1", "T2"), strict=True))
        assert set(visits(listing)) == {"1", "2", "c001"}

    def test_names_in_a_folder_of_bids_need_not_be_of_bids(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("fcd/sub-<n>/<w>_reg.nii", n=("1", "3"), w=("t1", "flair", "roi")))
        assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1")] * 2
        assert [scan.files[-1].role for scan in listing.scans] == [MASK] * 2
        maps = read(tmp_path / "maps", "sub-1/T1_brain.nii", "sub-1/T1_GM_to_template_GM.nii")
        assert roles(maps) == {"sub-1/T1_brain.nii": "T1"}
        assert kind_of("3DLesionAnnotations") == "mask"

    def test_a_word_before_a_masks_is_no_visit_and_a_patients_name_in_it_tells_whose_it_is(
        self, tmp_path: Path
    ) -> None:
        words = ("T1", "FLAIR", "BraTS_tumor_seg", "total_seg")
        listing = read(tmp_path, *expand("X-0149_<v>/X-0149_<v>_<w>.nii", v=("01", "02"), w=words))
        assert visits(listing) == {"X-0149": {"01", "02"}}
        assert [scan.files[-1].role for scan in listing.scans] == [MASK] * 2
        named = read(tmp_path / "words", *expand("<w>.nii", w=("pre_ARE_T1", "pre_BDK_T1", "seg_ARE", "seg_BDK")))
        assert [[file.role for file in scan.files] for scan in named.scans] == [["T1", MASK]] * 2

    def test_numbers_below_a_name_are_told_and_so_is_what_a_second_scan_holds(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("Ulm/<n>/T1.nii", n=("3", "4")))
        assert len(visits(listing)) == 2
        assert [line for line in listing.told if "Ulm/3, Ulm/4" in line]
        twice = read(tmp_path / "twice", *expand("P1/<w>.nii", w=("t1", "flair", "proc/flair", "proc/lesion")))
        assert ["P1/flair.nii (FLAIR) is a second scan" in one.message for one in twice.rejected] == [True]


def test_a_plan_of_nothing_has_no_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "P1_T1.nii").symlink_to("/etc/hosts")
    plan = lines(find(str(tmp_path)), naming_of(None, False))
    assert plan[0] == "subjects 0, scans 0"
    assert plan[1] == "quarantine 1: unsafe_path 1"


def test_a_reference_that_no_scan_has_is_refused(tmp_path: Path) -> None:
    listing = read(tmp_path, "P1_T1.nii", "P1_FLAIR.nii", "P2_T1.nii")
    for wanted in ("FLAIR", "T2", None):  # T2 may come tomorrow
        check_reference(listing, wanted)
    with pytest.raises(UsageError, match=r"--resample-to is 'T9', and no scan has it: choose one of FLAIR, T1$"):
        check_reference(listing, "T9")


class TestPublishedLayouts:
    """Names as data sets and hospitals hand them out, and the rule that a person reads them by."""

    def test_a_word_for_masks_before_a_number_is_the_file_below_a_patient(self, tmp_path: Path) -> None:
        names = ("VSD.Brain.XX.O.MR_Flair.701", "VSD.Brain.XX.O.OT.709")
        listing = read(tmp_path, *expand("<p>/<f>/<f>.nii", p=("1", "2"), f=names))
        assert {*roles(listing).values()} == {"FLAIR", MASK}
        assert len(listing.scans) == 2
        studies = read(tmp_path / "other", *expand("VS-SEG-00<n>/T1.nii", n=("1", "2")))
        assert {*visits(studies)} == {"VS-SEG-001", "VS-SEG-002"}

    def test_behind_a_patient_s_number_nobody_else_is_named(self, tmp_path: Path) -> None:
        names = ("tcia_pat105_0001", "tcia_pat105_0002", "tcia_pat110_0001")
        found = visits(read(tmp_path, *expand("<p>/<p>_T1.nii", p=names)))
        assert found == {"tcia_pat105": {"0001", "0002"}, "tcia_pat110": {"0001"}}

    def test_words_behind_a_folder_s_modality_describe_the_image(self, tmp_path: Path) -> None:
        files = ("T1w_acpc_restore", "T2w_acpc_restore", "ribbon")
        listing = read(tmp_path, *expand("<p>/T1w/<f>.nii", p=("100307", "100408"), f=files))
        assert [(scan.subject, scan.modalities) for scan in listing.scans] == [
            ("100307", ("T1", "T2")),
            ("100408", ("T1", "T2")),
        ]
        people = read(tmp_path / "other", *expand("T1/T1_<p>.nii", p=("smith", "miller")))
        assert {*visits(people)} == {"smith", "miller"}

    def test_a_number_that_tells_kinds_of_images_is_no_visit(self, tmp_path: Path) -> None:
        paths = expand("<p>_20252_<v>_0/T1.nii", "<p>_20253_<v>_0/FLAIR.nii", p=("1000012", "1000157"), v=("2", "3"))
        listing = read(tmp_path, *paths)
        assert visits(listing) == {"1000012": {"2_0", "3_0"}, "1000157": {"2_0", "3_0"}}
        assert all(scan.modalities == ("FLAIR", "T1") for scan in listing.scans)

    @pytest.mark.parametrize("folder", ["US", "Ultrasound", "iUS"])
    def test_ultrasound_after_something_is_no_image_with_contrast(self, tmp_path: Path, folder: str) -> None:
        paths = [f"Case{n}/{folder}/Case{n}-{folder}-{word}.nii" for n in (1, 2) for word in ("before", "after")]
        listing = read(tmp_path, *paths, *expand("Case<n>/MRI/Case<n>-T1.nii", n=("1", "2")))
        assert {role for path, role in roles(listing).items() if "MRI" not in path}.isdisjoint(FOUR)

    def test_pre_beside_post_is_t1(self, tmp_path: Path) -> None:
        paths = expand("P<n>/P<n>_<w>.nii", n=("1", "2"), w=("PRE", "POST", "T2"))
        assert {path[6:-4]: role for path, role in roles(read(tmp_path, *paths)).items()} == {
            "PRE": "T1",
            "POST": "T1ce",
            "T2": "T2",
        }

    @pytest.mark.parametrize("other", ["eval_in", "dev_out", "external_test", "evaluation"])
    def test_parts_of_a_data_set_have_people_of_their_own(self, tmp_path: Path, other: str) -> None:
        paths = expand("<s>/flair/<n>_FLAIR.nii", "<s>/gt/<n>_gt.nii", s=("train", other), n=("1", "2"))
        listing = read(tmp_path, *paths)
        assert len(visits(listing)) == 4
        assert not listing.rejected

    def test_a_visit_glued_to_a_patient_s_number(self, tmp_path: Path) -> None:
        paths = expand("c01/c01s<n>/c01s<n>_T1.nii", n=("04t01", "04t02", "05t01"))
        assert visits(read(tmp_path, *paths)) == {"c01s04": {"t01", "t02"}, "c01s05": {"t01"}}

    def test_a_date_of_birth_is_not_read_as_a_clock(self, tmp_path: Path) -> None:
        paths = expand("WOLF_INA_19800101_<d>_T1.nii", "BAUER_JAN_19480223_<d>_T1.nii", d=("20180101", "20200622"))
        listing = read(tmp_path, *paths)
        assert sorted(len(found) for found in visits(listing).values()) == [2, 2]
        assert not listing.rejected

    def test_folders_that_each_of_several_people_has_are_visits(self, tmp_path: Path) -> None:
        paths = expand("Patients/<p>/IRM_<v>/FLAIR.nii", p=("DUPONT_P", "LEROY_M"), v=("J0", "X12"))
        assert visits(read(tmp_path, *paths)).keys() == {"DUPONT_P", "LEROY_M"}

    @pytest.mark.parametrize("count", [2, 8, 12])
    @pytest.mark.parametrize("people", [("Anna",), ("Anna", "Bert"), ("P1",), ("P1", "P2")])
    def test_letters_for_visits_before_names(self, tmp_path: Path, people: tuple[str, ...], count: int) -> None:
        numbers = tuple(map(str, range(1, count + 1)))
        found = visits(read(tmp_path, *expand("V<v>_<p>_T1.nii", v=numbers, p=people)))
        assert found == {name: {f"V{number}" for number in numbers} for name in people}
        mixed = visits(read(tmp_path / "mixed", *expand("<v>_<p>_T1.nii", v=("M0", "W12"), p=people)))
        assert mixed == {name: {"M0", "W12"} for name in people}

    @pytest.mark.parametrize("word", ["GBM0<n>", "glioma<n>", "brats_<n>"])
    def test_patients_of_two_cities_are_no_visits_of_the_cities(self, tmp_path: Path, word: str) -> None:
        found = visits(
            read(tmp_path, *expand(f"<c>/{word}/<w>.nii", c=("Ulm", "Bonn"), n=("1", "2"), w=("T1", "FLAIR")))
        )
        assert found.keys().isdisjoint({"Ulm", "Bonn"})
        assert all(len(sessions) == 1 for sessions in found.values())

    def test_numbers_of_site_and_patient_with_visits_below_are_people(self, tmp_path: Path) -> None:
        paths = expand("<p>/<v>/T1_PRE.nii", p=("101-001", "101-002", "204-001"), v=("SCR", "C3D1", "EOT"))
        found = visits(read(tmp_path, *paths))
        assert found == {name: {"SCR", "C3D1", "EOT"} for name in ("101-001", "101-002", "204-001")}

    def test_visits_before_an_end_that_all_names_have(self, tmp_path: Path) -> None:
        paths = expand("X-<n>-<v>-1_T1.nii", n=("0123", "0124"), v=("1", "2"))
        assert {name: len(found) for name, found in visits(read(tmp_path, *paths)).items()} == {
            "X-0123": 2,
            "X-0124": 2,
        }

    def test_a_plus_in_the_folder_of_a_series_is_an_agent(self, tmp_path: Path) -> None:
        series = ("003 Ax T2 FLAIR", "005 Sag T1 MPRAGE", "009 Sag T1 MPRAGE +C", "010 Ax T1 C+")
        listing = read(tmp_path, *expand("PAT17/20190312 MR/<s>/vol.nii", s=series))
        assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1", "T1ce")]
        assert len(listing.rejected) == 1

    def test_organs_that_a_planner_spares_are_no_lesions(self) -> None:
        organs = ("mask_Brainstem", "mask_OpticNerve_L", "mask_Eye_R", "RTSTRUCT_Chiasm", "Cochlea_L_mask", "brainstem")
        masks = ("mask_GTV", "mask_lesion", "wmlMask", "eye_lesion", "brainstem_glioma_seg", "mask_Eye_tumor")
        assert {describe(name).role for name in organs[:-1]} == {BRAIN}
        assert [describe(name).role for name in masks] == [MASK] * len(masks)

    def test_words_of_processing_beside_a_lesion_s(self) -> None:
        assert {kind_of(word) for word in ("LesionSmooth", "lesionMap", "TumorRegistered")} == {"weak"}

    def test_a_visit_in_a_name_below_a_folder_of_bids(self, tmp_path: Path) -> None:
        paths = expand("sub-<n>/<v>/sub-<n>_<v>-t1mri-1.nii", n=("0001", "0003"), v=("preop", "postop"))
        listing = read(tmp_path, *paths)
        assert visits(listing) == {f"sub-{n}": {"preop", "postop"} for n in ("0001", "0003")}
        assert {*roles(listing).values()} == {"T1"}

    def test_what_a_visit_s_folder_holds_beside_its_images_is_its(self, tmp_path: Path) -> None:
        people = ("Pat01_a", "Pat01_b", "Pat02_a")
        listing = read(tmp_path, *expand("raw/<p>/<w>.nii", p=people, w=("T1", "b1000", "GT")))
        assert visits(listing) == {"Pat01": {"a", "b"}, "Pat02": {"a"}}

    def test_a_mask_may_say_so_before_the_suffix_of_its_image(self, tmp_path: Path) -> None:
        image = "sub-m01/ses-1/anat/sub-m01_ses-1_acq-ax_T2w.nii"
        mask = f"derivatives/labels/{image.replace('_T2w', '_lesions-manual_T2w')}"
        assert roles(read(tmp_path, image, mask)) == {image: "T2", mask: MASK}

    @pytest.mark.parametrize("word", ["hyperintensities", "Plaques", "stroke"])
    def test_further_words_for_what_a_mask_shows(self, tmp_path: Path, word: str) -> None:
        paths = expand("P<n>/P<n>_<w>.nii", n=("1", "2"), w=("FLAIR", word))
        assert {*roles(read(tmp_path, *paths)).values()} == {"FLAIR", MASK}
        people = read(tmp_path / "people", *expand("<w>_0<n>_FLAIR.nii", w=(word,), n=("1", "2")))
        assert {*visits(people)} == {f"{word}_01", f"{word}_02"}

    def test_the_target_of_radiotherapy_comes_before_organs_and_margins(self, tmp_path: Path) -> None:
        masks = ("Brainstem", "CTV", "GTV", "Hippocampus_L", "PTV")
        listing = read(tmp_path, "RT-1/mri/T1_Gd.nii", *expand("RT-1/contours/<w>.nii", w=masks))
        assert roles(listing) == {"RT-1/mri/T1_Gd.nii": "T1ce", "RT-1/contours/GTV.nii": MASK}

    @pytest.mark.parametrize("form", ["P<n>/P<n>_<w>.nii", "P<n>/<w>.nii", "P<n>/Lesions/<w>.nii"])
    def test_a_number_behind_a_lesion_counts_the_lesions_of_a_patient(self, tmp_path: Path, form: str) -> None:
        images = expand("P<n>/P<n>_T1.nii", n=("1", "2"))
        one = expand(form, n=("1", "2"), w=("lesion_1",))
        whole = expand("P<n>/P<n>_lesion.nii", n=("1", "2"))
        alone = read(tmp_path / "alone", *images, *one)
        assert roles(alone) == dict.fromkeys(images, "T1") | dict.fromkeys(one, MASK)
        beside = read(tmp_path / "beside", *images, *one, *whole)
        assert roles(beside) == dict.fromkeys(images, "T1") | dict.fromkeys(whole, MASK)
        several = read(tmp_path / "several", *images, *one, *(path.replace("lesion_1", "lesion_2") for path in one))
        assert roles(several) == dict.fromkeys(images, "T1")  # nobody knows the sum
        assert {str(row.reason) for row in several.rejected} == {"unknown_labels"}

    @pytest.mark.parametrize("codes", [("V1", "V2"), ("m00", "m12"), ("1", "2"), ("2019", "2020"), ("a", "b")])
    def test_what_several_kinds_of_images_end_in_is_a_visit(self, tmp_path: Path, codes: tuple[str, ...]) -> None:
        words = ("T1", "FLAIR", "seg")
        for place, form in (("folders", "P0<p>/<w>_<v>.nii"), ("names", "P0<p>_<w>_<v>.nii")):
            listing = read(tmp_path / place, *expand(form, p=("7", "8"), w=words, v=codes))
            assert visits(listing) == {"P07": {*codes}, "P08": {*codes}}
            assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1")] * 4
            assert not listing.rejected
            assert any(codes[0] in line for line in listing.told)

    @pytest.mark.parametrize("names", [("T1_3", "T2_5", "T1_7"), ("T1_e1", "T2_e1", "T1_e2", "T2_e2")])
    def test_numbers_of_series_and_echoes_are_no_visits(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        listing = read(tmp_path, *(f"P07/{name}.nii" for name in names))
        assert visits(listing) == {"P07": {"1"}}
        assert {str(row.reason) for row in listing.rejected} == {"duplicate"}

    @pytest.mark.parametrize(
        ("names", "right"),
        [
            (expand("<w>_<p>", w=("flair", "t1", "lesion"), p=("P01", "P02")), {"P01", "P02"}),
            (expand("T1_<p>", p=("HC12", "HC15")), {"HC12", "HC15"}),
            (expand("T1_<p>", p=("1234567", "1238899")), {"1234567", "1238899"}),
            (
                expand("brain_<p>", p=("T1_20_60024", "T1_20_60078", "T1POST_20_60788")),
                {"20_60024", "20_60078", "20_60788"},
            ),
            (expand("T1_<p>", p=("s003", "s007")), {"set"}),
        ],
    )
    def test_patients_behind_kinds_of_images_in_a_folder_of_words(
        self, tmp_path: Path, names: list[str], right: set[str]
    ) -> None:
        found = visits(read(tmp_path, *(f"set/{name}.nii" for name in names)))
        assert {name.removeprefix("set_") for name in found} == right

    def test_numbers_filled_with_zeros_count_patients_below_a_name(self, tmp_path: Path) -> None:
        for form in ("set/all/scan_000<p>", "set/image_00<p>", "set/00<p>_MR_1"):
            listing = read(tmp_path / form[4:7], *expand(f"{form}/<w>.nii", p=("1", "4"), w=("T1", "seg")))
            assert len(visits(listing)) == 2
        assert len(visits(read(tmp_path / "meier", *expand("Meier/scan_<p>/T1.nii", p=("1", "4"))))) == 1

    def test_basal_before_contrast_is_no_visit(self, tmp_path: Path) -> None:
        listing = read(tmp_path, *expand("IT0<p>/IT0<p>_<w>.nii", p=("1", "2"), w=("T1_basale", "T1_MDC", "FLAIR")))
        assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1", "T1ce")] * 2
        visited = read(tmp_path / "visits", *expand("P1_<v>_<w>.nii", v=("basale", "12mesi"), w=("T1", "T1_MDC")))
        assert visits(visited) == {"P1": {"basale", "12mesi"}}

    @pytest.mark.parametrize("word", ["12mesi", "6meses", "3_semanas", "2ans", "12_maanden", "14dias", "1anno"])
    def test_counted_times_in_further_languages(self, tmp_path: Path, word: str) -> None:
        found = visits(read(tmp_path, *expand("P1_<v>_T1.nii", "P2_T1.nii", v=("baseline", word))))
        assert found == {"P1": {"baseline", word}, "P2": {"1"}}

    def test_people_without_numbers_in_folders_around_all(self, tmp_path: Path) -> None:
        paths = expand("data_of_us/zenodo_7890123/<p>/T1.nii", p=("anna", "bert"))
        assert {*visits(read(tmp_path, *paths))} == {"anna", "bert"}

    def test_series_below_studies_of_a_numbered_patient_are_its(self, tmp_path: Path) -> None:
        people = {
            "12345678": ("1.2.840.113619.2.1.1.621", "1.2.840.113619.2.1.1.777"),
            "12349999": ("1.2.840.10.4.5.6",),
        }
        paths = [f"{p}/{uid}/{w}.nii" for p in people for uid in people[p] for w in ("003_t1_mprage", "004_t2_flair")]
        assert visits(read(tmp_path, *paths)) == {p: {*uids} for p, uids in people.items()}

    def test_a_mask_of_channels_may_be_called_as_masks_are(self, tmp_path: Path) -> None:
        cases = ("MSSEG2_013", "MSSEG2_015")
        paths = expand("D1_MS/imagesTr/<p>_<c>.nii", "D1_MS/labelsTr/<p>.nii", p=cases, c=("0000", "0001"))
        assert [scan.files[-1].role for scan in read(tmp_path, *paths).scans] == [MASK, MASK]

    def test_a_lesion_before_the_suffix_of_an_image_that_is_there_makes_a_mask(self, tmp_path: Path) -> None:
        paths = expand("sub-01/anat/sub-01_<w>.nii", w=("T1w", "FLAIR", "lesion_FLAIR"))
        assert sorted(roles(read(tmp_path, *paths)).values()) == ["FLAIR", "T1", MASK]
        alone = read(tmp_path / "alone", *expand("sub-01/anat/sub-01_<w>.nii", w=("T1w", "lesion_FLAIR")))
        assert sorted(roles(alone).values()) == ["FLAIR", "T1"]

    def test_a_word_at_one_kind_of_image_alone_describes_it(self, tmp_path: Path) -> None:
        series = ("Sagittal_3D_Accelerated_MPRAGE", "Sagittal_3D_FLAIR", "Axial_T2_TSE")
        for form in ("P0<p>/<w>.nii", "P0<p>/P0<p>_<w>.nii"):
            listing = read(tmp_path / form[5:7], *expand(form, p=("1", "2"), w=series))
            assert [scan.modalities for scan in listing.scans] == [("FLAIR", "T1", "T2")] * 2
        late = read(tmp_path / "late", *expand("P0<p>/<w>_T1.nii", p=("1", "2"), w=("early", "late")))
        assert visits(late) == {"P01": {"early", "late"}, "P02": {"early", "late"}}

    @pytest.mark.parametrize("word", ["+C_AX_3D_SPGR", "C+ COR T1 FS", "AX_T1_+C"])
    def test_a_plus_may_begin_a_name(self, tmp_path: Path, word: str) -> None:
        found = roles(read(tmp_path, *expand("P0<p>/<w>.nii", p=("1", "2"), w=(word, "AX_T1"))))
        assert found[f"P01/{word}.nii"] == "T1ce"
