"""XLM-R's tokenizer that also says which language and which script a text is in: ``lang_ids`` and ``script_ids``.

One id a text, beside ``input_ids``. The vocabulary, the pieces and their ids are untouched.
"""

import json
import logging
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_langsamp import table_rows
from .language_codes import SCRIPT_PATTERN, UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT, match_script, parse_tag, suggest
from .unicode_scripts import script_of, valid_unicode

MODEL_MAX_LENGTH = 512


class LangSAMPTokenizer(PreTrainedTokenizerFast):
    """A fast XLM-R tokenizer whose output carries ``lang_ids`` and ``script_ids``.

    ``tok(texts, lang="deu_Latn")``; a language is what people type (``de``, ``deu``, ``de-Latn``, ``deu_Latn``), one
    for all texts or a list with one for each. No language is "unknown" (id 0), never an error. The script comes from
    ``script=``, else from the tag, else from the text itself; one the table does not have is "unknown" if it was
    detected and an error if it was named.
    """

    # No __init__ on purpose: transformers 5 rebuilds the backend of a class that defines one and loses the normaliser.
    # What we add lives in init_kwargs, which is saved in tokenizer_config.json, restored, and pickled.
    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask", "lang_ids", "script_ids"]
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
        """Load a LangSAMP tokenizer, or make one from any XLM-R tokenizer by giving the tables.

        Args:
            pretrained_model_name_or_path: a folder with tokenizer.json, or a Hub id.
            languages: ISO 639-3 codes of the language table, without row 0; None keeps what was saved.
            scripts: ISO 15924 codes of the script table, without row 0; None keeps what was saved.
            lang: the default language of ``tok.lang``.
            unknown_lang: ``"ignore"`` maps languages without a row to "unknown", see ``tok.unknown_lang``.
            kwargs: as in transformers.
        """
        with _quiet_about_the_class():
            tokenizer = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if languages is not None:
            tokenizer.languages = languages
        if scripts is not None:
            tokenizer.scripts = scripts
        if unknown_lang is not None:
            tokenizer.unknown_lang = unknown_lang
        if lang is not None:
            tokenizer.lang = lang
        if tokenizer.model_max_length > 10**6:  # nothing was saved: without a limit nothing would be truncated
            tokenizer.model_max_length = MODEL_MAX_LENGTH
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
            self._ids("", tag, None)  # an unknown one is an error here, not at the first text
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

        Lone surrogates, which no encoding can represent, become U+FFFD.

        Returns:
            ``BatchEncoding`` with ``lang_ids`` and ``script_ids``: an int for one text, else (batch,); with overflowing
            tokens one for each piece of a text.

        Raises:
            ValueError: a language without a row (the nearest are named), or a list of another length than the texts.
        """
        if text is None:  # text_target only: nothing is read by the encoder
            return super().__call__(text, text_pair, *args, return_tensors=return_tensors, **kwargs)
        if isinstance(text, list | tuple) and not text:  # transformers 5 fails on it
            return BatchEncoding({name: [] for name in self.model_input_names}, tensor_type=return_tensors)
        try:
            encoding = super().__call__(text, text_pair, *args, return_tensors=None, **kwargs)
        except (UnicodeEncodeError, TypeError):
            clean = _without_surrogates(text), _without_surrogates(text_pair)
            if clean == (text, text_pair):
                raise
            text, text_pair = clean
            encoding = super().__call__(text, text_pair, *args, return_tensors=None, **kwargs)
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
        return [self._ids(text, *tags) for text, *tags in zip(firsts, langs, scripts)]

    @staticmethod
    def _one_each(value, n, name):
        """A tag for each of n texts."""
        if value is None or isinstance(value, str):
            return [value] * n
        if not hasattr(value, "__len__"):
            raise ValueError(f"{name} must be a tag or a list with one for each text, not {value!r}.")
        if len(value) != n:
            raise ValueError(f"{name} has {len(value)} entries for {n} texts; give one for all, or one for each.")
        return list(value)

    def _ids(self, text, lang, script):
        """The ids of one text (a string, or its words)."""
        lang = self.lang if lang is None else lang
        language, tag_script = parse_tag(lang) if lang is not None else ("und", None)
        script = _script(script) if script is not None else tag_script
        named = script is not None
        if script is None and self.scripts:
            script = script_of(text if isinstance(text, str) else " ".join(text))
        known = match_script(script, self.scripts)
        return self._row(language, language, self.languages, True), self._row(known, script, self.scripts, named)

    def _row(self, code, asked, table, named):
        """The id of a code in a table; without a table 0, for a code without a row an error or "unknown"."""
        if not table or (not named and code not in table):
            return 0
        if code in table:
            return table.index(code)
        if self.unknown_lang == "ignore":
            return 0
        raise ValueError(
            f"{asked!r} is not one of the {len(table) - 1} codes of this model; nearest: "
            f"{', '.join(suggest(asked, table[1:]))}. To treat it as unknown set tok.unknown_lang = 'ignore'."
        )

    def save_pretrained(
        self, save_directory: "str | PathLike", *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> "tuple[str, ...]":
        """As in transformers; the class named in the file is a stock one, so that it loads without remote code too."""
        repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
        files = super().save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 4 looks the name up
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(repo_id)
        return files


def _script(name):
    """The ISO 15924 code that was typed, ``latn`` -> ``Latn``."""
    code = name.strip().title() if isinstance(name, str) else ""
    if not SCRIPT_PATTERN.fullmatch(code):
        raise ValueError(f"{name!r} is not a script; write ISO 15924 like 'Latn'.")
    return code


@contextmanager
def _quiet_about_the_class():
    """Drop transformers 4's warning that another class saved the tokenizer: the files name a stock class on purpose."""
    log = logging.getLogger("transformers.tokenization_utils_base")

    def other(record):
        return "not the same type as the class" not in record.getMessage()

    log.addFilter(other)
    try:
        yield
    finally:
        log.removeFilter(other)


def _without_surrogates(text):
    """The same text, words, pair or batch, with every lone surrogate replaced by U+FFFD."""
    if isinstance(text, str):
        return valid_unicode(text)
    return type(text)(_without_surrogates(part) for part in text) if isinstance(text, list | tuple) else text


LangSAMPTokenizer.register_for_auto_class("AutoTokenizer")
