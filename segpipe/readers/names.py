"""What the words in file and folder names say: role, visit, and which words are nobody's name.

A name is a text of tokens. Each token is looked up once in the tables of this module and of `recognise`; the reasoning
over a whole archive, which decides whether what is left over is a person, is in `people`.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from segpipe.readers.recognise import recognise

MASK = "mask"
IMAGE = "image"  # the role of an image whose name tells no modality
BRAIN = "map of anatomy"  # of the brain or its parts, never of a lesion: no role of a scan
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
ANY_IMAGE = ("image", "img", "mri", "mr", "scan", "volume", "vol")  # words for an image that say no more of it
VISITED = ("final", "test", *ANY_IMAGE, "mrt", "irm", "rm")  # technical words that visits are called by too
_ORDER = {**{role: place for place, role in enumerate(MODALITIES)}, MASK: len(MODALITIES) + 1}

_ROLE_OF_DETAIL = {"diffusion": "DWI", "fMRI": "bold", "dual echo": "PD"}
_WORD = re.compile(r"[^\W_]+")
_DIGIT, _DIGITS = re.compile(r"\d"), re.compile(r"\d+")
_NUMBER_BEHIND = re.compile(r"[_\-. ](\d+)(?![^\W_])")
_CASE = re.compile(r"((?:.*\D)?)\d{5}((?:\D.*)?)")
_CAMEL = re.compile(
    r"(?<=[a-z])(?=[A-Z][a-z])|(?<=\dD)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z]{2})|(?<=[a-z])(?=T[12])|(?<=[A-Z\d])(?=lesion)"
)

# Masks. `_STRONG` are words for a mask wherever they describe a file; `_WEAK` are words for what a mask shows, which
# name studies and patients as well.
_STRONG = re.compile(
    r"\w*(?:masks?|msk|maske[nr]?|masques?|mascaras?|maschere?a?|mask[aiy]|masca|maszk)"
    r"|glistr|bianca|deepmedic|bratumia|manually|boost|\w*seg(?:s|m)?|\w*sz?egment(?:[aei]\w*)|labels?(?:tr|ts|val|train|test)?|labelmaps?"
    r"|labell?ed|gt|gts|groundtruth|\w*truth|gold|goldstandard|consensus|consenso|konsens|rois?|voi|gtv\w?|ctv|ptv"
    r"|annotations?|annotated|annot|tracings?|traced|ot|contour(?:s|age|ing|ed)?|delineations?|outlines?|manual|expert|rater|rtstruct"
    r"|pred(?:s|icted|ictions?)?"
    r"|\w*(?:标注|分割|掩膜|勾画|マスク|領域|セグメンテ|마스크|분할|маск|сегмент|разметк)\w*"
)
_WEAK = re.compile(
    r"l(?:ae|a|e)si(?:on(?:e[ns]?|i|s)?|es?)|lesao|lesoes|tumou?r(?:e[ns]?|i|s)?|tumeurs?|guz|wmhs?|wml|infarcts?|core"
    r"|o?edema|oe?dem|enhancing|necrosis|metastas[ei]s|mets?|leze|hyperintensit(?:y|ies)|plaques?|strokes?|lez(?:yon|ija|ja|iune)\w*|nador\w*|kasvai\w+|daganat\w*|svulst\w*|tumor(?:al\w*|a)|lozisk[oa]|\w*(?:病灶|肿瘤|病変|腫瘍|병변|종양|опухол|очаг)\w*"
)
_REGIONS = {  # of a lesion, by words of their own in names in lower case
    "oedema": re.compile(r"(?<![a-z])(?:o?edema|oe?dem|ed|snfh|flairabnormality)(?![a-z])"),
    "enhancing": re.compile(r"(?<![a-z])(?<!non_)(?:enhancing|enhancement|enh|et)(?![a-z])"),
    "necrosis": re.compile(r"(?<![a-z])(?:necro[a-z]*|ncr|netc?|non_?enhancing|nonenh)(?![a-z])"),
    "core": re.compile(r"(?<![a-z])(?:core|tc)(?![a-z])"),
    "cavity": re.compile(r"(?<![a-z])(?:cavity|resection|rc)(?![a-z])"),
    "cyst": re.compile(r"(?<![a-z])cysts?(?![a-z])"),
}
_COUNTED = re.compile(rf"(?<![a-z])(?:{_WEAK.pattern}|gtv)_?(?P<number>[0-9]{{1,2}})(?![^\W_])")  # `lesion_2`, `GTV1`
_AGENT = re.compile(r"[ck]ontrast|gado", re.IGNORECASE)  # shorter words may be initials
_BEFORE_AGENT = re.compile(
    r"with|con|com|sem|met|avec|bez|brez|cu|su|med|uten|utan|z|s|po|przed|pred|na", re.IGNORECASE
)
_RATER = re.compile(r"(?:r|rater|reader|expert|observer|annotator)[_\-]?\d", re.IGNORECASE)
_INITIALS = 3  # letters of somebody's initials, at most
_LONG = 5  # digits of a number that a hospital gives
_LAST = re.compile(r"masks?|msk|seg|segmentations?|labels?")  # of a word in camel case, whatever stands before
_ORGANS = (  # of the head, as a planner of radiotherapy names them
    r"brain_?stem|brain|skull|head|(?:de)?face|bet|(?:spinal_?)?cord|ventricles?|cerebellum|hippocamp(?:us|i)|skin|parenchyma"
    r"|intracranial|icv|tiv|(?:optic_?)?chiasma?|optic_?(?:nerves?|tracts?)|eyes?|lens(?:es)?|cochleae?|pituitary|hypophysis"
    r"|lacrimal_?glands?|parotids?|thalam(?:us|i)|body|external"
)
_SIDE = r"(?:l|r|left|right)"
_ORGAN = re.compile(rf"(?:{_SIDE}_)?(?:{_ORGANS})(?:_{_SIDE})?(?:_?\d)?")
_ANATOMY = re.compile(
    rf"(?:^|_)(?:{_ORGANS}|csf|gm|wm|gmwm|tissues?|foreground|hirn|gehirn|cerveau)(?:_{_SIDE})?_?(?:extraction_?|strip(?:ped)?_?)?"
    r"(?:masks?|msk|maske|masque|seg|segm|segmentation|labels?)(?:_?\d+)?(?=_|$)"
    rf"|(?:^|_)(?:masks?|msk|rtstruct)_(?:of_)?(?:the_)?(?:{_SIDE}_)?(?:{_ORGANS})(?:_{_SIDE})?(?:_?\d)?$"
    r"|(?:^|_)(?:aseg|aparc|wmparc|ribbon|synthseg|fseg|brainmask|brainseg|tissueseg|tissue_?classes|bm|pve(?:seg)?"
    r"|pve_\d|parcellation|atlas|nawm|a2009s|dkt|lh|rh)(?:_?\d)?(?=_|$)"
    r"|skull_?strip\w*mask"
)
_SIDED = re.compile(r"lesions?_[lr]h(?=_|$)")  # in a hemisphere, and no map of it
_MADE_OF = re.compile(r"(?:[mwrsu]{0,3}[cp][0-6]|i?y_)(?P<name>.+)")
_PARCELS = re.compile(r"aseg|aparc|wmparc|synthseg|brainmask|brainseg|tissueseg|parcellation|nawm")
_BEST = re.compile(
    r"consensus|consenso|konsens|gold|truth|groundtruth|(?:^|_)gts?(?=_|$)|final|staple|approved|correct(?:ed|ions?)"
)
_DRAFT = re.compile(  # CTV and PTV are drawn with a margin
    r"(?<![a-z])(?:approx\w*|drafts?|initial|first|old|backup|healthy|normal|[cp]tv)(?![a-z])"
)
_PROGRAM = re.compile(
    r"(?<![a-z])(?:auto(?:seg|mated|matic)?|pred(?:s|icted|ictions?)?|outputs?|infer(?:red|ence)|ai|cnn|model\d*|algo\w*|nn|glistr|bianca|bratumia)"
    r"(?![a-z])|nnu-?net|u-?net|deep|hd_?glio|samseg|(?<![a-z])lst(?![a-z])"
)

# Words that say how files are kept or what was done to them: nobody is called so.
_TECHNICAL = frozenset(
    [
        "image",
        "images",
        "imgs",
        "img",
        "anat",
        "anatomy",
        "anatomical",
        "nifti",
        "niftis",
        "nii",
        "niigz",
        "data",
        "dataset",
        "datasets",
        "database",
        "db",
        "raw",
        "rawdata",
        "sourcedata",
        "source",
        "sources",
        "derivatives",
        "derived",
        "processed",
        "preprocessed",
        "preproc",
        "preprocessing",
        "proc",
        "processing",
        "output",
        "outputs",
        "result",
        "results",
        "input",
        "inputs",
        "mri",
        "mris",
        "mr",
        "mrt",
        "irm",
        "rm",
        "mrscan",
        "scans",
        "scan",
        "sessions",
        "acquisitions",
        "experiments",
        "assessors",
        "subjects",
        "patients",
        "patienten",
        "cases",
        "participants",
        "archive",
        "archives",
        "download",
        "downloads",
        "export",
        "exports",
        "structural",
        "structurals",
        "structures",
        "struct",
        "volumes",
        "volume",
        "vol",
        "vols",
        "training",
        "train",
        "validation",
        "val",
        "valid",
        "test",
        "testing",
        "tr",
        "ts",
        "dev",
        "holdout",
        "eval",
        "evaluation",
        "development",
        "unzipped",
        "extracted",
        "tmp",
        "temp",
        "converted",
        "conv",
        "misc",
        "files",
        "file",
        "content",
        "brain",
        "brains",
        "bet",
        "skullstripped",
        "skull",
        "strip",
        "stripped",
        "ss",
        "noskull",
        "n4",
        "n3",
        "bias",
        "biascorr",
        "biascorrected",
        "unbiased",
        "corrected",
        "corr",
        "reg",
        "registered",
        "coreg",
        "coregistered",
        "registration",
        "rigid",
        "affine",
        "warped",
        "warp",
        "norm",
        "normalized",
        "normalised",
        "resampled",
        "resample",
        "reorient",
        "reoriented",
        "cropped",
        "crop",
        "iso",
        "isotropic",
        "mni",
        "mni152",
        "sri",
        "sri24",
        "talairach",
        "space",
        "std",
        "standard",
        "orig",
        "original",
        "final",
        "masked",
        "gfc",
        "anon",
        "anonymized",
        "anonymised",
        "deidentified",
        "deid",
        "defaced",
        "deface",
        "denoised",
        "smooth",
        "smoothed",
        "stx",
        "flirt",
        "fnirt",
        "ants",
        "hdbet",
        "nobias",
        "pp",
        "prep",
        "winsor",
        "winsorized",
        "reduced",
        "noneck",
        "new",
        "copy",
        "copies",
        "batch",
        "disc",
        "tranche",
        "backup",
        "backups",
        "bak",
        "old",
        "kopie",
        "kopien",
        "copie",
        "copia",
        "sicherung",
        "and",
        "the",
        "of",
        "in",
        "to",
        "from",
        "on",
        "with",
        "for",
        "brainextraction",
        "betted",
        "ground",
        "native",
        "nativ",
        "be",
        "nu",
        "t88",
        "talairached",
        "hires",
        "lowres",
        "left",
        "right",
        "only",
        "highres",
        "hr",
        "lr",
        "full",
        "head",
        "brainonly",
        "nonskullstripped",
        "analysis",
        "work",
        "workdir",
        "mgz",
        "mgh",
        "minc",
        "nrrd",
        "dicom",
        "dcm",
        "dicoms",
        "pipeline",
        "bilder",
        "bild",
        "daten",
        "aufnahmen",
        "serie",
        "series",
        "resource",
        "resources",
        "bin",
        "binary",
        "binarized",
        "protocol",
        "protocols",
        "all",
        "automated",
        "automatic",
        "approx",
        "modality",
        "modalities",
        "sequence",
        "sequences",
        "mnispace",
        "nativespace",
        "template",
        "atlasspace",
        "axis",
        "grid",
        "mm",
        "freesurfer",
        "fsl",
        "spm",
    ]
)
_TECHNICAL_PATTERN = re.compile(
    r"\d*mm|\dx\dx?\d?|[1-7]d|[1-7]t|iso\d*|(?:images?|imgs?)(?:tr|ts|val|train|test)|(?:anat|nifti|scan)\d+"
    r"|(?:reg|registered|coreg|warped|aligned)?(?:to|2|in|on)(?:mni\w*|sri\w*|flair|t1\w*|t2\w*|atlas|template|std|common)"
    r"|\d{1,2}ch|n4\w*|r?e?s?ampled\w*|fold\d*|split\d*|v\d+\.\d+|part\d+|(?:batch|disc|disk|cd|dvd|chunk|tranche|teil)\d+|dim\d|run\d+|\d?(?:inverse)?warp|brain\w*extract\w*"
)
_COPY = re.compile(
    r"(?<![^\W_])(?:copy|copies|kopien?|copie|copia|backups?|bak|sicherung|old)(?![^\W_])|\(\d\)|\.long\.",
    re.IGNORECASE,
)
_PROCESSED = re.compile(
    r"proc|norm|mni|reg|raw|orig|prep|native|space|strip|warp|deriv|result|output|cop[iy]|kopie|lin"
)
_WEIGHTED = re.compile(r"[tт][12]|flair|флаир|^флэр$|^fla$|^mpr$|mprage|spgr|bravo|tirm|vibe|tfl|darkfluid")
_NATIVE = re.compile(r"(?<![^\W_])native?(?![^\W_])", re.IGNORECASE)
_UID = re.compile(  # of a DICOM study, or what a server calls one
    r"\d+(?:\.\d+){5,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:[0-9a-f]{8}-){4}[0-9a-f]{8}", re.IGNORECASE
)
_FL = re.compile(r"fl(?![^\W_])", re.IGNORECASE)
_NUMBERED = re.compile(  # `T2DM014`, `MSSEG012`
    r"(?:t[12](?P<behind>[a-z]{2,})|(?P<before>[a-z]{2,})seg)(?!(?:19|20)\d\d$)\d{3,}"
)
_ODD_WEIGHT = re.compile(r"t[12]([a-z]{2,})", re.IGNORECASE)
_OTHER_IMAGE = re.compile(
    r"e?adc|dwi|dti|swi|swan|pdw?|dp|bold|cbf|cbv|asl|flash|gre|dir|psir|stir|tof|mra|dsc|perf\w*|diff\w*|fa|ktrans"
    r"|subt?\w*tion|qsm|t2star|hemo|adcmap|epi|fmri|pwi|mtt|ttp|localizer|scout"
)
_DONE = re.compile(r"(?<=..)(?:reg(?:istered)?|maps?|brain|ss|norm|raw)$")
_TARGET = re.compile(
    r"(?:[_\-. ](?:reg(?:istered)?|coreg(?:istered)?|aligned|warped|align)?[_\-. ]?(?:to|onto)[_\-. ]?"
    r"|(?<=[a-z]{3})2|(?<=[a-z])to)"
    r"(?:mni\w*|sri\w*|atlas|template|std|common|native|flair|t1\w*|t2\w*|pd)(?=$|[_\-. ])"
    r"|[_\-. ]in[_\-. ](?:mni\w*|flair|t1\w*|t2\w*)(?:[_\-. ]?space)?(?=$|[_\-. ])|_(?-i:space)-\w+?(?=$|[_\-. ])",
    re.IGNORECASE,
)
_PATIENTS = (  # in more languages
    r"caso|pacient[ek]?|paziente|pacjent(?:ka)?|pacijent|bolnik|hasta|beteg|potilas|sujeto|soggetto|sujeito|пациент"
)
_PERSON = re.compile(
    r"(?:(?:train|training|test|testing|val|validation)[_\-. ])?"
    rf"(?:patients?|patienten?|pat|pt|subjects?|subj|sub|suj|sujet|proband|probandin|participants?|case|cas|fall|person"
    rf"|{_PATIENTS}"
    r"|volunteer|vol|control|healthy|hc|id|pid|mrn|患者|病人)?[_\-. ]?(?:id|no|nr)?[_\-. ]?0*\d+[a-z]?",
    re.IGNORECASE,
)
_PERSON_WORD = re.compile(
    rf"patient|(?<![^\W_])(?:{_PATIENTS})(?![^\W\d_])|(?<![a-z])(?:pat|pt|subj?|suj|sujet|proband|participant|case|cas|fall|person|hc|control|volunteer|id|pid"
    r"|mrn)(?![a-z])|患者|病人",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"control[_\-. ]?\d{1,2}", re.IGNORECASE)
_ANYONES = re.compile(r"[^\W\d_]{1,2}[_\-. ]?\d+[a-z]?")
_NUMBERS = re.compile(r"\d+(?:[_\-. ]\d+)+")
_COUNTED_IMAGE = re.compile(r"(?:images?|imgs?|volumes?|vol|scans?)[_\-. ]?(?!0\d\d)\d+", re.IGNORECASE)
_SITE = re.compile(
    r"cent(?:er|re|rum)|site|hospital|klinik|clinic|hopital|h[oô]pital|institut|中心|医院", re.IGNORECASE
)
_GROUP = re.compile(
    r"cent(?:er|re|rum)|site|hospital|klinik|clinic|hopital|h[oô]pital|institut|scanner|cohort|kohorte|group|gruppe"
    r"|groupe|batch|arm|dataset|release|vendor|kollektiv|中心|医院|part(?!i)"
    r"|(?<![a-z])(?:who|grad(?:e|ing)?)[_\-. ]?(?:\d|i{1,3}v?$)|idh[_\-]?\d?|h3[._\-]?[kg]\d|1p19q|mgmt"
    r"|station|(?<![a-z])ward|zimmer|(?<![a-z])room|abteilung|department|d[eé]partement"
    r"|siemens|philips|(?<![a-z])ge(?=[_\-. ]?\d)|(?<![\d.])\d(?:[._]\d)?t$",
    re.IGNORECASE,
)

# Visits: words with a number, words alone, dates.
_START, _END = r"(?<![^\W_])", r"(?![^\W_])"
_VISIT_NUMBER = (
    r"(?:ses|sess|sessions?|sitzung|visits?|visite|vis|besuch|tp|time[ _\-]?points?|timept|zeitpunkt|fup?"
    r"|follow[ _\-]?ups?"
    r"|seguimi?ento|controllo|visita|revisi[oó]n|bezoek|maand|dag|jaar|wizyta|badanie|kontrola|m[eê]s(?:es)?|mesi|mese"
    r"|semanas?|settimana|d[ií]a|giorno|a[nñ]o|anno|bilan"
    r"|followup|verlauf|verlaufskontrolle|nachsorge|suivi|controle|contr[oô]le|kontrolle|months?|mois|monate?|mth|mo"
    r"|weeks?|wks?|semaine|woche|days?|tag|jour|years?|yrs?|jahr|ann[eé]e|hours?|wave|welle|round|epoch|cycles?|zyklus|ciclo|pre[_\-]?op"
    r"|post[_\-]?op|baseline|bl|recurrence|rezidiv|progression|relapse|第)"
)
_VISIT_WEAK = r"(?:study|studie|studies|exam|examen|examination|untersuchung|scan|scannr|time|acquisition|acq)"
_VISIT_WORD = (
    r"(?:baseline|basal|base[_\-]line|bl|screening|scr|eot|eos|follow[ _\-]?ups?|followup|fu|verlauf|suivi|nachsorge"
    r"|initial|nulmeting|inicial|basale"
    r"|(?:pre|post|intra|peri|pr[aä]e?|pr[eé]|p[oó]s|voor|na)[ _\-]?"
    r"(?:op|op[eé]ra?t\w*|surg\w*|treat\w*|tx|rt|crt|radio\w*|chemo\w*"
    r"|therap\w*|biops\w*|resect\w*|interv\w*|immuno\w*|intervention)\d*"
    r"|(?:p[rř]ed|przed|po|prije|nakon|vor|nach|avant|apr[eè]s|antes|despu[eé]s|depois|prima|dopo)[ _\-]"
    r"(?:(?:de|da|do|del|della|la) )?(?:op|operac\w*|opera[tz]\w*|zabieg\w*|zakrok\w*|chir\w*|cirug\w*|cirurg\w*"
    r"|interv\w*|rt|bestrahlung)"
    r"|c\d{1,2}[_\-]?d\d{1,3}"  # a cycle of treatment and its day
    r"|recurrence|recurrent|rezidiv|progression|relapse|nadir|diagnosis|erstdiagnose|erstuntersuchung"
    r"|(?:first|second|third|last|1st|2nd|3rd|4th|erstes?|zweites?|drittes?|eerste|tweede|derde|prim[ao]|second[ao]|terz[ao]"
    r"|primera?|segund[ao]|terceira?|tercera?|premi[eè]re?|deuxi[eè]me|troisi[eè]me)[ _\-]?"
    r"(?:scan|visit[ae]?|exam(?:en|e)?|esame|study|mri?|mrt|irm|rm|timepoint|untersuchung|kontrolle|controllo|control|onderzoek)"
    r"|\d{1,2}\.[ _]?(?:mri?|mrt|irm|rm|untersuchung|kontrolle|visite?|scan|exam(?:en)?)"
    r"|第[一二三四五六七八九十\d]{1,3}[次回期]|术前|术后|基线|随访|复查|治疗前|治疗后|放疗前|放疗后)"
)
_COUNT = (
    r"(?:\d{1,3}[ _\-]?(?:months?|mois|monate?|mth|mo|weeks?|wks?|wochen?|semaines?|days?|tage?|years?|yrs?|jahre?"
    r"|mes(?:es|e|i)?|semanas?|settiman[ae]|d[ií]as?|giorn[io]|a[nñ]os?|ann[oi]|ans|jours?|maand(?:en)?|weken|dagen|jaren"
    r"|hours?|hrs?)|\d{1,2}[ _\-]?[mwyh])"  # `101M` is a man
)
_YEAR, _MONTH, _DAY = r"(?:19[89]\d|20[0-4]\d)", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_MONTH_NAME = (  # nothing else begins so: `Meier_2019` and `Decker_2019` are people
    r"(?:jan(?:uar[iy]?|vier|eiro)?|j[aä]nner|ene(?:ro)?|gen(?:naio)?|feb(?:ruar[iy]?|rero|braio)?|f[eé]v(?:rier|ereiro)?"
    r"|mar(?:ch|s|zo|[cç]o)?|m[aä]rz?|maa(?:rt)?|apr(?:ile?)?|abr(?:il)?|avr(?:il)?|mayo?|maio?|maja?|mei|mag(?:gio)?"
    r"|jun[ei]?|jun(?:io|ho)|juin|giu(?:gno)?|jul[iy]?|jul(?:io|ho)|juil(?:let)?|lug(?:lio)?|aug(?:ust(?:us)?)?|ago(?:sto)?|ao[uû]t?"
    r"|sept?(?:ember|embre|iembre)?|set(?:t?embre|embro)?|o[ck]t(?:ober|obre|ubre)?|ott(?:obre)?|out(?:ubro)?"
    r"|nov(?:ember|embre|iembre|embro)?|d[eé][cz](?:ember|embre|embro)?|dic(?:iembre|embre)?)"
)
_CLOCK = r"(?:[ _T\-]?\d{2}[_:\-.]?\d{2}(?:[_:\-.]?\d{2}(?:[._]\d{1,6})?)?)?"
_DATE = (
    rf"(?:{_YEAR}(?P<s>[_\-. ]?){_MONTH}(?P=s){_DAY}(?:(?=_{_YEAR}{_MONTH}{_DAY}(?!\d))|{_CLOCK})"  # no clock: a date
    rf"|{_DAY}[_\-.]{_MONTH}[_\-.]{_YEAR}|{_MONTH}[_\-.]{_DAY}[_\-.]{_YEAR}"
    rf"|(?:{_YEAR}-|(?<![_\-. ]){_YEAR}_){_MONTH}(?![_\-.]\d)"
    rf"|{_DAY}\.{_MONTH}\.[0-4]\d(?!\.\d)|{_YEAR}[_\-]?Q[1-4]"
    rf"|(?:{_DAY}|[1-9](?=[_\-. ]))?[_\-. ]?{_MONTH_NAME}[_\-. ]?{_YEAR}"
    rf"|{_YEAR}[_\-. ]?{_MONTH_NAME}[_\-. ]?{_DAY}?|\d{{2}}{_MONTH_NAME}\d{{2}}"
    rf"|{_YEAR}年\d{{1,2}}月(?:\d{{1,2}}日)?)"
)
_VISIT = re.compile(
    rf"{_START}(?:(?:(?:mri?|mrt|irm|anat)[_\-]?)?(?P<date>{_DATE})"
    rf"|{_VISIT_NUMBER}(?![ _\-.]?[23]d{_END})[ _\-.]?\d{{1,5}}"
    rf"(?!(?<=[_ ]\d\d)-\d{{3}}{_END})[a-z]?(?:-\d{{1,2}})?"  # not in `BL_01-001`, nor `Preop-3D`
    rf"|(?:sessions?|ses|visits?|visite|besuch|tp|time[ _\-]?points?|zeitpunkt)[ _\-]?[a-h]|ses-[a-z]+\d+"
    rf"|{_VISIT_WORD}|{_COUNT})"
    rf"{_END}",
    re.IGNORECASE,
)
_VISIT_ELSE = re.compile(
    rf"{_START}(?:{_VISIT_WEAK}[ _\-.]?\d{{1,3}}[a-z]?|(?:mri?|mrt|irm)\d{{1,2}}){_END}", re.IGNORECASE
)
_DATED = re.compile(rf"{_DATE}(?!\d)", re.IGNORECASE)
_VISIT_FOLDER = re.compile(
    rf"(?:pre|post|before|after|vor(?:her)?|nach(?:her)?|avant|apr[eè]s|early|late|first|second|third|{_YEAR})",
    re.IGNORECASE,
)
_VISIT_BEFORE = re.compile(r"(?P<visit>(?:pre|post|before|after)\d?)[_\-. ](?P<name>.+)", re.IGNORECASE)
_VISIT_END = re.compile(r"(?P<name>.*)[_\-. ](?P<visit>(?:pre|post)[_\-]?\d?)", re.IGNORECASE)
VISIT_LETTER = re.compile(r"[vmwdtyj]\d{1,4}|\d{1,2}(?:st|nd|rd|th)", re.IGNORECASE)
TIMEPOINT = re.compile(r"(t[0-9])(?:[_\-. ]+(?P<rest>.+))?", re.IGNORECASE)
_YMD = re.compile(rf"({_YEAR})[_\-. ]?({_MONTH})[_\-. ]?({_DAY})")
_GLUED = re.compile(r"(.*\d)(flair|t1ce|t1gd|t1c|t1w?|t2w?|t2f|seg|mask)(?P<rest>[_\-. ].*)?", re.IGNORECASE)
_COPIED = re.compile(  # what file shares put behind a name: `T1 (conflicted copy 2021-03-04)`
    r"(?<!\s)\s*[(\[][^()\[\]]*(?<![^\W_])(?:cop(?:y|ies)|kopie|copie|copia|conflict\w*|konflikt\w*)(?![^\W_])[^()\[\]]*[)\]]",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"(?<![_\-. ])[_\-. ]*\(([^\W\d_][^()]*|\d+(?:st|nd|rd|th))\)$")  # `P7 (pre)`
_BEHIND_NUMBER = re.compile(r"(?<=\d)(?<![Tt][12])(?=(?:pre|post)(?:op)?\d?(?![^\W_]))", re.IGNORECASE)  # `P01pre`
_APART = (  # what belongs together, or apart: names of dcm2nii, an agent's plus, and names of pulses
    (re.compile(r"^c?o(?=\d{8}_\d{6}[A-Za-z])"), "reoriented_"),
    (re.compile(r"(\d{8}_\d{6})([A-Za-z]\w*?)s\d{3}a\d{3,4}[A-Z]?$"), r"\1_\2"),
    (re.compile(r"(?<![^ _\-.])(?:\+ ?c|c ?\+)(?![^\W_])", re.IGNORECASE), "ce"),
    (re.compile(r"(?<![^\W_])da(?:rk)?[_\- ]fl(?:uid)?(?![^\W_])", re.IGNORECASE), "darkfluid"),
    (re.compile(r"(?<![^\W_])mp[_\- ]?(2?)[_\- ]?rage(?![^\W_])", re.IGNORECASE), r"mp\1rage"),
)


@dataclass(frozen=True)
class Said:
    """What the words that describe a file say: its role, None if they say none.

    `rank` orders masks of one scan, the best first. `weak` marks a mask that only a word for what it shows makes one,
    `shown` an image whose name has such a word beside its modality's, as `Lesion_FLAIR`. `label` is what the words
    are, for the name of an image of no known modality.
    """

    role: str | None
    label: str = ""
    rank: int = 0
    weak: bool = False
    shown: bool = False


@dataclass(frozen=True)
class Folder:
    """What a folder's name says: `text` is what may name a person, empty where nothing does."""

    text: str
    visits: tuple[str, ...] = ()
    said: Said | None = None
    mask: bool = False
    weak: bool = False
    raw: str = ""
    behind: bool = False  # whether the text stands behind words for what an image is
    spare: str = ""  # a hospital's numbers beside technical words, which name a person if nothing above does
    agent: bool = False  # whether it says that images were taken after contrast, and nothing else
    study: bool = False  # whether a word for masks stands before its number, and is the study's if nobody is above

    @property
    def dated(self) -> bool:
        """Whether the name begins with a date."""
        return bool(_DATED.match(self.raw))


