"""How a language is written: ``deu_Latn``, ISO 639-3 and ISO 15924. The one place that reads what people type.

Flat and pure Python: it travels with every checkpoint. Whether a code exists and which script is likely takes larger
tables than a checkpoint should carry, and is told by `langsamp.core.language.languages`.
"""

import difflib
import re
from collections.abc import Container, Iterable

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

# Macrolanguages of ISO 639-3 with their members; before the bar those meant where a data set names the macrolanguage
# only (FineWeb2 and FLORES write swh, Glot500 and XLM-R swa). Sources: the IANA registry and CLDR's aliases in the
# package langcodes, which a test compares; Bihari, Filipino and the usual members of msa and nor are added, that of
# pus is the one of FLORES.
_MACROLANGUAGES = """\
aka:fat,twi
ara:arb|aao,abh,abv,acm,acq,acw,acx,acy,adf,aeb,aec,afb,ajp,apc,apd,arq,ars,ary,arz,auz,avl,ayh,ayl,ayn,ayp,bbz,pga
ara:|shu,ssh aym:ayr|ayc aze:azj|azb bal:bcc|bgn,bgp bih:bho bik:bcl|bhk,bln,bto,cts,fbl,lbl,rbl,ubl
bnc:lbk|ebk,obk,rbk,vbk bua:bxr|bxm,bxu chm:mhr|mrj cre:cwd|crj,crk,crl,crm,csw del:umu|unm den:xsl|scs
din:dik|dib,dip,diw,dks doi:dgo|xnr est:ekk|vro fas:pes|prs ful:fuc|ffm,fub,fue,fuf,fuh,fui,fuq,fuv
gba:gya|bdt,gbp,gbq,gmm,gso gon:gno|esg,wsg grb:gbo|gec,grj,grv,gry grn:gug|gnw,gui,gun,nhd hai:hdn|hax
hbs:|bos,cnr,hrv,srp
hmn:hea|cqd,hma,hmc,hmd,hme,hmg,hmh,hmi,hmj,hml,hmm,hmp,hmq,hms,hmw,hmy,hmz,hnj,hrm,huj,mmr,muq,mww,sfm iku:ike|ikt
ipk:esk|esi jrb:aju|ajt,jye,yhd,yud kau:knc|kby,krt kln:spy|enb,eyo,niq,oki,pko,sgc,tec,tuy kok:knn|gom kom:kpv|koi
kon:kng|kwy,ldi kpe:xpe|gkp kur:kmr|ckb,sdh lah:pnb|hnd,hno,jat,phr,pmu,skr,xhe lav:lvs|ltg
luy:bxk|ida,lkb,lko,lks,lri,lrm,lsm,lto,lts,lwg,nle,nyd,rag man:emk,mnk|mku,mlq,msc,mwk,myq
mlg:plt|bhr,bjq,bmm,bzc,msh,skg,tdx,tkg,txy,xmv,xmw mon:khk|mvf
msa:zlm,zsm|bjn,btj,bve,bvu,coa,dup,hji,ind,jak,jax,kvb,kvr,kxd,lce,lcf,liw,max,meo,mfa,mfb,min,mqg,msi,mui,orn,ors
msa:|pel,pse,tmw,urk,vkk,vkt,xmm,zmi mwr:dhd|mtr,mve,rwr,swv,wry nep:npi|dty nor:nob|nno
oji:ojg|ciw,ojb,ojc,ojs,ojw,otw ori:ory|spv orm:gaz|gax,hae,orc pus:pbt|pbu,pst
que:quz|cqu,qub,qud,quf,qug,quh,quk,qul,qup,qur,qus,quw,qux,quy,qva,qvc,qve,qvh,qvi,qvj,qvl,qvm,qvn,qvo,qvp,qvs,qvw
que:|qvz,qwa,qwc,qwh,qws,qxa,qxc,qxh,qxl,qxn,qxo,qxp,qxr,qxt,qxu,qxw raj:mup|bgq,gda,gju,hoj,wbr
rom:rmy|rmc,rmf,rml,rmn,rmo,rmw sqi:als|aae,aat,aln srd:src|sdc,sdn,sro swa:swh|swc syr:cld|aii tgl:fil
tmh:ttq|taq,thv,thz uzb:uzn|uzs yid:ydd|yih
zap:zai|zaa,zab,zac,zad,zae,zaf,zam,zao,zaq,zar,zas,zat,zav,zaw,zax,zca,zoo,zpa,zpb,zpc,zpd,zpe,zpf,zpg,zph,zpi,zpj
zap:|zpk,zpl,zpm,zpn,zpo,zpp,zpq,zpr,zps,zpt,zpu,zpv,zpw,zpx,zpy,zpz,zsr,zte,ztg,ztl,ztm,ztn,ztp,ztq,zts,ztt,ztu,ztx
zap:|zty zha:zyb|zch,zeh,zgb,zgm,zgn,zhd,zhn,zlj,zln,zlq,zqe,zyg,zyj,zyn,zzj
zho:cmn|cdo,cjy,cnp,cpx,csp,czh,czo,gan,hak,hsn,lzh,mnp,nan,wuu,yue zza:diq|kiu
"""
# Codes withdrawn from ISO 639 -> what stands for them now, where that is one code (CLDR's aliases).
_WITHDRAWN = """\
aam:aas adp:dzo agp:apf ais:ami asd:snz aue:ktz ayx:nun baz:nvo bgm:bcg bhk:fbl bic:bir bjd:drl bjq:bzc bkb:ebk
blg:iba btb:beb ccq:rki cjr:mom cka:cmr cmk:xch coy:pij cqu:quh daf:dnj dap:njz dit:dif djl:dze dkl:aqd drh:mon
drr:kzk dud:uth duj:dwu dwl:dbt elp:amq gav:dev gbc:wny gfx:vaj ggn:gvr ggo:esg ggr:gtu gio:aou gli:kzk gti:nyc
guv:duz hrr:jal ibi:opa ill:ilm ilw:gal izi:eza jar:jgk jeg:oyb kdv:zkd kgc:tdf kgd:ncq kgh:kml koj:kwv kpp:jkm
krm:bmf ktr:dtp kvs:gdj kwq:yam kxe:tvd kxl:kru kzh:dgl kzj:dtp kzt:dtp leg:enl lii:raq llo:ngt lmm:rmx meg:cir
mgx:jbk mnt:wnn mof:xnt mol:ron mst:mry mwd:dmw mwj:vaj myd:aog myt:mry nad:xny nbf:nru nbx:ekc ncp:kdz nln:azd
nlr:nrk nns:nbr nnx:ngv noo:dtd nts:pij nxu:bpp oun:vaj pat:kxr pcr:adx pmc:huw pmu:phr ppa:bfy ppr:lcq pry:prt
puz:pub rmr:emx sap:aqt sca:hle scc:srp scr:hrv sgl:isk skk:oyb sul:sgd sum:ulw tdu:dtp tgg:bjp thc:tpo thw:ola
thx:oyb tid:itd tie:ras tkk:twm tlw:weo tmp:tyj tne:kak tsf:taj unp:wro uok:ema wgw:wgb wit:nol wiw:nwo xba:cax
xia:acn xkh:waw xrq:dmw xsj:suj ybd:rki yen:ynq yiy:yrm yma:lrr ymt:mtm yos:zom yuu:yug zir:scv
"""


