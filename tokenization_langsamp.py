"""A fast tokenizer that also says, when told, which language and script a text is in: ``lang_ids``, ``script_ids``.

One id a text, beside ``input_ids``. The vocabulary, the pieces and their ids are untouched.
"""

import json
import logging
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import (
    TOKENIZER_MAPPING_NAMES,
    get_tokenizer_config,
    tokenizer_class_from_name,
)
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_langsamp import FAMILIES, LangSAMPConfig, table_rows
from .language_codes import SCRIPT_PATTERN, UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT, match_script, parse_tag, suggest
from .safe_files import named_elsewhere
from .unicode_scripts import script_of, valid_unicode

MODEL_MAX_LENGTH = 512


class LangSAMPTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer of any kind whose output carries ``lang_ids`` and ``script_ids`` where a language is named.

    ``tok(texts, lang="deu_Latn")``; a language is what people type (``de``, ``deu``, ``de-Latn``, ``deu_Latn``), one
    for all texts or a list with one for each. The script comes from ``script=``, else from the tag, else from the text
    itself; one the table does not have is "unknown" if it was detected and an error if it was named. Without a
    language there are no ids, which models take for "unknown".
    """

    # No __init__ on purpose: transformers 5 rebuilds the backend of a class that defines one and loses the normaliser.
    # What we add lives in init_kwargs, which is saved in tokenizer_config.json, restored, and pickled.
    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    # only what is always there: pipelines take each of these names for a field of every encoding
    model_input_names = ["input_ids", "attention_mask"]
    slow_tokenizer_class = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: "str | PathLike",
        *args: Any,
        languages: "list[str] | None" = None,
        scripts: "list[str] | None" = None,
        lang: "str | None" = None,
        unknown_lang: "str | None" = None,
        **kwargs: Any,
    ) -> "LangSAMPTokenizer":
        """Load a LangSAMP tokenizer, or make one from a stock tokenizer by giving the tables.

        A stock one is loaded by its own class first: that knows what its tokenizer.json does not say (special tokens,
        which of them take the space before them, how a text is split), so that texts are cut as ``AutoTokenizer`` does.

        Args:
            pretrained_model_name_or_path: a folder with tokenizer.json or a SentencePiece model, or a Hub id.
            languages: ISO 639-3 codes of the language table, without row 0; None keeps what was saved.
            scripts: ISO 15924 codes of the script table, without row 0; None keeps what was saved.
            lang: the default language of ``tok.lang``.
            unknown_lang: ``"ignore"`` maps languages without a row to "unknown", see ``tok.unknown_lang``.
            kwargs: as in transformers.

        Raises:
            ValueError: the tokenizer needs code of its repository, or names files elsewhere.
        """
        kwargs["trust_remote_code"] = False  # this class is known, and nothing else of a repository is ever run
        stock = _stock_class(pretrained_model_name_or_path, **kwargs)
        try:
            with _quiet():
                load = super().from_pretrained if stock is None else stock.from_pretrained
                tokenizer = load(pretrained_model_name_or_path, *args, **kwargs)
        except (OSError, ImportError, ValueError):
            raise
        except Exception as error:  # whatever the tokenizers library says of a file that is damaged or of another kind
            raise ValueError(f"the tokenizer of {pretrained_model_name_or_path} cannot be read ({error}).") from error
        tokenizer = tokenizer if stock is None else as_class(cls, tokenizer)
        if languages is not None:
            tokenizer.languages = languages
        if scripts is not None:
            tokenizer.scripts = scripts
        if unknown_lang is not None:
            tokenizer.unknown_lang = unknown_lang
        if lang is not None:
            tokenizer.lang = lang
        if tokenizer.model_max_length > 10**6:  # nothing was saved: without a limit nothing would be truncated
            tokenizer.model_max_length = _max_tokens(pretrained_model_name_or_path, **kwargs)
        return tokenizer

    @property
    def languages(self) -> "list[str]":
        """ISO 639-3 codes, index = ``lang_ids``; row 0 is ``und``. Empty: the model has no language table."""
        return self._rows("languages", UNKNOWN_LANGUAGE)

    @languages.setter
    def languages(self, codes: "list[str]") -> None:
        self.init_kwargs["languages"] = table_rows(codes, "languages")

    @property
    def scripts(self) -> "list[str]":
        """ISO 15924 codes, index = ``script_ids``; row 0 is ``Zyyy``. Empty: the model has no script table."""
        return self._rows("scripts", UNKNOWN_SCRIPT)

    @scripts.setter
    def scripts(self, codes: "list[str]") -> None:
        self.init_kwargs["scripts"] = table_rows(codes, "scripts")

    def _rows(self, kind, unknown):
        """A table; row 0 is added to one that was given to the constructor or written into the file by hand."""
        codes = self.init_kwargs.get(kind) or []
        if codes and codes[0] != unknown:
            codes = self.init_kwargs[kind] = table_rows(codes, kind)
        return codes

    @property
    def lang(self) -> "str | None":
        """The language of texts that are given without one; saved with the tokenizer."""
        return self.init_kwargs.get("lang")

    @lang.setter
    def lang(self, tag: "str | None") -> None:
        if tag is not None:
            self._ids_of_texts([""], False, tag, None)  # an unknown one is an error here, not at the first text
        self.init_kwargs["lang"] = tag

    @property
    def unknown_lang(self) -> str:
        """``"error"`` (the default): a language without a row is an error; ``"ignore"``: it is "unknown"."""
        return self.init_kwargs.get("unknown_lang") or "error"

    @unknown_lang.setter
    def unknown_lang(self, policy: str) -> None:
        if policy not in ("error", "ignore"):
            raise ValueError(f"unknown_lang must be 'error' or 'ignore', not {policy!r}.")
        self.init_kwargs["unknown_lang"] = policy

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        *args: Any,
        lang: "str | list[str | None] | None" = None,
        script: "str | list[str | None] | None" = None,
        return_tensors: "str | None" = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """As in transformers, plus ``lang`` and ``script``: one tag for all texts, or a list with one for each text.

        Without either, and without ``tok.lang``, the output is that of a stock tokenizer: a model takes missing ids for
        "unknown", and scripts that chain or regroup every field they get work as they are. ``lang="und"`` asks for the
        ids of an unknown language in the script of the text.

        Lone surrogates, which no encoding can represent, become U+FFFD.

        Returns:
            ``BatchEncoding``; where ids are asked for with ``lang_ids`` and ``script_ids``: an int for one text, else
            (batch,); with overflowing tokens one for each piece of a text.

        Raises:
            ValueError: a language without a row (the nearest are named), or a list of another length than the texts.
        """
        asked = lang is not None or script is not None or self.lang is not None
        if text is None:  # text_target only: nothing is read by the encoder
            return super().__call__(text, text_pair, *args, return_tensors=return_tensors, **kwargs)
        if isinstance(text, list | tuple) and not text:  # transformers 5 fails on it
            names = [*self.model_input_names, *(("lang_ids", "script_ids") if asked else ())]
            return BatchEncoding({name: [] for name in names}, tensor_type=return_tensors)
        given = None if asked else return_tensors  # tensors are made when the ids are there
        try:
            encoding = super().__call__(text, text_pair, *args, return_tensors=given, **kwargs)
        except (UnicodeEncodeError, TypeError):
            clean = _without_surrogates(text), _without_surrogates(text_pair)
            if clean == (text, text_pair):
                raise
            text, text_pair = clean
            encoding = super().__call__(text, text_pair, *args, return_tensors=given, **kwargs)
        if not asked:
            return encoding
        split = bool(kwargs.get("is_split_into_words"))
        single = isinstance(text, str) or (split and len(text) > 0 and isinstance(text[0], str))
        pairs = self._ids_of_texts([text] if single else list(text), split, lang, script)
        flat = single and not (len(encoding["input_ids"]) and isinstance(encoding["input_ids"][0], list))
        if flat:
            encoding["lang_ids"], encoding["script_ids"] = pairs[0]
        else:
            rows = encoding.get("overflow_to_sample_mapping") or range(len(pairs))
            encoding["lang_ids"] = [pairs[i][0] for i in rows]
            encoding["script_ids"] = [pairs[i][1] for i in rows]
        if return_tensors is None:
            return encoding
        return BatchEncoding(
            dict(encoding),
            encoding=encoding.encodings,
            tensor_type=return_tensors,
            prepend_batch_axis=flat,
            n_sequences=encoding.n_sequences,
        )

    def _ids_of_texts(self, texts, split, lang, script):
        """One (lang_id, script_id) pair a text; of a pair of texts the first counts."""
        langs, scripts = (
            self._one_each(value, len(texts), name) for value, name in ((lang, "lang"), (script, "script"))
        )
        kind = list | tuple if split else str  # what a text is; a tuple of words is one, a tuple of those a pair
        firsts = [text[0] if len(text) and isinstance(text[0], kind) and not isinstance(text, str) else text
                  for text in texts]  # fmt: skip
        tables = [{code: i for i, code in enumerate(table)} for table in (self.languages, self.scripts)]
        return [self._ids(text, *tags, *tables) for text, *tags in zip(firsts, langs, scripts)]

    @staticmethod
    def _one_each(value, n, name):
        """A tag for each of n texts."""
        if value is None or isinstance(value, str):
            return [value] * n
        if not hasattr(value, "__len__"):
            raise ValueError(f"{name} must be a tag or a list with one for each text, not {value!r}.")
        if len(value) != n:
            raise ValueError(
                f"{name} has {len(value)} entries for {n} text{'s' * (n != 1)}; give one for all, or one for each (a "
                "pipeline hands over one text at a time: call it once for each language)."
            )
        return list(value)

    def _ids(self, text, lang, script, languages, scripts):
        """The ids of one text (a string, or its words); the tables as code -> id."""
        lang = self.lang if lang is None else lang
        language, tag_script = parse_tag(lang) if lang is not None else (UNKNOWN_LANGUAGE, None)
        script = _script(script) if script is not None else tag_script
        named = script is not None
        if script is None and scripts:
            script = script_of(text if isinstance(text, str) else " ".join(text))
        known = match_script(script, scripts)
        return self._row(language, language, languages, True), self._row(known, script, scripts, named)

    def _row(self, code, asked, table, named):
        """The id of a code in a table; without a table 0, for a code without a row an error or "unknown"."""
        if not table or (not named and code not in table):
            return 0
        if code in table:
            return table[code]
        if self.unknown_lang == "ignore":
            return 0
        raise ValueError(
            f"{asked!r} is not one of the {len(table) - 1} codes of this model; nearest: "
            f"{', '.join(suggest(asked, list(table)[1:]))}. To treat it as unknown set tok.unknown_lang = 'ignore'."
        )

    def save_pretrained(
        self, save_directory: "str | PathLike", *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> "tuple[str, ...]":
        """As in transformers; the class named in the file is a stock one, so that it loads without remote code too."""
        repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
        files = super().save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        # transformers 4 looks the class up, and each version has other inputs for it
        config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": self.model_input_names}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(repo_id)
        return files


def as_class(kind: type, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A tokenizer of another class (which adds nothing of its own) that cuts texts exactly as this one does."""
    names = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "name_or_path",
             "model_input_names")  # fmt: skip
    more = getattr(tokenizer, "extra_special_tokens", None)  # transformers 5; in 4 they stand in the map
    with _quiet():
        return kind(
            tokenizer_object=_Given(tokenizer.backend_tokenizer),
            **tokenizer.special_tokens_map,
            **({"extra_special_tokens": more} if more else {}),
            **{name: getattr(tokenizer, name) for name in names},
        )