@dataclass(frozen=True)
class Cut:
    """A stem in its parts: what may name a person, visits, what describes the file, and what stands behind that."""

    text: str
    visits: tuple[str, ...]
    tail: str
    behind: str


def role_order(role: str) -> tuple[int, str]:
    """Sort key of roles: FLAIR, T1, T1ce, T2, then others by name, the mask last."""
    return _ORDER.get(role, len(MODALITIES)), role


@lru_cache(maxsize=1 << 12)
def modality(text: str) -> str | None:
    """The modality that words stand for, canonical; None if they are none.

    >>> modality("t1gd"), modality("FLAIR"), modality("adc"), modality("john")
    ('T1ce', 'FLAIR', 'ADC', None)
    """
    found = recognise(text)
    if "mpr" in found.words and not {*found.words} - {"mpr", "plane", "after", "before"}:
        # a reformatted image among series, but a magnetisation-prepared sequence in a file's name (OASIS)
        found = recognise(re.sub("mpr", "mprage", text, count=1, flags=re.IGNORECASE))
    if found.role is None and _FL.match(_without_technical(text)):
        return "FLAIR"  # as CaPTk calls it; among the words of a series it may be a fast low-angle shot
    if found.detail == "subtraction" and (native := _NATIVE.sub("", text)) != text:
        return modality(native)  # `T1ce_native` lies in its native space
    if found.role == "other":
        return _ROLE_OF_DETAIL.get(found.detail, found.detail.replace(" ", "-"))
    return found.role


