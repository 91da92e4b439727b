"""A model's tokenizer, found like the model, converted where it is a SentencePiece model; no code of it is run."""

from __future__ import annotations

import os

from langsamp.core.loading import loading
from langsamp.core.runtime import resolve_model
from langsamp.tokenization_langsamp import LangSAMPTokenizer

FILES = ("*.json", "*.model")  # of a repository: config.json says which class the tokenizer is


def load_tokenizer(
    spec: str | os.PathLike[str], languages: list[str] | None = None, scripts: list[str] | None = None
) -> LangSAMPTokenizer:
    """Load the tokenizer of a folder or a Hub id (``user/name`` or ``user/name@revision``).

    Args:
        spec: where; weights beside it are not downloaded.
        languages: codes of the language table, without row 0; None keeps what was saved.
        scripts: codes of the script table, without row 0; None keeps what was saved.

    Raises:
        FileNotFoundError: there is none, or none that can be read.
        ValueError: it is code of its own, which is never run, or has no pad token.
    """
    folder = resolve_model(spec, FILES).path
    if not (folder / "tokenizer.json").is_file() and not list(folder.glob("*.model")):
        raise FileNotFoundError(f"{spec} holds no tokenizer, neither a tokenizer.json nor a SentencePiece model.")
    try:
        with loading():
            return LangSAMPTokenizer.from_pretrained(folder, languages=languages, scripts=scripts)
    except ImportError as error:  # transformers 4 needs the package sentencepiece
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"the SentencePiece model of {spec} cannot be converted ({reason}).") from None
