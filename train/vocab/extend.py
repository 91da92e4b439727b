"""A vocabulary that fits the corpus: new Unigram pieces, and fertility by language.

Comes before :mod:`langsamp.train.blocks.store` (``langsamp extend-vocab``): a store is cut with the vocabulary made
here.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

from tokenizers import Tokenizer, models, trainers
from tqdm.auto import tqdm

from langsamp.core.facts import TrainingFacts, license_of
from langsamp.core.files import atomic_write
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.model.vocabulary import NewRows, carry_rows, check_unigram, extend
from langsamp.core.outputs import must_be_new, new_folder
from langsamp.core.runtime import resolve_model
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.start import starting_model
from langsamp.train.text.open import open_corpus

logger = logging.getLogger(__name__)

Texts = Mapping[str, Callable[[], Iterable[str]]]  # lang_Script -> a function that starts its stream of documents
MAX_REPEATS = 30  # a small language is shown again up to this often, as the scale 30 of Glot500's vocabulary sample
_BATCH = 1000


@dataclass(frozen=True)
class Fertility:
    """How finely a tokenizer cuts a language; lower is better, and ``unknown`` should be 0."""

    tokens_per_word: float  # words by white space: of little meaning for Thai, Chinese or Japanese
    tokens_per_character: float  # white space not counted
    unknown: float  # share of <unk> among the tokens


def extend_vocab(
    base: str | os.PathLike[str],
    corpus: str | os.PathLike[str],
    size: int,
    output: str | os.PathLike[str],
    languages: Iterable[str] | None = None,
    alpha: float = 0.3,
    max_characters: int = 50_000_000,
    new_rows: NewRows = "mean",
) -> dict[str, dict[str, dict[str, float]]]:
    """Add ``size`` pieces learnt from a corpus to a base model's vocabulary and write model and tokenizer.

    Args:
        base: XLM-R, Glot500-m or a LangSAMP: folder or Hub id.
        corpus: as for ``langsamp prepare``.
        size: new pieces wanted; fewer are added when the corpus has no more to offer.
        output: a folder that does not exist yet; what it gets can be the ``--base`` of a run.
        languages: only these; default all of the corpus.
        alpha: a language gets a share of the learning text proportional to its size to this power.
        max_characters: learning text in all.
        new_rows: how the model's new rows start, see :func:`langsamp.core.model.vocabulary.carry_rows`.

    Returns:
        The :class:`Fertility` of every language, as numbers, under ``before`` and ``after``; also written to
        ``fertility.json``.

    Raises:
        ValueError: ``size`` is not positive, or the tokenizer is not a Unigram one.
        FileExistsError: the output exists.
    """
    if size < 1:
        raise ValueError(f"the vocabulary can be extended by 1 or more pieces, not {size}.")
    must_be_new(output)
    start = resolve_model(base).path
    old = load_tokenizer(start)
    check_unigram(old)
    source = open_corpus(corpus, only=languages)
    texts = {language: partial(source.texts, language) for language in source.languages}
    pieces, scores = learn_pieces(old, texts, size, alpha, max_characters)
    new = extend(old, pieces, scores)
    logger.info("added %d pieces to %d", len(pieces), len(old))
    model, _ = starting_model(base, (), old, lang=False, script=False)
    carry_rows(model, old, new, new_rows)
    report = {
        name: {language: asdict(cut) for language, cut in fertility(tok, texts).items()}
        for name, tok in (("before", old), ("after", new))
    }
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        new.save_pretrained(folder)
        atomic_write(folder / "fertility.json", json.dumps(report, indent=1) + "\n")
        TrainingFacts(license=license_of(start)).write(folder)
    return report


def learn_pieces(
    tokenizer: LangSAMPTokenizer, texts: Texts, size: int, alpha: float = 0.3, max_characters: int = 50_000_000
) -> tuple[list[str], list[float]]:
    """The best new pieces of a corpus: a Unigram model is trained beside the old one, its new pieces are kept.

    Characters that the old vocabulary lacks come first (without them a text becomes ``<unk>``), then pieces by score.
    Glot500 appended the scores as they came; here they are shifted by the median difference of the pieces that both
    vocabularies have, so that old and new ones compete on one scale.

    Returns:
        Up to ``size`` pieces and their log-probabilities.
    """
    learner = Tokenizer(models.Unigram())
    learner.normalizer = tokenizer.backend_tokenizer.normalizer
    learner.pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    old = dict(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"])
    # about half of what a corpus teaches is there already; the rest is cut off below
    trainer = trainers.UnigramTrainer(
        vocab_size=2 * size + 2000,
        special_tokens=["<unk>"],
        unk_token="<unk>",
        show_progress=False,
        max_piece_length=16,
    )
    learner.train_from_iterator(_balanced(texts, alpha, max_characters), trainer)
    learnt = [(p, s) for p, s in json.loads(learner.to_str())["model"]["vocab"] if p != "<unk>"]
    shared = [old[piece] - score for piece, score in learnt if piece in old]
    shift = statistics.median(shared) if shared else 0.0
    # the trainer's hash maps make last digits differ from run to run; rounded, ties are settled by the piece below
    fresh = [(piece, round(score + shift, 6)) for piece, score in learnt if piece not in old]
    fresh.sort(key=lambda entry: (len(entry[0]) > 1, -entry[1], entry[0]))
    chosen = fresh[:size]
    if len(chosen) < size:
        logger.warning("the corpus offers %d new pieces, not %d", len(chosen), size)
    return [piece for piece, _ in chosen], [score for _, score in chosen]


def fertility(tokenizer: LangSAMPTokenizer, texts: Texts, documents: int = 2000) -> dict[str, Fertility]:
    """How a tokenizer cuts each language, on its first ``documents`` documents."""
    result = {}
    for language, stream in tqdm(texts.items(), desc="fertility", unit="language", leave=False):
        words = characters = tokens = unknown = 0
        for batch in _batches(islice(stream(), documents)):
            words += sum(len(text.split()) for text in batch)
            characters += sum(len("".join(text.split())) for text in batch)
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                tokens += len(encoding.ids)
                unknown += encoding.ids.count(tokenizer.unk_token_id)
        result[language] = Fertility(tokens / max(1, words), tokens / max(1, characters), unknown / max(1, tokens))
    return result


def _balanced(texts: Texts, alpha: float, max_characters: int) -> Iterator[list[str]]:
    """Batches of documents, each language with its share of the learning text; small ones come again and again."""
    sizes = {language: sum(len(text) for text in islice(stream(), 100_000)) for language, stream in texts.items()}
    weights = {language: size**alpha for language, size in sizes.items() if size}
    total = min(max_characters, MAX_REPEATS * sum(sizes.values()))
    for language, weight in tqdm(weights.items(), desc="learning text", unit="language", leave=False):
        budget = min(total * weight / sum(weights.values()), MAX_REPEATS * sizes[language])
        yield from _batches(_until(texts[language], budget))


def _until(stream: Callable[[], Iterable[str]], budget: float) -> Iterator[str]:
    """Documents from the start of a stream, again from its start at its end, until ``budget`` characters are there."""
    while budget > 0:
        for text in stream():
            if budget <= 0:
                return
            budget -= len(text)
            yield text


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def show_fertility(report: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A table of fertility before and after, the languages that gained most first."""
    before, after = report["before"], report["after"]
    gain = {
        language: after[language]["tokens_per_character"] / max(1e-9, row["tokens_per_character"])
        for language, row in before.items()
    }
    lines = [f"{'language':<10} {'tokens/word':>16} {'tokens/character':>18} {'<unk> %':>14}"]
    for language in sorted(gain, key=gain.__getitem__):
        a, b = before[language], after[language]
        lines.append(
            f"{language:<10} {a['tokens_per_word']:>7.2f} ->{b['tokens_per_word']:>6.2f} "
            f"{a['tokens_per_character']:>9.3f} ->{b['tokens_per_character']:>6.3f} "
            f"{100 * a['unknown']:>5.2f} ->{100 * b['unknown']:>6.2f}"
        )
    return "\n".join(lines)