def _without_technical(text: str) -> str:
    """Words behind those that say how a file was made: `fl_ants` of `brain_fl_ants`."""
    return next((text[word.start() :] for word in _WORD.finditer(text) if word[0].lower() not in _TECHNICAL), "")


@lru_cache(maxsize=1 << 14)
def describe(text: str) -> Said:
    """Role of the words that describe a file.

    >>> [describe(text).role for text in ("T1_N4_regtoFLAIR", "LesionSeg-Flair", "brain_mask", "t1gd", "wmh", "orig")]
    ['T1', 'mask', 'map of anatomy', 'T1ce', 'mask', None]
    """
    text = _TARGET.sub("", text)
    normal = "_".join(_pieces(text))
    label = "-".join(word for word in normal.split("_") if word)
    words = normal.split("_")
    if _ANATOMY.search(_SIDED.sub("lesion", normal)) and not (len(words) > 1 and _fits(_WEAK, words[-1])):
        return Said(BRAIN, label)
    rank = 0 if _BEST.search(normal) else (9 if _DRAFT.search(normal) or _PROGRAM.search(normal) else 2)
    rank += words in (["mask"], ["msk"])  # beside `seg` it may be one of the brain
    shown = any(_fits(_WEAK, word) for word in words)
    if any(_fits(_STRONG, word) for word in words):
        return Said(MASK, label, rank + (0 if shown else 3 if any(map(_WEIGHTED.search, words)) else 2))
    role = modality(text)
    if role in MODALITIES and not (len(words) > 1 and _fits(_WEAK, words[-1])):
        return Said(role, label, shown=shown)
    if shown:
        return Said(MASK, label, rank + 1, weak=True)
    return Said(role, label)


