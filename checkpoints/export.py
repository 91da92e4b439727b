"""Checkpoints that need no code of ours: a truncated encoder for sentence vectors, a masked LM for one language.

Both are stock folders of the encoder's family: transformers, sentence-transformers, text-embeddings-inference and
exporters load them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from langsamp.checkpoints.plain import save_tokenizer, stock_encoder, stock_tokenizer
from langsamp.core.facts import license_of
from langsamp.core.files import atomic_write
from langsamp.core.language.languages import normalize_tag
from langsamp.core.model.config import read_config
from langsamp.core.model.vocabulary import carry_rows, check_unigram, trim
from langsamp.core.outputs import must_be_new, new_folder
from langsamp.core.runtime import ModelSource, resolve_model
from langsamp.eval.results import escape
from langsamp.eval.results.card.metadata import hub_id, hub_language
from langsamp.eval.results.catalog import language_name
from langsamp.language_codes import UNKNOWN_SCRIPT, match_script, parse_tag
from langsamp.modeling_langsamp import LangSAMPForMaskedLM, LangSAMPModel
from langsamp.unicode_scripts import script_of

BATCH = 1000


@dataclass(frozen=True)
class Export:
    """What an export made: its folder, parameters before and after, pieces of the vocabulary before and after."""

    path: Path
    parameters: tuple[int, int]
    vocabulary: tuple[int, int]


def export_encoder(model: str, output: str | Path, layer: int | None = None) -> Export:
    """Write the first ``layer`` blocks as a plain encoder with a sentence-transformers pooling config.

    Its last hidden state is layer ``layer`` of the evaluations: ``hidden_states[layer]`` of the checkpoint bit for bit,
    where the encoder normalises before its blocks after its last norm. The paper's retrieval layer is 8 of 12.

    Args:
        model: folder or Hub id of a LangSAMP or stock checkpoint.
        output: a folder that does not exist yet.
        layer: how many blocks to keep, counted from 1; None keeps all.

    Raises:
        FileExistsError: there is something at the output.
        FileNotFoundError: no checkpoint or no tokenizer there.
        ValueError: there is no such layer.
    """
    must_be_new(output)
    source = resolve_model(model)
    config = read_config(source.path)
    blocks = config.num_hidden_layers
    layer = blocks if layer is None else layer
    if not 1 <= layer <= blocks:
        raise ValueError(f"layer {layer} does not exist: {source.name} has blocks 1 to {blocks}.")
    full = LangSAMPModel.from_pretrained(source.path, dtype="auto")
    encoder = stock_encoder(source.path, layer)
    wanted = encoder.state_dict()
    encoder.to(full.dtype).load_state_dict({key: value for key, value in full.state_dict().items() if key in wanted})
    with new_folder(output) as folder:
        encoder.save_pretrained(folder)
        save_tokenizer(stock_tokenizer(source.path), folder)
        atomic_write(folder / "README.md", _encoder_card(source, config, Path(output).name, layer))
    vocabulary = encoder.config.vocab_size
    return Export(Path(output), (full.num_parameters(), encoder.num_parameters()), (vocabulary, vocabulary))


def export_monolingual(model: str, output: str | Path, language: str, trim_to: Iterable[str] | None = None) -> Export:
    """Write a stock masked LM that predicts as LangSAMP does for one language: its two rows folded into the head.

    ``dense(h + e) = dense(h) + W e``, so the fold is exact up to rounding (1e-6).

    Args:
        model: folder or Hub id of a LangSAMP checkpoint.
        output: a folder that does not exist yet.
        language: ``deu_Latn``, ``deu`` or ``de``; a script that is not given is the usual one of the language.
        trim_to: texts; only the pieces that occur in them stay in the vocabulary, besides the special tokens and the
            single letters of the language's script, digits and signs, so that few words of other texts become unknown.

    Raises:
        FileExistsError: there is something at the output.
        ValueError: no row for the language or script, a checkpoint without tables, or no text in ``trim_to``.
    """
    must_be_new(output)
    source = resolve_model(model)
    full = LangSAMPForMaskedLM.from_pretrained(source.path, dtype="auto")
    if full.lang_embeddings is None and full.script_embeddings is None:
        raise ValueError(f"{source.name} has no language or script rows to fold; it is a stock masked LM already.")
    tag = normalize_tag(language)
    code, script = parse_tag(tag)
    alone = full.specialize(code, match_script(script, full.config.scripts) or script)
    before, pieces = full.num_parameters(), full.config.vocab_size
    tokenizer = stock_tokenizer(source.path)
    if trim_to is not None:
        check_unigram(tokenizer)
        tokenizer = _trimmed(alone, tokenizer, trim_to, script)
    with new_folder(output) as folder:
        alone.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        atomic_write(folder / "README.md", _monolingual_card(source, Path(output).name, tag, full.config.family.stock))
    return Export(Path(output), (before, alone.num_parameters()), (pieces, alone.config.vocab_size))


def _trimmed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], script: str | None
) -> PreTrainedTokenizerFast:
    """Cut the vocabulary of a model down, in place, to what texts use: the tokenizer that fits it then."""
    used: set[int] = set()
    left = iter(tqdm(texts, desc="pieces in use", unit=" texts"))
    while batch := list(islice(left, BATCH)):
        used.update(*tokenizer(batch, add_special_tokens=False)["input_ids"])
    if not used:
        raise ValueError("the corpus to trim the vocabulary to holds no text.")
    for piece, i in tokenizer.get_vocab().items():
        letter = piece.replace("▁", "")
        if len(letter) <= 1 and script_of(letter) in (script, UNKNOWN_SCRIPT):
            used.add(i)
    small = trim(tokenizer, used)
    carry_rows(model, tokenizer, small)
    return small


def _encoder_card(source: ModelSource, config: Any, name: str, layer: int) -> str:
    head = {
        "language": sorted({code for code in map(hub_language, config.languages) if code}),
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "license": license_of(source.path),
        "base_model": hub_id(source.name),
        "tags": ["langsamp", "multilingual", "sentence-transformers", "feature-extraction"],
    }
    return _card(
        head,
        f"""# {escape.markdown(name)}

The first {layer} of {config.num_hidden_layers} blocks of a LangSAMP encoder, as a plain {config.family.stock}: no code
of its own, no language ids. Sentence vectors are the mean over all tokens. They come from masked language modelling
alone, without training on sentence pairs: good for finding translations across languages, less so for ranking shades of
meaning.

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer({escape.python(name)}).encode(["A house by the river.", "Ein Haus am Fluss."])
```
""",
    )


def _monolingual_card(source: ModelSource, name: str, tag: str, stock: str) -> str:
    language = hub_language(tag)
    head = {
        "language": [language] if language else [],
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "license": license_of(source.path),
        "base_model": hub_id(source.name),
        "tags": ["langsamp"],
    }
    return _card(
        head,
        f"""# {escape.markdown(name)}

A LangSAMP masked language model for one language, {language_name(tag)} (`{tag}`): its language and script vectors are
folded into the prediction head, so that this is a plain {stock} and predicts what LangSAMP does when it is told the
language.
""",
    )


def _card(head: Mapping[str, object], body: str) -> str:
    known = {key: value for key, value in head.items() if value}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---\n\n{body}"
