"""What the words of a series description or a file name say an image is: `recognise`.

Words become concepts, and rules over concepts, tried in order, give a role. Both are tables: a new idiom is a new word
or a new rule, never a new branch. The words are those of Siemens, GE, Philips, Canon, Hitachi and United Imaging and
of the people who name protocols in English, German, French, Spanish, Portuguese, Italian, Dutch and Polish,
and the contrast agent's in some more.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

FLAIR, T1, T1CE, T2, OTHER = "FLAIR", "T1", "T1ce", "T2", "other"
RULES_VERSION = "20"
"""Changes with every change of a word or a rule."""


@dataclass(frozen=True)
class Recognition:
    """What words say.

    `role` is FLAIR, T1, T1ce, T2 or `other`, and None if the words say nothing; `detail` tells what kind of `other`
    it is, or why nothing is said. `contrast` is True after a contrast agent, False before, None if that is not
    said. `reformatted` says that words speak of a reconstruction in another plane; `part` that they speak of a part of
    the head only. `words` are the concepts that were found: words of this module, never of the text.
    """

    role: str | None
    detail: str = ""
    contrast: bool | None = None
    reformatted: bool = False
    part: bool = False
    words: tuple[str, ...] = ()


_BRANDS = (
    "dotarem clariscan cyclolux artirem magnevist magnegita magnograf magnescope prohance multihance omniscan optimark"
    " primovist eovist vasovist ablavar elucirem vueway feraheme ferumoxytol"
)
_AGENT = (
    rf"(?:cont(?:r\w*)?|kontras\w*|tehoste\w*|gbca|gabe|gd\w?|gad|gad[oa]\w*|{_BRANDS.replace(' ', '|')}"
    r"|km|k[ls]|mdc|pdc|civ|ct?te|wzmocn\w*|inj|injec\w*|injek\w*|injet\w*|iv|iv ?km|iv ?kontras\w*)"
)
_BEFORE = (
    r"(?:no|non|not|without|w ?/? ?o(?:ut)?|wo|ohne|o(?= ?(?:k|gd|gad))|vor|sans|ss(?= ?(?:gado|gd|inj|iv|pdc|contr))"
    r"|avant|sin|senza|prima|sem|antes"
    r"|zonder|voor|bez|brez|be(?= ?kontr)|przed|pred|prije|pries|pre|prae?|prior|before|native?|s ?/|utan|uden|uten"
    r"|ilman?|ennen?|pirms|fara|fore|foer|ej|inden|ikke|u ?/?(?= ?(?:kontr|gd|gad))"
    r"|s(?= ?(?:mdc|contrast))|ingen|keine?|pas)"
)
_WITH, _WITHOUT = r"(?:with|w|con|com|avec|mit|met)", r"(?:without|w ?/? ?o(?:ut)?|wo|sin|sem|sans|senza|ohne|zonder)"
_AND = r" ?/? ?(?:(?:and|y|et|e|und|en)\b)? ?/? ?"
_FILLER = r"(?:\s*(?:de|del|di|d|da|do|to|dem|der|la|el|il|the|iv)\b)?"
# what may stand behind an agent and "without" that is said of this agent: no further word, or a plane
_END = r"(?= ?(?:$|\)|(?:ax|axi\w*|tra\w*|cor\w*|kor\w*|sag\w*|3d|2d)\b))"
# what a scan may be done after, beside an injection
_NO_AGENT = (
    r"op\w*|surg\w*|treat\w*|therap\w*|x?rt|rx|tx|ctx|crt|xrt|srs|srt|wbrt|chemo\w*|rads?|radi(?!al)\w*|irradi\w*|bestr\w*|gamma\w*"
    r"|cyber\w*|gk|ablat\w*|litt|laser\w*|biops\w*|re?sec\w*|excis\w*|exer\w*|remov\w*|debulk\w*|cranio\w*|crani"
    r"|lobect\w*|shunt\w*|evd|dbs|implant\w*|drain\w*|embol\w*|coil\w*|clip\w*|stent\w*|interv\w*|chir\w*|cirug\w*|cirur\w*|quir\w*"
    r"|steroid\w*|dexa\w*|corti\w*|cortison\w*|avastin|bev\w*|temo\w*|tmz|immun\w*|vacc\w*|trauma\w*|tbi|concuss\w*|accid\w*"
    r"|mva|fall|stroke|avc|infarct\w*|bleed\w*|haemor\w*|hemor\w*|ictal|seiz\w*|partum|natal|mortem|covid\w*|transpl\w*|proc\w*"
    r"|thromb\w*|dsa|car ?t|prrt|fus|mrgfus|hifu|ana?esth\w*|sedat\w*|dialys\w*|infect\w*|mening\w*|fracture?"
    r"|\d+ ?(?:days?|weeks?|wks?|months?|mths?|mo|years?|yrs?|jahre?|wochen?|monate?|tage?)"
    r"|(?:day|week|month|year) ?\d+"
)
_AFTER_WHAT = r"(?:post\w{0,3}|pos|apos|after|s ?/ ?p|nach|na|po|dopo|apres|despues|depois)"

_DIXON = r"\bm?q?(?:dixon\w*|flex|ideal)\b"

_PHRASES: tuple[tuple[str, str], ...] = (
    # phrases of several words, in order, and the one word that each becomes; `_` and `-` are spaces by then
    (r"\bsub (?!t[12])[a-z]*\d\w*", " "),  # a subject's name in a file name, no subtraction
    (r"\bt2w? ?\*", " t2star "),
    (r"\br2 ?(?:\*|star\b)", " relaxometry "),
    (r"\bt2w? ?starw?\b", " t2star "),
    (r"\bdark ?fl(?:uid)?\b|\bt2w? df\b|\bda ?fl\b|fluid ?att?en\w*( inversion( recovery)?)?", " flair "),
    (r"\bmp ?rage\b", " mprage "),
    (r"\bmp ?2 ?rage\b", " mp2rage "),
    (r"(\bmp2rage\b.*) t1 (?:images?|maps?)\b", r"\1 map "),
    (r"\bbias ?(?:\d+ ?ch|bc)\b", " fieldmap "),  # of a coil's channels, or of the body coil
    (r"\binv ([12])\b", r" inv\1 "),
    (r"\bapparent diffusion( coefficients?)?", " adc "),
    (r"\bb ?=? ?(?:0|[1-9]\d{1,3})\b(?! ?(?:map|shim|t\b))", " bvalue "),
    (r"\b(?:b0|b1|(?:spin ?echo ?)?field|b0rf) ?(?:map\w*|karte|shim\w*)", " fieldmap "),
    (r"\bav(?:era)?ge? ?dc\b", " adc "),
    (r"\bisotropic images?\b|\bfractional ?aniso\w*", " fa "),
    (r"\bk ?trans\b(?! ?t)", " ktrans "),
    (r"\bplan ?scans?\b", " localizer "),
    (r"\bprocessed images?\b", " report "),
    (r"\bphase ?contrast\b", " pcmra "),
    (r"\b(?:gr[ae]y|white|[gw]m|tissue|soft|high|low|standard) ?(?:matter )?contrast\b"
        r"|\bcontrast (?:gr[ae]y|white|[gw]m)\b", " "),  # of an image, not an agent
    (r"\bflow ?comp\w*", " "),
    (r"\bfa ?=? ?\d+\b|\bflip ?(?:angle)? ?=? ?\d+", " "),
    (rf"\b{_AFTER_WHAT} ?(?:(?:de|da|do|del|la|l|iv) )?(?:{_NO_AGENT})\b", " "),
    (r"\bpost\w{0,3} ?foss\w*|\bfoss\w* ?post\w*|\bposterior\w*", " "),
    (rf"\bpre ?(?:{_NO_AGENT})\b", " "),
    (r"\bpre ?scan\b", " calibration "),
    (r"\b(?:double|dual|doppel|doble|doppio|2) ?echos?\b|\bdouble eco\b", " dualecho "),
    (r"\bde ?(?:tse|fse)\b|\b(?:tse|fse) ?de\b", " dualecho "),
    (r"\becho ?planar\b", " epi "),
    (r"\bdeep ?resolve\b|\bac ?pc\b|\bc ?\+ ?/(?!\w)", " "),
    (r"\bb ?ffe\b", " bffe "),
    (r"\bauto ?align\b|\bcoil ?sens\w*", " localizer "),
    (r"\bcb ?\d{3,4}\b", " bvalue "),
    (r"\bsw (?:images?|mips?)\b|\bblood ?sens\w*", " swi "),
    (r"\bmt ?ratio\b", " map "),
    (r"\bi v\b", " iv "),
    (r"\b(?:echo|eco) ?(?:de|di|d)? ?gradient\w*|\bgradient\w* ?(?:echo|eco)\b|\begt\b", " gre "),
    (r"\bdouble (?:inversion|ir)\b( recovery)?", " doubleinversion "),
    (r"\bblood ?volume\b|\btime ?to ?peak\b|\bmean ?transit ?time\b", " ttp "),
    (r"\bblood ?flow\b|\btransit ?time\b", " perfusion "),
    (r"\b(?:opp(?:osed)?|out|oop) ?(?:of)? ?phase\b|\boop\b", " opposed "),
    (r"\bin ?phase\b", " inphase "),
    (rf"({_DIXON}.*?) (?:opp|out|op)\b", r"\1 opposed "),
    (rf"({_DIXON}.*?) (?:in|ip)\b", r"\1 inphase "),
    (rf"({_DIXON}.*?) f(?:at)?\b(?! ?(?:sat|sup))|^fat\b(?! ?(?:sat|sup))(?=.*{_DIXON})|\bfat images?\b",
        r"\1 fatimage "),
    (r"\bspin ?label\w*", " asl "),
    (r"\bresting ?(?:state)?\b|\brest ?state\b", " fmri "),
    (rf"\b{_WITH}{_AND}{_WITHOUT}\b(?: ?{_AGENT}\b)?|\b{_WITHOUT}{_AND}{_WITH}\b ?/?(?: ?{_AGENT}\b)?", " "),
    (rf"\b(?:mezz[oi]|medio|meio|produit|moyen|podani\w+|gabe|administra\w+) (?:(?:di|de|d|do|von|of) )?(?={_AGENT}\b)",
        " "),  # `senza mezzo di contrasto`, `przed podaniem kontrastu`
    (rf"\b{_BEFORE} (?:c|ce|cm)\b", " before "),
    (r"\bnon ?(?:contrast\w*|enhanced)\b|\bun ?enhanced\b", " before "),
    (rf"\b{_AGENT} ?(?:{_WITHOUT}|off|none|no|not given|non|nein|minus|neg\w*){_END}", " before "),
    (r"\b(?:without|ohne|sans|senza|sin|sem|zonder) ?$", " before "),
    (rf"\b{_BEFORE} ?{_FILLER} ?\+? ?{_AGENT}\b(?: (?:de|di|d|do|von|of) {_AGENT}\b)?", " before "),
    (r"\b[ck]ontrast(?:mittel)? ?fr(?:ei|ee|i|ij)\b|\bkm ?frei\b", " before "),
    (r"\bs ?/? ?c\b|\bw ?/? ?o(?:ut)?\b|\bn ?/ ?c\b", " before "),
    (rf"\+ ?(?:c|k|g|ce|{_AGENT})\b|\b[ck] ?\+(?! ?t2)|\bc ?/ ?c\b|\bw ?/ ?c(?:on)?\b"
        r"|\bt1w? ?\+(?! ?(?:t2|pd|flair|dwi))", " after "),
    (rf"\bc ?/ ?{_AGENT}\b", " after "),
    (rf"\+ ?$|\bm ?/ ?k\b|\b(?:{_AGENT}|ka) ?utan\b", " after "),
    (r"\bu ?/ ?k\b", " before "),
    (r"(?<![a-z])min\w* ?p ?i\b", " after "),  # so many minutes post injectionem
    (r"\bwhole ?body\b|\bganzkorper\w*|\bcorps ?entier\b|\bcuerpo ?(?:entero|completo)\b"
        r"|\bcorpo ?int\w+ro\b", " wholebody "),
    (r"\b(?:depois|despues|apres|dopo|nach|danach|nachher|efter|etter) ?$", " after "),
    (r"\b3 ?pl(?:anes?)?\b|\b3 ?(?:ebenen|planos|plans)\b|\btri ?plan\w*|\bmulti ?plane?\b", " planes "),
    (r"\bsingle ?shot\b", " "),
    (r"\bmag(?:nitude)? images?\b|\bpha(?:se)? images?\b", " swi "),
    (r"\bmagic\b", " synthetic "),
    (r"\bc ?t1w?\b|\bt1w? ?ks\b", " t1 after "),
    (r"\bt1 ?c ?wi?\b", " t1 after "),
    (r"\bt1w? ?pre\b(?! ?\w)", " t1 before "),
    (rf"\bt1w?(?:sin|sans|ohne|senza|sem)(?={_AGENT}\b)", " t1 before "),
    (rf"\bt1w?(?:con|com|avec|mit)(?={_AGENT}\b)", " t1 after "),
    (r"\bt1\w* ?minus ?t1", " subtraction t1"),
    (r"\bt2s\b", " t2star "),
    (r"\bt2w? ?fl\b|\bspc ?ir\b|\bspace ?ir\b", " flair "),
    (r"\bt2w? ge\b|\bge t2w?\b", " t2star "),
    (r"\b[ctl] ?spine\b", " spine "),
    (r"\bmpr(?=(?: ns| sag| tra| cor| ax)* (?:p\d|iso|grappa|adni|ns))", " mprage "),
    (r"\bunid?en\b|\buni ?den\b", " mp2rage "),
    (r"\bscreen ?(?:save|shot)\w*|\bsecondary ?capture\b", " report "),
    (r"(?:造影|增强|조영) ?(?:前|전)|非造影|造影なし|単純|单纯|平扫|비조영", " before "),
    (r"增强|造影|조영", " after "),
    (r"[弥扩拡拡]散|диффуз\w*|\bдви\b", " dwi "),
    (r"灌[注流]|перфуз\w*", " perfusion "),
    (r"定位|位置決め|локал\w*|топограм\w*", " localizer "),
    (r"\bпд\b|质子|プロトン", " pd "),
    (r"\bк ?/ ?([ув])\b", r"к\1"),
    (r"\b(?:без|до) ?\w{0,3} ?(?:контр\w*|усил\w*|введ\w*|ку|кв)\b|\bнатив\w*", " before "),
    (r"\b(?:с|после) ?(?:контр\w*|усил\w*|введ\w*|ку|кв)\b|\bс ?/ ?у\b|\bконтраст\w*"
        r"|\+ ?(?:контр\w*|кв|ку|к)\b", " after "),
    (r"\bт([12])", r" t\1 "),
    (r"\bτ([12])", r" t\1 "),
    (r"\b(?:χωρισ|προ|πριν|ανευ) ?(?:(?:το|την|τησ|του) )?(?:σκιαγρ\w*|σκ|εγχυσ\w*|γαδολ\w*)", " before "),
    (r"\b(?:μετα|με) ?(?:(?:το|την|τησ|του) )?(?:σκ|εγχυσ\w*)\b|\bσκιαγρ\w*|\bγαδολ\w*", " after "),
    (r"\bфл(?:аир|эр)\w*", " flair "),
    (rf"\b{_AGENT} ?(?:oncesi|nelkul|elott)|\b(?:kontras|ilac|opak)t?s\w? ?z\b", " before "),
    (r"\b(?:ilac|opak|kontras)l\w\b", " after "),
    (rf"\bpo ?{_AGENT}\b|\bs[ae]? ?k[ls]\b", " after "),  # `s KL` is with contrast where `s mdc` is without
    (rf"\b(?:post|nach|mit|met|med|with|after|apres|despues|dopo|apos) ?{_AGENT}\b|\bsonras\w", " after "),
    (r"\b(?:t1w?|with|con|com|post|\+) ?cm\b|\b(?:with|mit|avec) ?$|\bw ?/ ?$|\bw(?:ith)? ?con\b", " after "),
)  # fmt: skip

_CONCEPTS: dict[str, str] = {
    # concept: its words; `*` stands for any further letters
    "localizer": "localize* localise* localiza* localizz* localisa* lokali* locator* loc locs"
    " lokal local scout scouts aascout aahscout aahead survey surview topogr* topo"
    " repera* pilot tripilot smartbrain smartexam planscan calibration calib refscan senseref coilsens"
    " scano scanogram ubersicht uebersicht autoalign phoenix*",
    "reference": "ref refs reference cal planung",
    "report": "report zipreport dose screensave capture dosis results summary snapshot",
    "segmentation": "seg segm segmentation segmented segmentierung mask masks rtstruct overlay fusion fused surgnavsys"
    " brainmask parcellation synthseg masktum* maskles* tumormask* tumourmask* lesionmask*",
    "subtraction": "sub subt subtr subtra* soustr* sustrac* substrac* sottra* subs",
    "fat_image": "fatimage",
    "opposed": "opposed",
    "in_phase": "inphase",
    "ADC": "adc eadc dadc adcs adcmap",
    "diffusion": "dwi dti diff diffus* difus* difuz* diffuz* dyfuz* dw dmri hardi dsi dki tensor"
    " trace tracew tracemap bvalue tractography tracto mddw ivim noddi resolve edwi ddwi sdwi dwis isodwi"
    " fafa colfa fibertrack dwibs rdwi mbdwi mbdti",
    "anisotropy": "fa aniso*",
    "bolus": "dsc dce bolus cbv rcbv* relcbv ncbv nrcbv* srcbv* stdrcbv*"
    " mtt relmtt rmtt ttp relttp tmax gbp pbp ktrans leakage perm permeab*",
    "perfusion": "perf perfus* perfuz* pwi cbf rcbf qcbf dynamic dyn dynamique dinamico dinamica dynamisch dynamika",
    "labelling": "asl pasl pcasl casl pseudocasl tasl spinlabel*",
    "fmri": "bold fmri func mocoseries rfmri rsfmri tfmri mbold sbref fingertapping restingstate",
    "fieldmap": "fieldmap fieldmapping fieldmaps b0map b1map shim shimming b0rf topup",
    "spectroscopy": "mrs mrsi csi svs spectro* spektro* espectro* spettro* probe press steam"
    " megapress mega hise",
    "CEST": "cest apt aptw amide",
    "elastography": "mre elasto*",
    "ultrasound": "ultraso* ultraschall* ultrassom* ecograf* echograph* sonogra* ius usg",
    "angiography": "tof mra arm mrv angio* venogr* phleb* fleb* arteriogr* venous carotid carotids"
    " carotis carotide cow willis tricks twist inhance trance pcmra pca pc3d 3dpc arteries venen mrangio tofmra"
    " tofcow ceangio qflow 4dflow stenosis",
    "map": "map maps mapa mapas carte karte mappa mapping molli relaxometry t1map t2map r1map r2map qmap"
    " mrac umap parametric mapit fieldstrength qt1 qt2 quantitative pdmap mtr relaxation* t1prime t2prime ratio ratios",
    "synthetic": "synthetic* synth symri synmr syntac",
    "SWI": "swi swip swan eswan qsm susc suscept* suszept* hemo haemo hamo hamos* hemoseq* hemosid* heme hemorr*"
    " haemorr* hemorag* blutung venbold venobold fsbb bsi pha phase swmip swim medic merge mpgr mpgre mfgre megre"
    " minhance t2star t2stern",
    "projection": "mip mips minip mipp projection rotation maxip rot vrt",
    "reformat": "reformat* reform recon recons reconst* rekonst* ricostr* rekon rek reko mprs range"
    " curved multiplanar mpvr",
    "mpr": "mpr",
    "FLAIR": "flair flairs fluid fla t2f tirm darkfluid vflair spcir",
    "inversion": "ir irtse irfse tir irse",
    "stir": "stir",
    "DIR": "doubleinversion dir",
    "nulled": "psir wair fgatir wmn csfnull inv1 inv2 invi invii",
    "PD": "pd pdw dp dpw pdt2 t2pd pdfs proton protondensity protonendichte protondichte rho dualecho dual",
    "T1": "t1 opt1 t1w t1wi t1weighted t1n tt1 t1se t1tse t1fse",
    "volume_T1": "mprage rage memprage mp2rage spgr fspgr fsgpr irspgr irfspgr bravo mdeft tfl tfl3d turboflash"
    " mpragize 3dmprage spgrir efgre3d geir 3dgeir rssg stealthspgr",
    "gradient_T1": "tfe vibe evibe lava thrive flash fl3d ethrive quick3d qk3d ge3d fast3d wats",
    "T2": "t2 t2w t2wi t2weighted tt2",
    "fluid_T2": "haste ssfse sshtse fiesta fiestac ciss drive frfse frtse fase fase3d bffe balanced mrcp",
    "fast_spin": "tse fse space spc cube vista brainview view propeller prop blade multivane jet radar arms fastspin"
    " mvox isofse tse3d fse3d 3dtse 3dfse turbospin xetse primefse matrix",
    "spin": "se spinecho",
    "gradient": "gre fgre ffe fl2d fe gr grass fisp eg fastgre fe2d gre2d grad gradient* ffe2d",
    "steady": "trufi truefisp trufisp",
    "epi": "epi ep2d ep ep2 epi2d feepi seepi",
    "after": "after post pos apos posgd postg* postc* postkm contra* kontra* cont gd gdt gad gado* gadav*"
    " km mkm mitkm nachkm mdc cmdc pdc civ ce inj inject* injek* injet* enhanced enhancement enh t1c t1wc t1ce t1gd"
    " t1post t1cont t1km delay delayed gbca wzmocn* tehoste* fsc fsgd fspost wcontrast gdfs posc stealthpost cte ivkm "
    + _BRANDS,
    "before": "before noncon nonce pre pra prae smdc natywn* nat nativ native nativo nativa nativer preg* prek* prec*"
    " unenhanced noncontrast nc basal t1pre",
    "not_head": "spine cspine tspine lspine wirbel* hws bws lws cervical lumbar lumbal thoracic columna rachis"
    " colonna neck hals cou cuello knee shoulder hip ankle wrist prostate liver abdomen pelvis breast"
    " heart cardiac thorax lumbo* kolumna kregoslup* rdzen* szyjn* ledzw* coluna raquis medula rachide midollo"
    " halswirbel* brustwirbel* lendenwirbel* myelon cwk twk lwk wervel* cervicale cervicales dorsal dorsale dorsolumb*"
    " dorsolomb* lombaire* lombar lombare* csp lsp tsp sacr* genou epaule rodilla hombro joelho ombro"
    " ginocchio schulter schouder wholebody kolano prostata becken",
    "part": "iac iacs iam iams cpa pituitary sella hypophys* hypofysis hipofis* ipofisi orbit orbits orbita*"
    " orbite* temporal hippo* nerve nerves inner ear tmj sinus sinuses felsenbein rocher cai mastoid"
    " trigem* cavernous optic",
    "planes": "planes",
    "plane": "ax axi axial oax tra trans transversal transverse transv axiale trasv cor coronal ocor kor koronar"
    " coro frontal sag sagittal osag sagit obl*",
}  # fmt: skip

_BESIDE_AGENT = ("fs", "fat", "sat", "fatsat")
_WEIGHTED = ("T1", "volume_T1", "gradient_T1", "T2", "FLAIR")


@dataclass(frozen=True)
class _Rule:
    """`role` and `detail` where any concept of `any_of` and all of `and_of` were found, and none of `unless`."""

    role: str | None
    detail: str
    any_of: tuple[str, ...]
    and_of: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


def _other(detail: str, *any_of: str, with_: tuple[str, ...] = (), unless: tuple[str, ...] = ()) -> _Rule:
    return _Rule(OTHER, detail, any_of, with_, unless)


_RULES: tuple[_Rule, ...] = (
    # the first that fits decides
    _other("not head", "not_head"),
    _other("report", "report"),
    _other("localizer", "localizer"),
    _other("localizer", "reference", unless=(*_WEIGHTED, "fast_spin", "gradient_T1", "fluid_T2")),
    _other("segmentation", "segmentation"),
    _other("subtraction", "subtraction"),
    _other("fat image", "fat_image"),
    _other("opposed-phase image", "opposed"),
    _other("ADC", "ADC"),
    _other("diffusion", "diffusion"),
    _other("diffusion", "anisotropy", unless=_WEIGHTED),
    _other("perfusion", "perfusion", "labelling", "bolus"),
    _other("fMRI", "fmri"),
    _other("fieldmap", "fieldmap"),
    _other("spectroscopy", "spectroscopy"),
    _other("CEST", "CEST"),
    _other("elastography", "elastography"),
    _other("ultrasound", "ultrasound"),
    _other("angiography", "angiography"),
    _other("map", "map"),
    _other("synthetic", "synthetic"),
    _other("localizer", "planes", with_=("gradient",)),
    _other("localizer", "planes", with_=("SWI",)),
    _other("localizer", "planes", unless=(*_WEIGHTED, "reformat", "mpr")),
    _other("SWI", "SWI"),
    _other("projection", "projection"),
    _other("dual echo", "PD"),
    _other("inversion", "nulled"),
    _other("DIR", "DIR", unless=("T1", "T2", "volume_T1")),
    _other("EPI", "epi", unless=("FLAIR",)),
    _Rule(None, "words of T1 and of T2", ("T1", "volume_T1"), ("T2",)),
    _other("T2*", "gradient", "gradient_T1", with_=("T2",), unless=("T1", "volume_T1")),
    _Rule(T1, "", ("T1", "volume_T1")),
    _Rule(FLAIR, "", ("FLAIR",)),
    _Rule(FLAIR, "", ("inversion",), ("T2",)),
    _Rule(T2, "", ("T2",)),
    _Rule(T1, "", ("gradient_T1",), ("inversion",)),
    _Rule(None, "inversion recovery of an unknown weight", ("inversion",)),
    _other("STIR", "stir"),
    _Rule(T2, "", ("fluid_T2",)),
    _Rule(T1, "", ("gradient_T1",)),
    _other("steady state", "steady"),
    _Rule(T1CE, "", ("fast_spin",), ("after",)),
    _Rule(T2, "", ("fast_spin",)),
    _other("T2*", "gradient"),
    _Rule(T1CE, "", ("after",), (), ("reformat", "mpr")),
    _other("reformat", "reformat", "mpr"),
)

_PIECES = re.findall(
    r"\w+",
    # what is written without a space between: T1TFE, 3DT1, T2Prop, postGd, eT2W
    "t1w t1 t2w t2 flair mprage fspgr spgr bravo tfe tse fse se ffe gre vibe flash tirm space cube haste ciss"
    " post pre gd gado gad km contrast contraste dwi dti adc swi tof pd pdw map star mpr prop blade propeller"
    " localizer scout survey darkfluid perf perfusion fs ax axial cor coronal sag sagittal tra 3d 2d iso vol w sense"
    " stealth subtracted nativ fatsat ce hr hd cs reg",
)  # fmt: skip
_PREFIXES = ("ss", "s", "e", "d", "v", "wip", "r", "m")  # Philips and GE put them in front
_SPM = "rmsw"  # letters that SPM puts before the name of what it has resliced, corrected, smoothed or warped
_LEAST_GLUED = 5  # letters of a word that is known inside of an unknown one
_LONGEST_TEXT = 256
LETTERS = str.maketrans(
    {"ø": "oe", "Ø": "oe", "ł": "l", "Ł": "l", "ı": "i"}
)  # which have no accent that could be taken off
_DASHES = r"\-\u2010-\u2015\u2212"
_AGENT_WORD = rf"(?:c|k|ce|cm|{_AGENT})"
# a minus, or a nought, says that the agent beside it was not given, unless words say that it was: `C-`, `-KM`, `0 Gd`
_NEGATED = re.compile(
    rf"(?P<given>(?:\+|\b(?:post|with|w|mit|m|nach|after|avec|con|com|apres|dopo))[\W_]*{_AGENT_WORD}[{_DASHES}])"
    rf"|(?:(?<![a-z0-9){_DASHES}])[{_DASHES}]|\([{_DASHES}]\)[ _]?){_AGENT_WORD}(?![a-z0-9{_DASHES}+])"
    rf"|(?<![a-z0-9]){_AGENT_WORD}(?:[{_DASHES}](?![a-z0-9+])|[ _]?\([{_DASHES}]\))"
    rf"|(?<![a-z0-9.,])0[ _]?{_AGENT}(?![a-z0-9])",
    re.IGNORECASE,
)
# `po k.l.`, `vor K. M.`, `dopo m.d.c.`; alone these may be the initials of a patient
_DOTTED = re.compile(
    r"\b(po|[sc]|p[rř]ed|bez|vor|nach|mit|ohne|[mno]\.?|dopo|con|senza|post|prima)[ ._]?"
    r"(k\. ?[lm]|m\. ?d\. ?c)(?![^\W_])\.?",
    re.IGNORECASE,
)
_FAT_FIRST = re.compile(r"^\W*fat ?:|\(fat\)|: ?fat$", re.IGNORECASE)  # GE's name of the fat image of a Dixon series
_END_OF_CLAUSE = re.compile(r"(?<![a-z])(post|pre)(?=\s*[:;])", re.IGNORECASE)  # `AX T1 POST : processed by …`
_PLAIN_MARK = re.compile(r"[^a-z0-9+*/=\u0370-\u03ff\u0400-\u04ff\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]+")


def recognise(text: str) -> Recognition:
    """What the words of a description or a name say.

    >>> recognise("Ax T1 FLAIR +C").role, recognise("t2_spc_da-fl_sag").role, recognise("PRE_GD sT1W_3D_TFE").role
    ('T1ce', 'FLAIR', 'T1')
    >>> recognise("ep2d_diff_3scan_trace_p2_ADC").detail, recognise("brain").role
    ('ADC', None)
    """
    return _recognised(text[:_LONGEST_TEXT])


@lru_cache(maxsize=1 << 12)
def _recognised(text: str) -> Recognition:
    tokens = _tokens(text)
    places: dict[str, int] = {}
    for place, token in enumerate(tokens):
        concept = _WORDS.get(token) or _by_prefix(token)
        if concept:
            places.setdefault(concept, place)
    _in_context(tokens, places)
    before, after = places.get("before"), places.get("after")
    contrast = after is not None if (before is None) != (after is None) else None
    said = Recognition(
        None,
        contrast=contrast,
        reformatted="reformat" in places,
        part="part" in places,
        words=tuple(sorted(places, key=lambda concept: places[concept])),
    )
    if before is not None and after is not None and after < before:
        return replace(said, role=OTHER, detail="subtraction")
    for rule in _RULES:
        if _fits(rule, places):
            return replace(said, role=T1CE if rule.role == T1 and contrast else rule.role, detail=rule.detail)
    return said


def _fits(rule: _Rule, found: Collection[str]) -> bool:
    return (
        any(concept in found for concept in rule.any_of)
        and all(concept in found for concept in rule.and_of)
        and not any(concept in found for concept in rule.unless)
    )


def _in_context(tokens: list[str], places: dict[str, int]) -> None:
    """Words that mean something only beside others: a last `C` or `IV` behind T1, `US` beside `before`."""
    weighted = "T1" in places or "volume_T1" in places
    rest = [token for token in tokens if token not in _BESIDE_AGENT and _WORDS.get(token) != "plane"]
    agent = tokens.index(rest[-1]) if rest and rest[-1] in ("c", "cc", "kl", "iv", "pc", "wc", "cm") else None
    if weighted and agent is not None and "before" not in places:
        places.setdefault("after", agent)
    if "pc" in tokens and places.keys().isdisjoint(_WEIGHTED):
        places.setdefault("angiography", tokens.index("pc"))
    if "us" in tokens and ("before" in places or "after" in places) and places.keys().isdisjoint(_WEIGHTED):
        places.setdefault("ultrasound", tokens.index("us"))  # of an operation
    if ("rest" in tokens or "task" in tokens) and "epi" in places:
        places["fmri"] = places["epi"]


def _tokens(text: str) -> list[str]:
    """Lower-case words without accents, phrases replaced, words that were written together taken apart."""
    text = _DOTTED.sub(lambda found: f"{found[1]} {found[2].replace('.', '').replace(' ', '')} ", text)
    text = _END_OF_CLAUSE.sub(r"\1contrast", _FAT_FIRST.sub(" fat image ", _NEGATED.sub(_without, text)))
    plain = unicodedata.normalize("NFKD", text).translate(LETTERS)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
    plain = unicodedata.normalize("NFC", plain)  # the letters of Korean, which were taken apart too
    plain = " ".join(_PLAIN_MARK.sub(" ", plain).split())
    for pattern, word in _PATTERNS:
        plain = pattern.sub(word, plain)
    return [piece for token in re.findall(r"[a-z0-9]+", plain) for piece in _apart(token)]


def _without(found: re.Match[str]) -> str:
    return found[0] if found["given"] else " without c "


def _apart(token: str) -> list[str]:
    """A token itself where it is known, else the known pieces that it is made of."""
    if token in _WORDS or token.isdecimal() or _by_prefix(token):
        return [token]
    if token[0] in _SPM and token[1:3] in ("t1", "t2") and token[1:] in _WORDS:
        return [token[1:]]
    whole = _pieces(token)
    if whole:
        return whole
    weighted = _WEIGHT.match(token)
    if weighted:
        return [weighted[1], *_apart(weighted[2])]
    if weighted := _WEIGHT_LAST.fullmatch(token):
        return [weighted[1]]
    known = next((word for word in _GLUED if token.startswith(word) or token.endswith(word)), None)
    return [known] if known else [token]


def _pieces(token: str) -> list[str]:
    """The pieces that fill a token completely, a scanner's prefix and numbers left out; empty where they do not."""
    for prefix in ("", *_PREFIXES):
        if token.startswith(prefix) and _is_filled(rest := token.removeprefix(prefix)):
            return _PIECE.findall(rest)
    return []