def is_mask_word(word: str) -> bool:
    """Whether a word alone, with a number or without, makes a file a mask."""
    return any(_fits(_STRONG, piece) or piece in ("lesion", "lesions") for piece in _pieces(word))


def is_by_program(path: str) -> bool:
    """Whether words of a mask's path say that a program has drawn it.

    >>> is_by_program("P1/P1_pred_seg.nii"), is_by_program("AI/P1/manual_seg.nii"), is_by_program("P1/P1_AI_mask.nii")
    (True, False, True)
    """
    words = "_".join(_pieces(path.rpartition("/")[2]))
    folders = "_".join(_pieces(path.rpartition("/")[0]))
    return bool(_PROGRAM.search(words) or re.search(r"(?<![a-z])pred(?:icted|ictions?|s)?(?![a-z])", folders))


def is_organ(name: str) -> bool:
    """Whether a name is that of an organ of the head, as masks of it are called in a folder of masks.

    >>> is_organ("Brainstem"), is_organ("OpticNerve_L"), is_organ("GTV"), is_organ("eye_lesion")
    (True, True, False, False)
    """
    return bool(_ORGAN.fullmatch("_".join(_pieces(name))))


def is_best(name: str) -> bool:
    """Whether words of a mask's name say that it is what several people agreed on, or the last of several."""
    return bool(_BEST.search("_".join(_pieces(name))))


