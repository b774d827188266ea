"""More made-up studies: other vendors, other languages and other habits than those of `hospital`.

Every series is a line: its kind, which gives times and planes, the words of its technician, and what is odd about it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.readers.hospital import CORONAL, DERIVED, PROTOCOL, SAGITTAL, Sketch, Study

_KINDS = {one.kind: replace(one, role=None, agent=None) for one in PROTOCOL}
_KINDS |= {
    "t1 3d": replace(_KINDS["t1ce 3d"], kind="t1 3d"),
    "t1 cor": replace(_KINDS["t1 ax"], kind="t1 cor", plane=CORONAL),
    "t1 flair": replace(_KINDS["t1 ax"], kind="t1 flair", tr=2200, te=25, ti=860, sequence=("SE", "IR")),
    "t1 ir": replace(_KINDS["t1 ax"], kind="t1 ir", tr=3000, te=12, ti=700, sequence=("SE", "IR")),
    "t2 sag": replace(_KINDS["t2 ax"], kind="t2 sag", plane=SAGITTAL),
    "t2 3d": replace(_KINDS["t2 ax"], kind="t2 3d", tr=3200, te=380, dimensions="3D", slices=20, step=3),
    "flair 3d": replace(_KINDS["flair"], kind="flair 3d", tr=5000, te=390, ti=1800, dimensions="3D", plane=SAGITTAL,
                        slices=20, step=3),
    "flair cor": replace(_KINDS["flair"], kind="flair cor", plane=CORONAL),
    "pd": replace(_KINDS["t2 ax"], kind="pd", te=14),
    "t2star": replace(_KINDS["swi"], kind="t2star", tr=600, dimensions="2D", slices=5, step=12),
    "tof": replace(_KINDS["swi"], kind="tof", tr=22, te=3.5, slices=8, step=7),
    "map": replace(_KINDS["t2 ax"], kind="map", image_type=(*DERIVED, "OTHER")),
    "subtraction": replace(_KINDS["t1 ax"], kind="subtraction", image_type=(*DERIVED, "OTHER")),
}  # fmt: skip


def _s(kind: str, text: str, role: str | None = None, agent: str | None = None, **extra: Any) -> Sketch:
    return replace(_KINDS[kind], text=text, role=role, agent=agent, extra=extra)


_MISSING = {name: "" for name in ("SeriesTime", "AcquisitionTime", "StudyTime")}

MORE = [
    Study("canon", "CANON_MEC", (
        _s("localizer", "LOCATOR"), _s("t2 sag", "SG T2 FSE"), _s("t1 ax", "AX SE T1 (2D)", "T1"),
        _s("t2 ax", "AX FSE T2 JET", "T2"), _s("flair", "AX FLAIR_Fatsat", "FLAIR"), _s("dwi", "AX SEEPI_DWI b=1000"),
        _s("adc", "AX ISO_ADC"), _s("t2star", "AX FE_T2*"), _s("swi", "AX FSBB"), _s("tof", "3D TOF_1SLAB"),
        _s("t1ce ax", "AX SE T1 Gd", "T1ce", "Magnescope"), _s("t1ce 3d", "SG FFE3D T1 Gd", None, "Magnescope"),
    )),
    Study("hitachi", "HITACHI", (
        _s("localizer", "Scanogram"), _s("t1 sag", "T1 SAG"), _s("t2 ax", "FSE T2 AX", "T2"),
        _s("flair", "FIR FLAIR AX", "FLAIR"), _s("t1 ax", "SE T1 AX", "T1"), _s("dwi", "DW EPI AX"),
        _s("swi", "BSI AX"), _s("t1ce ax", "SE T1 AX CE", "T1ce"), _s("t1ce 3d", "RSSG 3D CE"),
    )),
    Study("french", "Philips", (
        _s("localizer", "Repérage"), _s("t1 sag", "SAG T1 SE"), _s("flair", "FLAIR axial", "FLAIR"),
        _s("t2 ax", "TSE T2 transverse", "T2"), _s("t2star", "AX T2 EG"), _s("dwi", "DIFFUSION 3 axes"),
        _s("adc", "carto ADC"), _s("t1 ax", "T1 axial sans injection", "T1"), _s("perfusion", "PERFUSION T2*"),
        _s("t1ce ax", "T1 axial après injection", "T1ce"), _s("t1ce 3d", "3D T1 injecté"),
        _s("reformat", "recon cor 3D T1 injecté"),
    )),
    Study("paediatric", "SIEMENS", (
        _s("localizer", "localizer"), _s("t2 cor", "t2_blade_cor_SEDATION"), _s("t2 ax", "t2_blade_tra PEDS", "T2"),
        _s("t1 ir", "t1_ir_tse_tra PEDS", "T1"), _s("flair 3d", "t2_space_flair_sag_iso PEDS", "FLAIR"),
        _s("t2 3d", "t2_space_ciss_hr"), _s("swi", "SWI_Images"), _s("swi mip", "mIP_Images(SW)"),
        _s("t1ce ax", "t1_ir_tse_tra PEDS +GD", None, "Clariscan", InversionTime=700, RepetitionTime=3000),
        _s("t1ce ax", "t1_ir_tse_tra PEDS +GD", "T1ce", "Clariscan", InversionTime=700, RepetitionTime=3000),
        _s("t2 sag", "haste_shunt_sag"),
    )),
    Study("postop", "GE MEDICAL SYSTEMS", (
        _s("localizer", "3-plane POSTOP"), _s("t1 ax", "POSTOP Ax T1", "T1"), _s("t2 ax", "POSTOP Ax T2 PROP", "T2"),
        _s("flair", "POSTOP Ax FLAIR", "FLAIR"), _s("dwi", "POSTOP DWI"), _s("t2star", "POSTOP Ax GRE T2*"),
        _s("t1ce ax", "POSTOP Ax T1+C", "T1ce"), _s("t1ce 3d", "Post-op Stealth T1+C"),
        _s("subtraction", "SUB: POSTOP Ax T1+C"),
    )),
    Study("after-only", "SIEMENS", (
        _s("localizer", "localizador"), _s("t2 ax", "t2_tse_tra", "T2"), _s("flair", "t2_flair_tra", "FLAIR"),
        _s("dwi", "difusion"), _s("t1ce 3d", "t1_mprage_sag_contraste", "T1ce"), _s("t1 cor", "t1_se_cor_contraste"),
    )),
    Study("dual-echo", "SIEMENS", (
        _s("localizer", "loc"), _s("pd", "pd+t2_tse_tra", SeriesInstanceUID="1.2.3.44", EchoNumbers=1),
        _s("t2 ax", "pd+t2_tse_tra", "T2", SeriesInstanceUID="1.2.3.44", EchoNumbers=2),
        _s("flair", "t2_tirm_tra", "FLAIR"), _s("t1 ax", "t1_se_tra", "T1"), _s("t1ce ax", "t1_se_tra", "T1ce", "KM"),
    )),
    Study("synthetic", "GE MEDICAL SYSTEMS", (
        _s("localizer", "3Plane Loc"), _s("map", "Ax MAGiC"), _s("map", "MAGiC T1", ), _s("map", "MAGiC T2"),
        _s("map", "MAGiC FLAIR"), _s("map", "MAGiC PSIR"), _s("flair 3d", "Sag T2 FLAIR CUBE", "FLAIR"),
        _s("t2 ax", "Ax T2 FRFSE", "T2"), _s("t1ce 3d", "Sag T1 BRAVO +C", "T1ce", "Gadavist"),
    )),
    Study("spine-too", "Philips", (
        _s("localizer", "Survey"), _s("t2 sag", "T2 TSE sag HWS"), _s("t1 sag", "T1 TSE sag HWS"),
        _s("t2 ax", "T2 TSE tra Kopf", "T2"), _s("flair", "FLAIR tra", "FLAIR"), _s("t1 ax", "T1 tra nativ", "T1"),
        _s("t1ce ax", "T1 tra KM", "T1ce"), _s("t1 sag", "T1 sag HWS KM"), _s("t1ce 3d", "T1 3D TFE KM"),
    ), extra={"BodyPartExamined": ""}),
    Study("knee", "SIEMENS", (
        _s("localizer", "localizer"), _s("t1 cor", "t1_tse_cor"), _s("pd", "pd_tse_fs_sag"), _s("t2 ax", "t2_tse_tra"),
    ), extra={"BodyPartExamined": "KNEE"}),
    Study("same-numbers", "GE MEDICAL SYSTEMS", (
        _s("localizer", "LOC"), _s("t1 ax", "AX T1", "T1"), _s("t2 ax", "AX T2", "T2"),
        _s("flair", "AX FLAIR", "FLAIR"), _s("t1ce ax", "AX T1 C+", "T1ce"), _s("t1ce 3d", "COR T1 C+"),
    ), extra={"SeriesNumber": 1, **_MISSING}),
    Study("numbers-only", "SIEMENS", tuple(replace(one, slices=12, step=5) for one in (
        _s("localizer", "101"), _s("t1 ax", "201", "T1"), _s("t2 ax", "301", "T2"), _s("flair", "401", "FLAIR"),
        _s("dwi", "501", DiffusionBValue=1000.0), _s("t1ce ax", "601", "T1ce", "Gadovist"),
    )), extra={"BodyPartExamined": ""}),
    Study("united", "UIH", (
        _s("localizer", "scout"), _s("t1 ax", "t1_fse_tra", "T1"), _s("t2 ax", "t2_fse_tra_fs", "T2"),
        _s("flair", "t2_fse_flair_tra", "FLAIR"), _s("dwi", "epi_dwi_tra_b1000"), _s("adc", "epi_dwi_tra_b1000_ADC"),
        _s("swi", "gre_swi3d_tra"), _s("t1ce ax", "t1_fse_tra+C", "T1ce"), _s("t1ce 3d", "t1_gre_fsp_3d_sag+C"),
    )),
    Study("polish", "GE MEDICAL SYSTEMS", (
        _s("localizer", "lokalizator"), _s("t2 ax", "T2 osiowo", "T2"), _s("flair", "FLAIR osiowo", "FLAIR"),
        _s("t1 ax", "T1 osiowo przed kontrastem", "T1"), _s("dwi", "dyfuzja"),
        _s("t1ce ax", "T1 osiowo po kontrascie", "T1ce"),
        _s("t1ce 3d", "T1 3D po kontrascie"),
    )),
    Study("turkish", "Philips", (
        _s("localizer", "Survey"), _s("t2 ax", "T2 TSE AKS", "T2"), _s("flair", "FLAIR AKS", "FLAIR"),
        _s("t1 ax", "T1 AKS KONTRASTSIZ", "T1"), _s("dwi", "DIFUZYON"), _s("t1ce ax", "T1 AKS KONTRASTLI", "T1ce"),
    )),
    Study("chinese", "UIH", (
        _s("localizer", "三平面定位"), _s("t1 ax", "T1加权 横断位 平扫", "T1"), _s("t2 ax", "T2加权 横断位", "T2"),
        _s("flair", "T2FLAIR 横断位", "FLAIR"), _s("dwi", "弥散"), _s("t1ce ax", "T1加权 横断位 增强", "T1ce"),
    ), extra={"SpecificCharacterSet": "GB18030"}),
    Study("japanese", "CANON_MEC", (
        _s("localizer", "位置決め"), _s("t1 ax", "T1強調 横断", "T1"), _s("t2 ax", "T2強調 横断", "T2"),
        _s("flair", "FLAIR 横断", "FLAIR"), _s("dwi", "拡散強調"), _s("t1ce ax", "造影T1強調 横断", "T1ce"),
    ), extra={"SpecificCharacterSet": ["", "ISO 2022 IR 87"]}),
    Study("russian", "Philips", (
        _s("localizer", "локалайзер"), _s("t1 ax", "Т1 акс до контраста", "T1"), _s("t2 ax", "Т2 акс", "T2"),
        _s("flair", "FLAIR акс", "FLAIR"), _s("dwi", "ДВИ"), _s("t1ce ax", "Т1 акс после контраста", "T1ce"),
    ), extra={"SpecificCharacterSet": "ISO_IR 144"}),
    Study("mp2rage", "SIEMENS", (
        _s("localizer", "loc"), _s("t1 3d", "t1_mp2rage_sag_INV1"), _s("t1 3d", "t1_mp2rage_sag_INV2"),
        _s("t1 3d", "t1_mp2rage_sag_UNI_Images", "T1"), _s("map", "t1_mp2rage_sag_T1_Images"),
        _s("t2 ax", "t2_space_tra_iso", "T2"), _s("flair 3d", "t2_space_dark-fluid_sag", "FLAIR"),
        _s("t1ce 3d", "t1_mprage_sag_KM", "T1ce"), _s("subtraction", "t1_mprage_sag_KM_SUB"),
    )),
    Study("two-of-all", "GE MEDICAL SYSTEMS", (
        _s("localizer", "LOC"), _s("t1 sag", "SAG T1"), _s("t1 ax", "AX T1 MEMP", "T1"), _s("t2 cor", "COR T2 FS"),
        _s("t2 ax", "AX T2 PROPELLER MOTION"), _s("t2 ax", "AX T2 PROPELLER MOTION", "T2"),
        _s("flair", "AX FLAIR PROPELLER FS", "FLAIR"), _s("dwi", "AX DWI ASSET"), _s("map", "Average DC"),
        _s("perfusion", "DSC PERFUSION"), _s("perfusion", "rCBV"), _s("t1ce ax", "AX T1 POST", "T1ce"),
        _s("t1ce ax", "COR T1 POST FS", None, ImageOrientationPatient=list(CORONAL)),
        _s("t1ce 3d", "STEALTH AX BRAVO W/CONTRAST"),
    )),
    Study("portuguese", "SIEMENS", (
        _s("localizer", "localizador"), _s("t2 ax", "T2 AXIAL", "T2"), _s("flair", "FLAIR AXIAL", "FLAIR"),
        _s("t1 ax", "T1 AXIAL PRE", "T1"), _s("dwi", "DIFUSÃO"), _s("t1ce ax", "T1 AXIAL PÓS CONTRASTE", "T1ce"),
        _s("t1ce 3d", "T1 VOL POS"),
    )),
    Study("protocol-of-the-examination", "GE MEDICAL SYSTEMS", tuple(
        _s(kind, text, role, agent, ProtocolName="TUMOR +GAD") for kind, text, role, agent in (
            ("localizer", "LOC", None, None), ("t1 ax", "Ax T1 SE", "T1", None), ("t2 ax", "Ax T2", "T2", None),
            ("flair", "Ax T2 FLAIR", "FLAIR", None), ("dwi", "DWI", None, None),
            ("t1ce ax", "Ax T1 SE", "T1ce", "Gadavist"), ("t1ce 3d", "3D BRAVO", None, "Gadavist"),
        )
    )),
    Study("protocol-of-both", "GE MEDICAL SYSTEMS", tuple(
        _s(kind, text, role, ProtocolName="BRAIN W/WO CONTRAST") for kind, text, role in (
            ("localizer", "3-Plane Localizer", None), ("t1 sag", "SAG T1", None), ("t1 ax", "AX T1", "T1"),
            ("t2 ax", "AX T2 FS", "T2"), ("flair", "AX FLAIR", "FLAIR"), ("perfusion", "PERFUSION", None),
            ("t1ce ax", "AX T1", "T1ce"), ("t1ce 3d", "SAG 3D T1", None),
        )
    )),
    Study("volumes-only", "SIEMENS", (
        _s("localizer", "AAHead_Scout_64ch"), _s("t1 3d", "t1_mprage_sag_p2_iso", "T1"),
        _s("flair 3d", "t2_space_dark-fluid_sag_p2_iso", "FLAIR"), _s("swi", "t2_swi_tra_p2_1.5mm"),
        replace(_s("t2 3d", "t2_space_sag_p2_iso", "T2"), plane=SAGITTAL), _s("dwi", "ep2d_diff_mddw_64_p2"),
        _s("t1ce 3d", "t1_mprage_sag_p2_iso_KM", "T1ce"), _s("reformat", "t1_mprage_tra_MPR KM"),
    )),
    Study("orbits-too", "Philips Medical Systems", (
        _s("localizer", "Survey"), _s("t1 ax", "T1 TSE tra", "T1"), _s("t2 ax", "T2 TSE tra", "T2"),
        _s("flair", "FLAIR tra", "FLAIR"), _s("flair", "3D DIR"), _s("t2 cor", "STIR cor", InversionTime=160),
        _s("t1ce ax", "T1 TSE tra KM", "T1ce"),
        _s("t1 ax", "T1 SPIR tra Orbita KM", None, "Dotarem", PixelSpacing=[0.5, 0.5]),
        _s("t2 ax", "T2 tra Orbita", None, PixelSpacing=[0.5, 0.5]),
    )),
    Study("spine-too-in-portuguese", "GE MEDICAL SYSTEMS", (
        _s("t1 ax", "AX T1 CRÂNIO", "T1"), _s("t2 ax", "AX T2 CRÂNIO", "T2"), _s("flair", "AX FLAIR CRÂNIO", "FLAIR"),
        _s("t2 ax", "AX T2 COLUNA", PixelSpacing=[0.5, 0.5]), _s("t1ce ax", "AX T1 CRÂNIO GD", "T1ce"),
        _s("t1ce ax", "AX T1 COLUNA DORSAL GD", PixelSpacing=[0.5, 0.5]),
    ), extra={"BodyPartExamined": ""}),
    Study("spine-too-in-dutch-and-polish", "Philips", (
        _s("t1 ax", "T1 tra hersenen", "T1"), _s("t2 ax", "T2 tra hersenen", "T2"), _s("flair", "FLAIR tra", "FLAIR"),
        _s("t2 ax", "T2 tra CWK", PixelSpacing=[0.5, 0.5]), _s("t1ce ax", "T1 tra na Gd", "T1ce"),
        _s("t1ce ax", "T1 tra rdzeń po kontraście", PixelSpacing=[0.5, 0.5]),
        _s("t2 ax", "T2 tra kręgosłup szyjny", PixelSpacing=[0.5, 0.5]),
    ), extra={"BodyPartExamined": "", "SpecificCharacterSet": "ISO_IR 192"}),
    Study("turbo-flair-of-united", "UIH", (
        _s("localizer", "scout_3plane"), _s("t2 ax", "t2_arms_tra", "T2"), _s("flair", "t2_arms_flair_tra_fs", "FLAIR"),
        _s("t1 flair", "t1_fse_flair_tra", "T1"), _s("perfusion", "epi_dsc_perf"),
        _s("t1 flair", "t1_fse_flair_tra_C", "T1ce"), _s("t1ce 3d", "t1_gre_fsp_3d_sag_C"),
    )),
]  # fmt: skip