def _members() -> "dict[str, tuple[tuple[str, ...], tuple[str, ...]]]":
    """Macrolanguage -> (its usual members, the others)."""
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for entry in _MACROLANGUAGES.split():
        macro, _, members = entry.partition(":")
        usual, _, rest = members.partition("|")
        old = found.get(macro, ((), ()))
        found[macro] = (*old[0], *filter(None, usual.split(","))), (*old[1], *filter(None, rest.split(",")))
    return found


def _same_language() -> "dict[str, list[str]]":
    """Code -> other codes of the same language: the macrolanguage of a usual member, what replaced a withdrawn code."""
    pairs = [(macro, member) for macro, (usual, _) in _MEMBERS.items() for member in usual]
    pairs += [(new, old) for old, _, new in (entry.partition(":") for entry in _WITHDRAWN.split())]
    found: dict[str, list[str]] = {}
    for one, other in pairs:
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found


_MEMBERS = _members()
_SAME_LANGUAGE = _same_language()

# Codes for the same letters at different precision: a table that has only one of a group serves all of it.
_SAME_WRITING = (
    ("Hani", "Hans", "Hant"),
    ("Hang", "Kore"),
    ("Jpan", "Hrkt", "Hira", "Kana"),
    ("Arab", "Aran"),
    ("Cyrl", "Cyrs"),
    ("Latn", "Latf", "Latg"),
    ("Syrc", "Syre", "Syrj", "Syrn"),
)


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


def other_codes(code: str) -> "list[str]":
    """Other codes of the same language: coarser, finer or older ones (``swa`` -> ``["swh"]``)."""
    return _SAME_LANGUAGE.get(code, [])


def match_language(code: str, known: "Container[str]") -> "str | None":
    """The entry of ``known`` that stands for a language: itself, or the same language under a code at other precision.

    ``swh`` finds ``swa`` and ``swa`` finds ``swh``, ``scr`` finds ``hrv``; ``arz``, one Arabic of many, does not find
    ``ara``. None too where two entries would do.
    """
    if code in known:
        return code
    found = [other for other in other_codes(code) if other in known]
    return found[0] if len(found) == 1 else None


def family(code: str, known: "Iterable[str]") -> "list[str]":
    """The entries of ``known`` that are the same language, then its macrolanguage and the other members of that."""
    macros = [macro for macro, (usual, rest) in _MEMBERS.items() if code == macro or code in usual + rest]
    members = [other for macro in macros for other in (macro, *_MEMBERS[macro][0], *_MEMBERS[macro][1])]
    present = set(known) - {code}
    return list(dict.fromkeys(other for other in (*other_codes(code), *members) if other in present))


def suggest(code: str, known: "list[str] | tuple[str, ...]", n: int = 3) -> "list[str]":
    """The ``n`` entries of ``known`` to name where ``code`` is not one: its family, then what looks alike."""
    return list(dict.fromkeys([*family(code, known), *nearest(code, known, n)]))[:n]