@lru_cache(maxsize=1 << 12)
def regions_of(name: str) -> frozenset[str]:
    """The parts of a lesion, or the one of several lesions, that a mask's name tells of: of each one word.

    >>> sorted(regions_of("P1_non-enhancing_mask")), sorted(regions_of("segED")), sorted(regions_of("tumour-seg"))
    (['necrosis'], ['oedema'], [])
    >>> sorted(regions_of("P1_lesion_2"))
    ['number 2']
    """
    words = "_".join(_pieces(name))
    found = {region for region, pattern in _REGIONS.items() if pattern.search(words)}
    counted = _COUNTED.search(words)
    return frozenset(found or {f"number {counted['number']}"} if counted else found)


def is_map_of(stem: str, others: Collection[str]) -> bool:
    """Whether a file is a tissue map or a deformation that SPM or CAT has made of another file beside it.

    >>> is_map_of("wc1T1", {"T1"}), is_map_of("p1T1", {"p2T1"})
    (True, False)
    """
    match = _MADE_OF.fullmatch(stem)
    return bool(match and match["name"] in others)


def numbered_like(name: str) -> str:
    """A name with zeros for a number of five digits, which is no date: with any others it reads the same.

    >>> numbered_like("BraTS2021_00006"), numbered_like("P06"), numbered_like("20190102")
    ('BraTS2021_00000', 'P06', '20190102')
    """
    match = _CASE.fullmatch(name)
    return f"{match[1]}00000{match[2]}" if match else name