class _Given:
    """Takes the place of a backend that transformers would copy: half a second for 250,000 pieces."""

    def __init__(self, backend):
        self.backend = backend

    def __deepcopy__(self, memo):
        return self.backend


def _stock_class(name, **kwargs):
    """The class of transformers that a tokenizer is made for; None where tokenizer.json says all, as in our folders."""
    config = get_tokenizer_config(name, **kwargs)
    problem = named_elsewhere("tokenizer_config.json", config)
    if problem:
        raise ValueError(f"{name} is refused: tokenizer_config.json {problem}.")
    named, code = config.get("tokenizer_class"), config.get("auto_map") or {}
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    if not named and not code:
        try:
            model_type = PretrainedConfig.get_config_dict(name, **kwargs)[0].get("model_type")
        except OSError:  # a tokenizer alone
            model_type = None
        usual = TOKENIZER_MAPPING_NAMES.get(str(model_type))
        named = usual if isinstance(usual, str) else next(filter(None, reversed(usual or ())), None)
    plain = (named or "").removesuffix("Fast")
    for candidate in (f"{plain}Fast", plain):  # transformers 4 has two classes, and the slow one says too little
        found = tokenizer_class_from_name(candidate)
        if isinstance(found, type) and issubclass(found, PreTrainedTokenizerFast):
            return None if found is PreTrainedTokenizerFast else found
    if code and "LangSAMPTokenizer" not in str(code):
        raise ValueError(
            f"the tokenizer of {name} is code of its own ({code}), which is never run; give one with a class of "
            "transformers."
        )
    return None


