"""Words of series descriptions and file names: made-up texts in the idioms of several scanners and languages."""

import time

import pytest

from segpipe.readers.recognise import recognise

ROLES = {
    "FLAIR": """
        T2 DF tra
        t2_dark-fl_sag
        AX FLAIR POSTGADO
        t2_tirm_tra_dark-fluid_fs
        t2_spc_da-fl_sag_p2_iso
        Sag CUBE T2 FLAIR FS
        3D_FLAIR_VISTA_SENSE
        sFLAIR_longTR tra
        eT2W_FLAIR_SPIR
        T2 FLAIR ax post KM
        FLAIR 3D sag +C
        Ax T2 FLAIR PROPELLER C+
        Cor Flair Hippocampus
        t2_flair_tra_fs_UIH
        spc_ir_sag_1mm
        3D Brain VIEW FLAIR SHC
        Ax T2 Fluid Attenuated Inversion Recovery
        T2FluidAttenuated
        tirm tra
        FLAIR_EPI_fast
        AX FLAIR POST OP
        """,
    "T1": """
        WATER: Ax T1 FSE Flex
        t1_vibe_dixon_tra_in
        T1 FAT SAT ax
        T1 dixon fat sup
        T1 før kontrast
        T1 axial sem cont
        T1 s.c.
        T1 o. KM
        T1 (-C)
        T1 C-
        T1 no C
        IR-TFE 3D
        SAG T1 AC-PC
        T1_3D_FFE_C_CLEAR
        AX T1 W/WO CONTRAST
        t1_mprage_sag_p2_iso_1.0_nativ
        MPRAGE sag ohne KM
        mpr_sag_p2_iso
        Sag 3D T1 FSPGR IR-prep
        T1 tra vor KM
        T1 SE axial sans injection
        T1 axial sin contraste
        T1 SAG s/c
        T1 w/o contrast
        AX T1 WITHOUT GAD
        Sag T1 non contrast
        T1 tra prima di mdc
        T1 sem contraste
        T1 zonder contrast
        3D T1 TFE pre-gad
        T1W_3D_FFE_tra
        sT1W_IR_TSE
        t1_gre_fsp_3d_sag
        Ax T1 FLAIR PROPELLER
        t1_fl2d_sag
        Ax BRAVO 1mm
        T1 post op nativ
        3DT1
        sT1_3D_TFE_ISO
        T1 fossa posterior
        PRE T1 SE
        MP2RAGE_UNI-DEN
        t1_space_sag_p2
        rsSG 3D T1
        SE T1 ax
        T1 postsurgical
        sub-017_ses-2_T1w
        Ax 3D T1 Stealth
        """,
    "T1ce": """
        AX T1 C FS
        POSTKONTRAST T1 AKSIYEL
        T1 IV KONTRAST SONRASI
        T1 con cte
        T1 axial PC
        T1+ AX
        t1 tra s KS
        T1 TFE s KL
        T1 tra s k.l.
        T1 po KS
        T1 TSE AX +G
        Т1 ТРА +К
        T1 tra KL
        T1 tra mit
        T1_CC
        T1 po wzmocnieniu
        Ax T1 c.m.d.c.
        opT1 FLAIR Gd
        T1 tra nach Gabe
        T1 tehosteaine
        AX T1 W/
        IR-TFE GD
        t1_mprage_tra_p2_iso_KM
        T1 tra nach KM
        T1 mit KM cor
        T1 SE axial avec injection
        T1 3D GADO
        EG 3D T1 IV
        T1 axial con contraste
        T1 cor c/c
        T1 w/ contrast
        AX T1 FS + GD
        3D T1 +K
        T1 dopo mdc
        T1 com contraste
        T1 pos contraste cor
        T1 met contrast
        T1 na contrast
        T1 po kontrascie
        +C Sag CUBE T1
        Ax T1 FLAIR +C
        Sag BRAVO Gd
        POST GAD SPGR
        sT1W_3D_TFE_post
        T1W_TSE_CE
        t1_vibe_fs_tra_KM
        MPRAGE post contrast
        T1c
        t1_se_tra_gd
        Ax T1 SE Fat Sat Post Gadolinium
        T1postGd
        T1 WITH CONTRAST POST OP
        T1 Dotarem
        t1_gre_fsp_3d_sag+C
        T1 contrast enhanced
        post T1 mpr cor
        Enhanced T1 axial
        CE T1 MPRAGE
        Ax T1 C
        axial stealth T1 post
        """,
    "T2": """
        t2_tse_dixon_tra_W
        T2 FS fat tra
        T2 DEEP RESOLVE
        B-FFE
        Ax T2 thin ac-pc
        T2 axial sin y con contraste
        t2_tse_tra_fs_512
        T2W_TSE_SENSE cor
        Ax T2 FRFSE-XL
        T2 ax post KM
        Ax T2 Propeller fs
        t2_fse_tra
        T2 TSE axial con contraste
        eT2W_TSE_multivane
        T2_JET
        T2 RADAR
        cube T2 sag
        FIESTA-C ax IAC
        t2_ci3d_tra
        3D_DRIVE_HR
        Ax FSE
        tse cor
        T2 COR hipocampo
        T2 axiale
        T2 transversal
        """,
    "other": """
        t1_mp2rage_sag_p3_1mm_iso_T1_Images
        MaskTumor
        nRCBVreg
        3T_BIAS_32CH
        AX T2 COLUNA CERVICAL
        T2 tra CWK
        t2 sag kręgosłup szyjny
        T1 whole body vibe
        T1 Ganzkörper cor
        T2 corps entier
        Head_MRAC_Dixon_W
        FAT: Ax T1 FSE Flex
        Ax T1 FSE Flex (FAT)
        t2_tse_dixon_tra_F
        t2_tse_dixon_tra_opp
        OutPhase: Ax LAVA Flex
        T1 out of phase
        DSC
        Mean Transit Time
        Ref_Head_32
        ASSET Cal
        Locator
        AvgDC
        Isotropic image
        Difüzyon
        Perfüzyon
        AX MPGR
        T2 gradiente
        T2 FLASH tra
        venografie
        2D PC
        SpinEchoFieldMap_AP
        Rekonstr cor
        cb1400
        Hämosequenz
        soustr T1
        MT ratio
        localizer
        AAHead_Scout_MPR_cor
        Survey_SHC
        3-plane Loc SSFSE
        T1 localizador
        Reperage 3 plans
        Planscan
        Calibration ASSET
        Ax DWI b1000
        ep2d_diff_b0_b1000_tra
        DWI_SSh
        resolve_3scan_trace_TRACEW
        sDTI_medium_iso
        Difusion axial
        Diffusione tra
        dADC
        ADC (10^-6 mm2/s)
        eADC map
        ColFA
        Ax SWAN 3D
        SWIp
        t2_fl2d_tra_hemo
        T2*_FFE
        T2 star EPI
        Ax GRE
        T2 EG axial
        T2 gradient echo
        Mag_Images
        Pha_Images
        mIP_Images(SW)
        SWI minIP
        FSBB
        BSI
        TOF_3D_multi-slab
        MRA COW
        Angio TOF Willis
        Inhance 3D Vel PC
        Phase contrast MRV
        MIP axial
        ep2d_perf_p2
        DSC Perfusion GAD
        rCBV map
        pCASL 3D
        3D ASL (non-contrast)
        MTT
        T1 dynamic pituitary +C
        ep2d_bold_task
        fMRI fingertapping
        gre_field_mapping
        B0 map
        csi_slaser
        SVS PRESS TE 30
        Spektroskopie
        APTw
        T1 MAP
        T2_map
        T1 mapping MOLLI
        R2* map
        SUB T1 POST-PRE
        T1 post - pre
        Subtraktion T1 KM
        Soustraction
        MPR tra
        AX REFORMAT
        Rekonstruktion cor
        PD axial
        PD/T2 TSE
        t2 dual echo
        Double inversion recovery 3D
        PSIR
        MP2RAGE_INV1
        T2 HWS sag
        Sag T2 C-SPINE
        T1 LWS sag
        Screen Save
        Dose Report
        T1 tumour segmentation
        brain mask
        """,
    None: """
        BRAIN W/WO CONTRAST
        crâne sans et avec injection
        brain
        sag
        AX
        Reihe 5
        head routine
        T1 T2 compare
        study 12
        1.2.840.113619
        pre
        """,
}
CASES = [(text.strip(), role) for role, texts in ROLES.items() for text in texts.strip().splitlines()]


