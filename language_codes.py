"""How a language is written: ``deu_Latn``, ISO 639-3 and ISO 15924. The one place that reads what people type.

Flat and pure Python: it travels with every checkpoint. Whether a code exists and which script is likely takes larger
tables than a checkpoint should carry, and is told by `langsamp.core.languages`.
"""

import difflib
import re

UNKNOWN_LANGUAGE = "und"  # ISO 639-3 "undetermined": row 0 of the language table
UNKNOWN_SCRIPT = "Zyyy"  # ISO 15924 "undetermined": row 0 of the script table

LANGUAGE_PATTERN = re.compile(r"[a-z]{3}")
SCRIPT_PATTERN = re.compile(r"[A-Z][a-z]{3}")
TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|\d{3}))?")

# ISO 639-1 -> 639-3 (with the retired two-letter codes), and ISO 639-2/B -> 639-3. Source: the code tables of the
# package langcodes, which users need not have; a test compares them.
_ISO_639_1 = """\
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis bm:bam
bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym da:dan de:deu dv:div dz:dzo
ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg
gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii
ik:ipk in:ind io:ido is:isl it:ita iu:iku iw:heb ja:jpn ji:yid jv:jav jw:jav ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal
km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub
lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal mn:mon mo:ron mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo
nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que
rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin sk:slk sl:slv sm:smo sn:sna so:som
sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur
ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha
zh:zho zu:zul
"""
_ISO_639_2B = """\
alb:sqi arm:hye baq:eus bur:mya chi:zho cze:ces dut:nld fre:fra geo:kat ger:deu gre:ell ice:isl mac:mkd mao:mri
may:msa per:fas rum:ron slo:slk tib:bod wel:cym
"""
TO_ISO_639_3 = dict(pair.split(":") for pair in (_ISO_639_1 + _ISO_639_2B).split())

# Codes for the same letters at different precision: a table that has only one of a group serves all of it.
_SAME_WRITING = (("Hani", "Hans", "Hant"), ("Hang", "Kore"), ("Jpan", "Hrkt"))


def parse_tag(tag: str) -> "tuple[str, str | None]":
    """Read what people type: ``de``, ``ger``, ``deu_Latn``, ``de-Latn``, ``zh-Hans-CN`` -> ``("zho", "Hans")``.

    Returns:
        The ISO 639-3 code and the ISO 15924 code, None where the tag names no script. A region is accepted and dropped.

    Raises:
        ValueError: the tag does not have the form of a language tag.
    """
    match = TAG.fullmatch(tag.strip()) if isinstance(tag, str) else None
    if match is None:
        raise ValueError(
            f"{tag!r} is not a language tag; write ISO 639-3 and ISO 15924 like 'deu_Latn', or 'deu', 'de', 'de-Latn'."
        )
    language, script = match.group(1).lower(), match.group(2)
    if len(language) == 2 and language not in TO_ISO_639_3:
        known = [code for code in TO_ISO_639_3 if len(code) == 2]
        raise ValueError(
            f"{language!r} in {tag!r} is no ISO 639-1 code; nearest: {', '.join(nearest(language, known))}."
        )
    return TO_ISO_639_3.get(language, language), script.title() if script else None


def nearest(code: str, known: "list[str] | tuple[str, ...]", n: int = 3) -> "list[str]":
    """The ``n`` entries of ``known`` that look most like ``code``, best first (for error messages)."""
    return difflib.get_close_matches(code, list(known), n=n, cutoff=0.0)


def match_script(script: "str | None", known: "list[str] | tuple[str, ...]") -> "str | None":
    """The entry of ``known`` that stands for a script: itself, or the only one there of the same writing.

    ``Hans`` finds ``Hani`` in a table without ``Hans``; ``Hani`` finds neither in a table that has both Hans and Hant.
    """
    if script is None or script in known:
        return script
    group = next((group for group in _SAME_WRITING if script in group), ())
    present = [other for other in group if other in known]
    return present[0] if len(present) == 1 or "Hani" in present else None