def _max_tokens(name, **kwargs):
    """How many tokens the model beside a tokenizer takes, or what most take where there is none."""
    try:
        known = PretrainedConfig.get_config_dict(name, **kwargs)[0].get("model_type") in FAMILIES
        return LangSAMPConfig.from_pretrained(name, **kwargs).max_tokens if known else MODEL_MAX_LENGTH
    except (OSError, ValueError):
        return MODEL_MAX_LENGTH


def _script(name):
    """The ISO 15924 code that was typed, ``latn`` -> ``Latn``."""
    code = name.strip().title() if isinstance(name, str) else ""
    if not SCRIPT_PATTERN.fullmatch(code):
        raise ValueError(f"{name!r} is not a script; write ISO 15924 like 'Latn'.")
    return code


@contextmanager
def _quiet():
    """Drop two warnings of transformers that are wrong here.

    That another class saved the tokenizer: the files name a stock class on purpose. And that a tokenizer splits words
    as a Mistral one should not: said of every large vocabulary whose config.json names no version.
    """
    wrong = ("not the same type as the class", "with an incorrect regex pattern")
    logs = [logging.getLogger(f"transformers.tokenization_utils_{name}") for name in ("base", "tokenizers")]

    def other(record):
        return not any(phrase in record.getMessage() for phrase in wrong)

    for log in logs:
        log.addFilter(other)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(other)


def _without_surrogates(text):
    """The same text, words, pair or batch, with every lone surrogate replaced by U+FFFD."""
    if isinstance(text, str):
        return valid_unicode(text)
    return type(text)(_without_surrogates(part) for part in text) if isinstance(text, list | tuple) else text


LangSAMPTokenizer.register_for_auto_class("AutoTokenizer")
