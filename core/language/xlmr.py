"""Which languages XLM-R saw in its pretraining: head and tail of the evaluation, and a preset of the sampling."""

from __future__ import annotations

from langsamp.language_codes import other_codes

# The 100 languages of CC-100 that XLM-R was trained on (Conneau et al. 2020, appendix A), with the scripts of its data
# (Bengali, Hindi, Tamil, Telugu and Urdu also in Latin letters).
XLMR_LANGUAGES = """
afr_Latn amh_Ethi ara_Arab asm_Beng aze_Latn bel_Cyrl ben_Beng,Latn bos_Latn,Cyrl bre_Latn bul_Cyrl cat_Latn ces_Latn
cym_Latn dan_Latn deu_Latn ell_Grek eng_Latn epo_Latn est_Latn eus_Latn fas_Arab fin_Latn fra_Latn fry_Latn gla_Latn
gle_Latn glg_Latn guj_Gujr hau_Latn heb_Hebr hin_Deva,Latn hrv_Latn hun_Latn hye_Armn ind_Latn isl_Latn ita_Latn
jav_Latn jpn_Jpan kan_Knda kat_Geor kaz_Cyrl khm_Khmr kir_Cyrl kor_Hang,Kore kur_Latn lao_Laoo lat_Latn lav_Latn
lit_Latn mal_Mlym mar_Deva mkd_Cyrl mlg_Latn mon_Cyrl msa_Latn mya_Mymr nep_Deva nld_Latn nor_Latn ori_Orya orm_Latn
pan_Guru pol_Latn por_Latn pus_Arab ron_Latn rus_Cyrl san_Deva sin_Sinh slk_Latn slv_Latn snd_Arab som_Latn spa_Latn
sqi_Latn srp_Cyrl,Latn sun_Latn swa_Latn swe_Latn tam_Taml,Latn tel_Telu,Latn tgl_Latn tha_Thai tur_Latn uig_Arab
ukr_Cyrl urd_Arab,Latn uzb_Latn vie_Latn xho_Latn yid_Hebr zho_Hani,Hans,Hant
"""


def _pairs(table: str) -> frozenset[str]:
    """Also under the other codes that data sets give to the same language."""
    found = set()
    for entry in table.split():
        language, _, scripts = entry.partition("_")
        found |= {f"{code}_{script}" for code in (language, *other_codes(language)) for script in scripts.split(",")}
    return frozenset(found)


HEAD = _pairs(XLMR_LANGUAGES)
_HEAD_LANGUAGES = frozenset(code.partition("_")[0] for code in HEAD)


def is_head(code: str) -> bool:
    """True if XLM-R saw the language in this script; a code without a script counts by its language."""
    return code in HEAD or ("_" not in code and code in _HEAD_LANGUAGES)
