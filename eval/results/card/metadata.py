"""The YAML head of a model card: ISO 639 language codes, widget examples, what a person had written there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import langcodes

from langsamp.core.hub_names import HubName
from langsamp.eval.results.catalog import two_letter_codes
from langsamp.language_codes import UNKNOWN_LANGUAGE

_NOT_IN_CLDR = {"hbs", "tok"}  # in ISO 639-3, but unknown to the tables of langcodes
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# One sentence a script with one word hidden, in a language written in it: the Hub's widget shows six of them.
EXAMPLES = {
    "Latn": ("English", "Paris is the capital of {}."),
    "Cyrl": ("русский", "Москва — столица {}."),
    "Arab": ("العربية", "القاهرة هي عاصمة {}."),
    "Deva": ("हिन्दी", "नई दिल्ली {} की राजधानी है।"),
    "Hani": ("中文", "北京是{}的首都。"),
    "Grek": ("ελληνικά", "Η Αθήνα είναι η πρωτεύουσα της {}."),
    "Ethi": ("አማርኛ", "አዲስ አበባ የ{} ዋና ከተማ ናት።"),
    "Geor": ("ქართული", "თბილისი არის {} დედაქალაქი."),
    "Beng": ("বাংলা", "ঢাকা {} এর রাজধানী।"),
    "Thai": ("ไทย", "กรุงเทพฯ เป็นเมืองหลวงของ{}"),
    "Jpan": ("日本語", "東京は{}の首都です。"),
    "Hang": ("한국어", "서울은 {}의 수도이다."),
    "Armn": ("հայերեն", "Երևանը {} մայրաքաղաքն է։"),
    "Hebr": ("עברית", "השמש זורחת ב{}."),
    "Taml": ("தமிழ்", "சென்னை {} தலைநகரம்."),
}
_LANGUAGES = {
    "eng": "Latn", "rus": "Cyrl", "ara": "Arab", "arb": "Arab", "hin": "Deva", "zho": "Hani", "cmn": "Hani",
    "ell": "Grek", "amh": "Ethi", "kat": "Geor", "ben": "Beng", "tha": "Thai", "jpn": "Jpan", "kor": "Hang",
    "hye": "Armn", "heb": "Hebr", "tam": "Taml",
}  # fmt: skip
_SAME_SCRIPT = {"Hans": "Hani", "Hant": "Hani", "Kore": "Hang", "Hrkt": "Jpan"}
WIDGETS = 6
_TASKS = {"ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification"}


def hub_language(code: str) -> str | None:
    """The code the Hub accepts in ``language:``, ISO 639-1 where there is one, else 639-3: ``deu_Latn`` -> ``de``.

    None for what ISO 639 does not know (retired codes as ``eml``, private ones, "undetermined"): the Hub refuses a card
    that names such a code (huggingface_hub#3862).
    """
    language = code.partition("_")[0]
    if language in two_letter_codes():
        return two_letter_codes()[language]
    private = re.fullmatch("q[a-t][a-z]", language)
    if language == UNKNOWN_LANGUAGE or private or not re.fullmatch("[a-z]{3}", language):
        return None
    return (
        language if language in _NOT_IN_CLDR or langcodes.Language.get(language, normalize=False).is_valid() else None
    )


def hub_id(value: Any) -> str | None:
    """``user/name`` if the value is a Hub id (a revision is dropped), None for a path or anything else."""
    if not isinstance(value, str) or Path(value).exists():
        return None
    repo = HubName.parse(value).repo
    return repo if _HUB_ID.fullmatch(repo) else None


def widget(scripts: Iterable[str], mask: str) -> list[dict[str, str]]:
    """Up to six widget examples, in scripts the model was trained on; in the six largest where it names none."""
    known = [_SAME_SCRIPT.get(script, script) for script in scripts]
    chosen = [script for script in EXAMPLES if script in known] or list(EXAMPLES)
    examples = [EXAMPLES[script] for script in chosen[:WIDGETS]]
    return [{"text": sentence.format(mask), "example_title": title} for title, sentence in examples]


def example(codes: Iterable[str], mask: str) -> tuple[str, str]:
    """(language, sentence with a word hidden): the first of these languages that has one, else English."""
    code = next((code for code in codes if code.partition("_")[0] in _LANGUAGES), "eng_Latn")
    return code, EXAMPLES[_LANGUAGES[code.partition("_")[0]]][1].format(mask)


def task_of(architectures: Iterable[str] | None) -> str:
    """The Hub's name for what a checkpoint does, from the class in its config."""
    return next(
        (task for kind, task in _TASKS.items() for name in architectures or () if name.endswith(kind)), "fill-mask"
    )


def metadata(
    *,
    task: str,
    languages: Iterable[str],
    scripts: Iterable[str],
    mask: str,
    license_name: str | None,
    base_license: str | None,
    base_model: Any,
    datasets: Iterable[Any],
    model_type: str | None,
    written: Mapping[str, Any],
) -> dict[str, Any]:
    """The card's metadata; ``written`` is the head of the card that is replaced.

    What a person chose there stays: every key we do not compute, tags, data sets and, unless given now, the licence.
    """
    chosen = written.get("license") if written.get("license") != "unknown" else None  # as we write
    codes = sorted({code for code in map(hub_language, languages) if code})
    base = hub_id(base_model) or written.get("base_model")
    sets = [*_list(written.get("datasets")), *(found for found in map(hub_id, datasets) if found)]
    ours = {
        "language": codes or _list(written.get("language")),
        "license": license_name or chosen or base_license or "unknown",
        "library_name": "transformers",
        "pipeline_tag": task,
        "mask_token": mask if task == "fill-mask" else None,
        "base_model": base,
        "datasets": _once(sets),
        "tags": _once([*_TAGS, *_list(model_type), "custom_code", *_list(written.get("tags"))]),
        "widget": widget(scripts, mask) if task == "fill-mask" else None,
    }
    kept = {key: value for key, value in written.items() if key not in ours}
    return {key: value for key, value in {**ours, **kept}.items() if value not in (None, [])}


_TAGS = ("langsamp", "multilingual")


def _once(values: list[Any]) -> list[Any]:
    """Each value at its first place; what people write in YAML may be unhashable."""
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _list(value: Any) -> list[Any]:
    """A YAML value that may be one item or a list, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