def _is_filled(token: str) -> bool:
    """Whether pieces fill it, up to four digits behind each: step by step, as a pattern may try ever more ways."""
    reached = [True] + [False] * len(token)
    for place, letter in enumerate(token):
        for piece in _BY_LETTER.get(letter, ()) if reached[place] else ():
            if token.startswith(piece, place):
                end = place + len(piece)
                digits = len(token[end : end + 4]) - len(token[end : end + 4].lstrip("0123456789"))
                reached[end : end + digits + 1] = [True] * (digits + 1)
    return bool(token) and reached[-1]


def _by_prefix(token: str) -> str | None:
    return next((concept for start, concept in _STARTS.items() if token.startswith(start)), None)


_WORDS = {word: concept for concept, words in _CONCEPTS.items() for word in words.split() if not word.endswith("*")}
_STARTS = {word[:-1]: concept for concept, words in _CONCEPTS.items() for word in words.split() if word.endswith("*")}
_PATTERNS = tuple((re.compile(pattern), word) for pattern, word in _PHRASES)
_ALTERNATIVES = "|".join(sorted(_PIECES, key=lambda piece: -len(piece)))
_PIECE = re.compile(_ALTERNATIVES)
_BY_LETTER = {letter: tuple(piece for piece in _PIECES if piece[0] == letter) for letter in {one[0] for one in _PIECES}}
_WEIGHT = re.compile(r"(?:\d?d|[sedw]|wip)?(t[12]w?)([a-z][a-z0-9]*)")
_WEIGHT_LAST = re.compile(r"[a-z]{3,}(t[12]w)")
_GLUED = tuple(word for word in _PIECES if len(word) >= _LEAST_GLUED and word not in ("sense", "axial", "space"))