@lru_cache(maxsize=1 << 16)
def folder(name: str) -> Folder:
    """What a folder's name says.

    >>> folder("1_T1").said.role, folder("Raw_Data").text, folder("week-040").visits, folder("IXI-T1").text
    ('T1', '', ('week-040',), 'IXI')
    """
    like = numbered_like(name)
    if like != name and folder(like) == Folder(like, raw=like):
        return Folder(name, raw=name)
    if _VISIT_FOLDER.fullmatch(name):
        return Folder("", (name,), raw=name)
    if _UID.fullmatch(name):
        return Folder("", (name,), raw=name)
    if name == "fl":  # beside `t1` a kind of image; in capitals somebody's initials
        return Folder("", (), Said("FLAIR", name), raw=name)
    visits, rest = _visits_and_rest(name.partition(".long.")[0])  # FreeSurfer's `p1_tp1.long.p1_base`
    ends = _VISIT_END.fullmatch(rest)
    if (
        ends
        and has_digit(ends["name"])
        and all(kind_of(one) in ("id", "number") for one in _WORD.findall(ends["name"]))
    ):
        visits, rest = (*visits, ends["visit"]), ends["name"]
    kinds = [(match, kind_of(match[0])) for match in _WORD.finditer(rest)]
    described = [kind for _, kind in kinds if kind in ("modality", "mask")]
    if kinds and all(kind in ("technical", "number") for _, kind in kinds) and any(k == "technical" for _, k in kinds):
        numbers = [match[0] for match, kind in kinds if kind == "number"]
        spare = "_".join(numbers) if numbers and rest.startswith(numbers[0]) and len(numbers[0]) >= _LONG else ""
        return Folder("", visits, raw=name, spare=spare)
    if not described and (agent := _agent(rest)) is not None:
        return Folder("", visits, raw=name, agent=agent)
    if kinds and all(kind != "id" for _, kind in kinds) and described:
        said = describe(rest)
        return Folder("", visits, said, mask=said.role == MASK, raw=name)
    if kinds and all(kind in ("weak", "technical") for _, kind in kinds):
        return Folder(rest, visits, Said(MASK, "", 6, weak=True), weak=True, raw=name)
    others = [match[0] for match, kind in kinds if kind == "modality" and not _WEIGHTED.search(match[0].lower())]
    if kinds and kinds[0][1] == "id" and kinds[-1][1] in ("id", "number") and len(others) == len(described):
        return Folder(rest, visits, raw=name)  # `QIN-BRAIN-DSC-MRI-01`: the word belongs to the study's name
    numbered = [kind for _, kind in kinds[-2:]] == ["mask", "number"] and not has_digit(rest[: kinds[-1][0].start()])
    if numbered and any(kind == "id" for _, kind in kinds):  # `VS-SEG-001`: so does a word for masks before the number
        return Folder(rest, visits, raw=name, study=True)
    if not described:
        return Folder(_trimmed(rest, kinds), visits, raw=name)
    parts = cut(rest)
    said = describe(parts.tail)
    named = parts.text or parts.behind
    mask = said.role == MASK and not said.weak
    return Folder(named, visits, said, mask=mask, raw=name, behind=not parts.text)


@lru_cache(maxsize=1 << 12)
def cut(stem: str) -> Cut:
    """A stem in its parts.

    >>> cut("MS_lesion_P1_FLAIR")[:1] if False else cut("MS_lesion_P1_FLAIR").text
    'MS_lesion_P1'
    >>> cut("PatientID_0003_Timepoint_1_brain_t1c").visits, cut("T1_007").behind, cut("t2_tirm_tra_4").text
    (('Timepoint_1',), '007', '')
    """
    visits, rest = _visits_and_rest(_COPIED.sub(" copy", stem))
    glued = _GLUED.fullmatch(rest)
    if glued and not (_TECHNICAL_PATTERN.fullmatch(glued[1].lower()) or recognise(glued[1]).words):
        rest = f"{glued[1]}_{glued[2]}{glued['rest'] or ''}"
    words = list(_WORD.finditer(rest))
    kinds = [kind_of(word[0]) for word in words]
    if len(words) > 1 and kinds[1] == "word" and words[0].end() == 1 and rest[1] == "-" and rest[0].isalpha():
        kinds[0] = "word"  # `e-THRIVE` is the name of a pulse, and `e` is nobody's
    if len(words) > 1 and kinds[-2] in ("weak", "mask") and _RATER.fullmatch(words[-1][0]):
        kinds[-1] = kinds[-2]  # `lesion_R1`: who drew it
    strong = _first_modality(kinds, words)
    said = _WORD.sub(lambda word: "" if _is_odd_name(word[0]) else word[0], rest)
    if strong is None and modality(said) in MODALITIES:  # only words together say it, as in `dark_fluid`
        strong = next((n for n in reversed(range(len(words))) if modality(rest[words[n].start() :]) in MODALITIES), 0)
    if strong is None:
        strong = next(
            (
                n
                for n in (len(words) - 2, len(words) - 1)
                if (n > 0 or (n == 0 and len(rest) > _INITIALS)) and _is_anatomy(rest[words[n].start() :])
            ),
            None,
        )
    if strong is None:
        masks = [n for n, kind in enumerate(kinds) if kind == "mask"]
        strong = next((n for n in masks if not _identity(kinds, words, n + 1, len(words)) or n == masks[-1]), None)
    if strong is None:
        last = len(kinds) - 1 - (kinds[-2:] == ["weak", "weak"])
        strong = next((n for n in range(len(kinds)) if kinds[n] == "weak" and n >= last), len(words))
    lead = _identity(kinds, words, 0, strong)
    if lead is None and strong == len(words) and all(kind in ("technical", "word", "weak", "number") for kind in kinds):
        numbers = all(kind == "number" for kind in kinds)
        return Cut(rest if numbers else "", visits, "" if numbers else rest, "")
    if lead is None:
        behind = _behind(rest, words, kinds, strong)
        odd = behind and _is_odd_name(_WORD.findall(behind)[0])  # `FLAIR_T2DM014`: the name tells nothing of the image
        return Cut("", visits, rest.removesuffix(behind).rstrip("_-. ") if odd else rest, behind)
    end = words[lead + 1].start() if lead + 1 < len(words) else len(rest)
    return Cut(rest[:end].strip("_-. "), visits, rest[end:], "")