@pytest.mark.parametrize(("text", "role"), CASES, ids=[text for text, _ in CASES])
def test_words_tell_the_role(text: str, role: str | None) -> None:
    assert recognise(text).role == role


def test_contrast_is_told_beside_the_role() -> None:
    said = {text: recognise(text).contrast for text in ("T2 FLAIR +C", "T1 nativ", "T1", "T1 PRE AND POST")}
    assert said == {"T2 FLAIR +C": True, "T1 nativ": False, "T1": None, "T1 PRE AND POST": None}


def test_words_of_a_text_are_known_ones_only() -> None:
    assert set(recognise("Meier^Anna Ax T1 post Hippocampus MPR").words) == {"plane", "T1", "after", "part", "mpr"}
    assert recognise("Meier^Anna born 19610203").words == ()


@pytest.mark.parametrize("unit", ["t1w", "t2w", "pdw", "3d2d", "fsflgd", "space1"])
def test_no_text_takes_long(unit: str) -> None:
    start = time.perf_counter()
    assert recognise(unit * 80 + "q").role in (None, "T1", "T2", "other")
    assert time.perf_counter() - start < 1
    assert recognise("t1w" * 3).words == ("T1",)


NEGATED = """
AX T1 C-|T1 -C|T1 GD-|T1 -GD|T1 IV-|T1 CE-|T1 KM-|T1 tra -KM|T1 tra KM\u2212|T1 (GD-) cor|T1 Gd(-)|T1 C (-) tra
AX T1 (-) C|T1_C-|T1_GD-_tra|C- T1 AX|T1 o. KM|T1 o KM|T1 oKM|T1 o.Gd|T1 KM ohne|T1 KM ohne tra
T1 Gd no|T1 contrast: none
T1 CM-|T1 -K|T1 non CE|T1_noncon|T1 without|T1 kein KM|T1 ej kontrast|T1 inden kontrast
T1 kontrastmittelfrei|T1 contrast free|T1 sans injection de gadolinium|T1 smdc|T1 natywny|T1 senza m.d.c. ax
T1 assiale senza mezzo di contrasto|T1 sans produit de contraste|T1 przed podaniem kontrastu
T1 tra u kontrast|T1 u. kontrast|T1 tra před k.l.|T1 bez k. l.|T1 vor K.M.|T1 SE ax ss IV|T1 ss gado
T1 w/out contrast|T1 wout contrast|T1 W/OUT|T1 prior to contrast|T1 N/C|T1 0 Gd
T1 tra prä KM|T1 prae KM|AX T1 PRE : processed by a tool|Τ1 ΠΡΟ ΣΚΙΑΓΡΑΦΙΚΟΥ|T1 χωρίς σκιαγραφικό
Т1 акс без к/у|T1 ilaçsız|T1 u/k ax
T1 tra u/kontrast|t1 tra brez KS|T1 aks ennen Gd|T1 ax be kontrasto|T1 prieš kontrastą|T1 ilma kontrastita
T1 prije kontrasta|Ax T1 s.m.d.c.|T1 s mdc|T1 S CONTRASTE
T1 pirms kontrasta|T1 tra nat.|T1 bez wzmocnienia|opT1 FLAIR nativ
"""
AFTER_SOMETHING_ELSE = """
K.M. T1 tra|K.L._T1
T1 (Gray/White Contrast) AXI|T1 standard contrast|T1 high contrast GM/WM|T1 RT-Planung
T1 POST XRT|T1 POST SRS|T1 POST STEROID|T1 POST IV STEROID|T1 post gamma knife|T1 post-shunt|T1 after biopsy
T1 post rad|T1 post thrombectomy|T1 post FUS|T1 POST 3 MONTHS|T1 POST DAY 1|T1 nach 2 Wochen
T1 post embolization|T1 s/p resection|T1 nach OP|T1 post cirugia|T1 PÓS-CIRURGIA|T1 pos operatorio
"""
GIVEN = """
AX T1 C+|T1 C(+)|T1 +Gd|T1-KM|T1w-Gd|T1 Gd-DTPA|T1 SAG - POST GAD|T1 FS - GD|t1_se_KM_-_tra|T1 KM -tra|T1 POST-GD- tra
T1 cmdc|T1 dopo m.d.c. ev|T1 assiale con mezzo di contrasto|T1 po podaniu kontrastu
T1 con medio de contraste|T1 nach Gabe von KM
T1 tra po k.l.|T1 m kontrast|T1 n. K.M.|T1 tra 5 min p.i.|t1_se_60min_p.i._tra|T1 POST 3D
T1 POST 5 MIN|T1 post radial vibe|T1 SAG -CON CONTRASTE|T1 post 1mm|t1_space_post_2mm
t1_mprage_1.0 KM
RAGE trans +C|AXIAL T1 FLOW COMP POST : Processed_Tool|POST: AX T1|Τ1 ΜΕΤΑ ΣΚΙΑΓΡΑΦΙΚΟ|T1 μετά την έγχυση
Т1 акс с к/у|T1 ilaçlı|T1 KA után
T1 m/k ax|T1 AX DESPUES|SPGR +|T1 Vueway|T1 gadopiclenol|T1 Planung KM|T1 high contrast GD
T1 iso 1,0 Gd|T1_p2_0_8mm_KM|T1 KM ohne FS|T1 POST XRT +C|POST XRT T1 GAD|T1 POST SRS POST GAD
"""


@pytest.mark.parametrize(
    ("text", "contrast"),
    [
        (text.strip(), contrast)
        for texts, contrast in ((NEGATED, False), (AFTER_SOMETHING_ELSE, None), (GIVEN, True))
        for text in texts.strip().replace("\n", "|").split("|")
    ],
)
def test_an_agent_that_was_not_given_is_no_contrast(text: str, contrast: bool | None) -> None:
    said = recognise(text)
    assert (said.role, said.contrast) == ("T1ce" if contrast else "T1", contrast)