def _visits_and_rest(name: str) -> tuple[tuple[str, ...], str]:
    """`take_visits`, but `study_07` before another number or behind a word for masks is of a name.

    So in `study_07_01` and in `Glioma_Seg_Study_07_FLAIR`.
    """
    name = _BEHIND_NUMBER.sub("_", _BRACKETED.sub(r" \1", name))
    for pattern, word in _APART:
        name = pattern.sub(word, name)
    visits, rest = take_visits(name)
    first = _VISIT_BEFORE.fullmatch(rest)
    if first and not visits and _begins_with_somebody(first["name"]):
        return (first["visit"],), first["name"]  # `pre_P01_T1`, not `pre_contrast_T1`
    if len(visits) != 1 or not is_weak_visit(visits[0]):
        return visits, rest
    before, _, behind = name.partition(visits[0])
    if (
        not before
        and (number := _NUMBER_BEHIND.match(behind))
        and len(number[1]) <= len(_DIGITS.findall(visits[0])[-1])
    ):
        return (), name  # `study_03_01`: a study, a patient, a visit
    words = _WORD.findall(before)
    named = words and not has_digit(before) and visits[0].lower().startswith("stud")
    study = named and kind_of(words[-1]) in ("mask", "weak")
    return ((), name) if study and (not behind or modality(behind) in MODALITIES) else (visits, rest)


def _begins_with_somebody(name: str) -> bool:
    """Whether the first word names somebody, or is a number longer than any series'."""
    word = _WORD.search(name)
    if word is None:
        return False
    return kind_of(word[0]) == "id" or (
        kind_of(word[0]) == "number" and len("".join(_DIGITS.findall(name))) >= _LONG - 2
    )


def _first_modality(kinds: list[str], words: list[re.Match[str]]) -> int | None:
    """The first word for an image's kind; of one without a weight, if no number stands between."""
    found = [n for n, kind in enumerate(kinds) if kind == "modality"]
    if len(found) > 1 and kinds[found[0] + 1] == "number" and _is_odd_weight(words[found[0]][0]):
        found = found[1:]  # `T2DM_12_FLAIR`: letters behind T2 that are no word of radiology begin a patient's name
    weighted = next((n for n in found if _WEIGHTED.search(words[n][0].lower())), None)
    if weighted is not None and found[0] < weighted:
        between = kinds[found[0] + 1 : weighted]
        if "number" in between or (kinds[0] == "id" and "id" in between):
            return weighted
    return found[0] if found else None


def _is_odd_weight(word: str) -> bool:
    """Whether letters behind T1 or T2 are no word of radiology, as in `T2DM`."""
    match = _ODD_WEIGHT.fullmatch(word)
    return bool(match and not recognise(match[1]).words)


def _behind(rest: str, words: list[re.Match[str]], kinds: list[str], strong: int) -> str:
    """What may name a person behind the words that describe a file: `T1_007`."""
    first = len(words)
    while first - 1 > strong and kinds[first - 1] in ("id", "number"):
        first -= 1
    while (
        first < len(words)
        and not _is_odd_name(words[first][0])
        and recognise(rest[: words[first].end()]).words != recognise(rest[: words[first].start()]).words
    ):
        first += 1
    if first >= len(words) or not has_digit(rest[words[first].start() :]):
        return ""
    return rest[words[first].start() :]


def take_visits(text: str) -> tuple[tuple[str, ...], str]:
    """The visits that a name states, and the name without them.

    >>> take_visits("study1"), take_visits("p7_ses-02_x"), take_visits("P01_20190102"), take_visits("p7")
    ((('study1',), ''), (('ses-02',), 'p7_x'), (('20190102',), 'P01'), ((), 'p7'))
    """
    found: list[str] = []
    for pattern in (_VISIT, _VISIT_ELSE):
        while match := pattern.search(text):
            date = match.groupdict().get("date")
            found.append(_date(date) if date else match[0])
            text = _joined(text[: match.start()], text[match.end() :])
    return tuple(found), text


def is_weak_visit(visit: str) -> bool:
    """Whether the words are used for people as well, as in `scan_001`, or may be all that tells people apart."""
    return bool(_VISIT_ELSE.fullmatch(visit) or _UID.fullmatch(visit))


@lru_cache(maxsize=1 << 12)
def may_be_a_visit(name: str) -> bool:
    """Whether a folder's name tells neither a role nor how files were kept or made.

    >>> [may_be_a_visit(name) for name in ("retest", "1. MRT", "registered", "T1w", "P4 - Copy")]
    [True, True, False, False, False]
    """
    words = _WORD.findall(name.lower())
    made = any(word not in VISITED and (kind_of(word) == "technical" or _PROCESSED.search(word)) for word in words)
    return not (made or is_copy(name) or folder(name).said)


def is_copy(path: str) -> bool:
    """Whether a word of a path says that this is a copy."""
    return _COPY.search(path) is not None


@lru_cache(maxsize=1 << 14)
def kind_of(word: str) -> str:
    """What a single word is: modality, mask, weak (mask), technical, word (of radiology), number, or id.

    >>> [kind_of(word) for word in ("t1ce", "tumorMask", "lesion", "brain", "sag", "07", "P07")]
    ['modality', 'mask', 'weak', 'technical', 'word', 'number', 'id']
    """
    lower = word.lower()
    if lower.isdecimal():
        return "number"
    if lower in _TECHNICAL or _TECHNICAL_PATTERN.fullmatch(lower):
        return "technical"
    if _is_odd_name(lower):
        return "id"
    pieces = [piece for piece in _pieces(word) if piece]
    if _PARCELS.fullmatch(lower):
        return "mask"
    if any(_fits(_STRONG, piece) for piece in pieces) and all(map(_may_stand_in_a_mask, pieces)):
        return "mask"
    if len(pieces) > 1 and _LAST.fullmatch(pieces[-1]) and not has_digit(word):
        return "mask"  # `StrokeMask`
    found = recognise(word)
    if (role := modality(word)) is not None and _is_modality(lower, role):
        return "modality"
    shown = [_fits(_WEAK, piece) for piece in pieces]
    if all(shown) or (shown and shown[0] and all(_is_of_files(piece) for piece in pieces[1:])):
        return "weak"  # `LesionSmooth`, `wmhMap`
    if shown[-1:] == [True] and not has_digit(word):
        return "weak"  # `strokeLesion`
    if len(pieces) > 1 and (kinds := {kind_of(piece) for piece in pieces}) <= {"technical", "modality"}:
        return "modality" if "modality" in kinds else "technical"  # `AllT2`, `originalImg`
    return "word" if found.words and len(lower) > 1 and not re.search(r"\d", lower) else "id"


def _is_odd_name(word: str) -> bool:
    """Whether a word with a number is a patient's though it has letters of a modality or a mask: `T2DM014`."""
    match = _NUMBERED.fullmatch(word.lower())
    return match is not None and _is_odd(match)


def _is_odd(numbered: re.Match[str]) -> bool:
    """Whether letters around T1, T2 or `seg` in a word with a number are no word that describes images."""
    letters = numbered["behind"] or numbered["before"]
    return not _may_stand_in_a_mask(letters)


def is_generic(text: str) -> bool:
    """Whether a name could be anyone's in another folder: a number, a letter or a word for patients with a number.

    >>> [is_generic(text) for text in ("Patient_01", "P1", "007", "UPENN-GBM-00001", "BraTS_1")]
    [True, True, True, False, False]
    """
    return bool(_PERSON.fullmatch(text) or _ANYONES.fullmatch(text))


def is_numbers(text: str) -> bool:
    """Whether a name is numbers alone, as `01-002`: the same may be used at another place."""
    return bool(_NUMBERS.fullmatch(text))


def is_site(text: str) -> bool:
    """Whether a word says that this names a place that has patients of its own."""
    return bool(_SITE.search(text))


def is_control(text: str) -> bool:
    """Whether a name is `control_1`, which below a patient's is a visit in Spanish, and elsewhere somebody healthy."""
    return bool(_CONTROL.fullmatch(text))


def is_person(text: str) -> bool:
    """Whether a word says that this names a patient."""
    return bool(_PERSON_WORD.search(text))


def is_counted(text: str) -> bool:
    """Whether a name is a word for images and a number, as `image_1`."""
    return bool(_COUNTED_IMAGE.fullmatch(text))


def is_examination(text: str) -> bool:
    """Whether one of the words of a name is one for an examination.

    >>> [is_examination(text) for text in ("IRM_J0", "scan-a2", "GBM01")]
    [True, True, False]
    """
    return any(word.rstrip("0123456789") in VISITED for word in _WORD.findall(text.lower()))


def is_group(text: str) -> bool:
    """Whether a word says that this names a place or a group, not a patient."""
    return bool(_GROUP.search(text))


def has_digit(text: str) -> bool:
    """Whether there is a digit in a text."""
    return _DIGIT.search(text) is not None


def _fits(pattern: re.Pattern[str], word: str) -> bool:
    """Whether the pattern is all of a word but a number at its end: `mask1`."""
    return bool(pattern.fullmatch(word) or pattern.fullmatch(word.rstrip("0123456789")))


def _is_of_files(piece: str) -> bool:
    """Whether a piece of a word says that this is a map, or how it was made."""
    return piece in ("map", "maps") or piece in _TECHNICAL or bool(_TECHNICAL_PATTERN.fullmatch(piece))


def _may_stand_in_a_mask(piece: str) -> bool:
    """Whether a piece of a word that tells a mask is one of masks, of files, or of radiology."""
    return (
        _fits(_STRONG, piece)
        or _fits(_WEAK, piece)
        or piece in _TECHNICAL
        or bool(_TECHNICAL_PATTERN.fullmatch(piece))
        or len(piece) == 1
        or bool(recognise(piece).words)
    )


def _is_modality(word: str, role: str) -> bool:
    """Whether a word alone names an image's kind, rather than being one of the many that also begin names."""
    return bool(_WEIGHTED.search(word) if role in MODALITIES else _OTHER_IMAGE.fullmatch(_DONE.sub("", word)))


def _identity(kinds: list[str], words: list[re.Match[str]], first: int, end: int) -> int | None:
    """The last of the words from `first` that may name a person; with a digit, if any has one that no visit has."""
    named = [n for n in range(first, end) if kinds[n] in ("id", "number")]
    numbered = [n for n in range(first, end) if kinds[n] in ("id", "number", "weak") and has_digit(words[n][0])]
    is_visit = numbered == [first] and (kinds[first] == "number" or VISIT_LETTER.fullmatch(words[first][0]))
    if named and is_visit and kinds[named[-1]] == "id" and len(words[named[-1]][0]) >= _INITIALS:
        return named[-1]  # `V1_Anna`, `2018_Meier`
    return max(numbered or named, default=None)


def _pieces(text: str) -> list[str]:
    """The words of a name, lower-case and without accents; camel case is taken apart."""
    return [_plain(piece) for word in _WORD.findall(text) for piece in _CAMEL.split(word) if piece]


def _plain(word: str) -> str:
    if word.isascii():
        return word.lower()
    letters = unicodedata.normalize("NFKD", word)
    return unicodedata.normalize("NFC", "".join(one for one in letters if not unicodedata.combining(one))).lower()


def _agent(name: str) -> bool | None:
    """Whether a folder `contrast` or `without_gadolinium` says that an agent was given; None if it says more, or less.

    >>> _agent("post_contrast"), _agent("noncontrast"), _agent("contrast_P01"), _agent("KM")
    (True, False, None, None)
    """
    words = _WORD.findall(name)
    if not (_AGENT.search(name) and all(kind_of(word) == "word" or _BEFORE_AGENT.fullmatch(word) for word in words)):
        return None
    said = recognise(name)
    return said.contrast if {*said.words} <= {"after", "before"} else None


def _trimmed(text: str, kinds: list[tuple[re.Match[str], str]]) -> str:
    """A folder's name without technical words at its end."""
    kept = [match for match, kind in kinds]
    while len(kept) > 1 and kind_of(kept[-1][0]) == "technical":
        kept.pop()
    if len(kept) == len(kinds):
        return text
    return text[: kept[-1].end()]


def _is_anatomy(text: str) -> bool:
    return bool(_ANATOMY.fullmatch("_".join(_pieces(text))))


def _date(text: str) -> str:
    """A date without its clock, as in other names of the same day."""
    match = _YMD.match(text)
    return "".join(match.groups()) if match else text


def _joined(before: str, after: str) -> str:
    before, after = before.rstrip("_-. "), after.lstrip("_-. ")
    return f"{before}_{after}" if before and after else before or after
