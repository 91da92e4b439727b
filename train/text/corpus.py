"""Where text comes from: a local folder, a Hub data set or the built-in ``cldr``, behind one interface.

First stage of training: :mod:`langsamp.train.blocks.prepare` asks a corpus for its languages and reads their documents
as a stream. A corpus is cut into parts (one file, one Hub configuration); a part belongs to one language and is the
unit that a second ``langsamp prepare`` recognises and leaves alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from langsamp.core.language.languages import check_tag, scripts_agree
from langsamp.core.language.names import SPLITS, Told, find_language, script_told
from langsamp.unicode_scripts import script_of, valid_unicode

LONGEST = 1 << 22  # characters of a document; the tokenizer takes 150 bytes for each
_SCRIPT_SAMPLE = 2_000  # characters that show whether a tag's script is the text's
_SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Part:
    """A piece of a corpus in one language.

    Attributes:
        language: ``lang_Script``.
        name: what people call it: the path below the corpus folder, or the Hub configuration.
        size: bytes as stored (compressed where the file is), for progress and balance; 0 if unknown.
        detail: what the corpus needs to find it again: the file, or the configuration.
        member: which file of an archive it is.
    """

    language: str
    name: str
    size: int
    detail: str
    member: str = ""


@dataclass
class Report:
    """What reading a corpus met that its user should hear of.

    Attributes:
        left_out: name of a file or configuration -> why it was not read.
        notes: one sentence each: a text that is not in the script of its tag.
        invalid: how many texts were not valid Unicode, by language.
        long: how many were longer than `LONGEST` and cut, by language.
        other_splits: how many rows belong to another split than the one asked for, by language.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    long: Counter[str] = field(default_factory=Counter)
    other_splits: Counter[str] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        """Take in what another process met."""
        self.left_out |= other.left_out
        self.notes += [note for note in other.notes if note not in self.notes]
        for name in ("invalid", "long", "other_splits"):
            getattr(self, name).update(getattr(other, name))

    def lines(self) -> list[str]:
        """The report, a line for each kind of thing; empty if there is nothing to tell."""
        found = [f"left out {_named(self.left_out)}"] if self.left_out else []
        for counts, what in (
            (self.invalid, "texts were not valid Unicode"),
            (self.long, f"texts were longer than {LONGEST:,} characters and cut"),
            (self.other_splits, "rows of other splits were left out"),
        ):
            if counts:
                named = ", ".join(f"{language} {count:,}" for language, count in counts.most_common(_SHOWN))
                found.append(f"{counts.total():,} {what}: {named}{' ...' if len(counts) > _SHOWN else ''}")
        more = [f"and {len(self.notes) - _SHOWN} more like these"] if len(self.notes) > _SHOWN else []
        return found + self.notes[:_SHOWN] + more


def _named(left_out: dict[str, str]) -> str:
    """``3 files: notes.docx (no format that is read), ...``, one example of each reason first."""
    first = {why: name for name, why in reversed(left_out.items())}
    names = [*reversed(first.values()), *(name for name in left_out if name not in first.values())]
    named = ", ".join(f"{name} ({left_out[name]})" for name in names[:_SHOWN])
    return f"{len(left_out)} file{'s' * (len(left_out) > 1)}: {named}{' ...' if len(names) > _SHOWN else ''}"


@dataclass(frozen=True)
class Selection:
    """Which splits and marked subsets of a corpus are wanted; `plain`: also what is marked as no subset."""

    splits: frozenset[str]
    subsets: frozenset[str]
    plain: bool

    @classmethod
    def parse(cls, text: str) -> Selection:
        """``train``, ``train+dev``, ``noisy`` (that subset of the training split alone) or ``train+noisy``."""
        words = [word.strip().lower() for word in text.split("+") if word.strip()]
        splits = frozenset(SPLITS[word] for word in words if word in SPLITS)
        subsets = frozenset(word for word in words if word not in SPLITS)
        return cls(splits or frozenset({"train"}), subsets, plain=bool(splits) or not subsets)

    def against(self, marks: set[str]) -> str | None:
        """Why a file with these marks (:func:`langsamp.core.language.names.marks`) is not wanted; None if it is."""
        splits = marks & set(SPLITS.values()) or {"train"}
        return self.against_subset(marks) if splits & self.splits else f"split {', '.join(sorted(splits))}"

    def against_subset(self, marks: set[str]) -> str | None:
        """The same, whatever the split."""
        subsets = marks - set(SPLITS.values())
        if unwanted := subsets - self.subsets:
            return f"marked {', '.join(sorted(unwanted))}"
        return None if subsets or self.plain else f"not marked {', '.join(sorted(self.subsets))}"

    def wants(self, split: object) -> bool:
        """Whether a row that tells its split is wanted; a split nobody knows is no reason against it."""
        name = SPLITS.get(split.lower()) if isinstance(split, str) else None
        return name is None or name in self.splits


@dataclass(frozen=True)
class Reading:
    """What is read of a corpus, and how; the arguments of :func:`langsamp.train.text.open.open_corpus`."""

    only: Iterable[str] | None = None
    column: str | None = None
    on_invalid: str = "replace"
    split: str = "train"
    names: Mapping[str, str] | None = None


class Corpus(ABC):
    """Text by language. Subclasses say which parts there are, what is in them and how to recognise them again.

    Args:
        how: what is read, and how.

    Attributes:
        name: what the user asked for.
        report: what reading met so far.
        read_in_workers: whether parts may be read in other processes (what is made or fetched is read in one).
    """

    name: str
    read_in_workers = False

    def __init__(self, how: Reading = Reading()) -> None:
        self._only = None if how.only is None else {check_tag(tag) for tag in how.only}
        self._others: set[str] = set()  # languages that are there, but not wanted
        self._asked = {language for language, _ in self._only or ()}
        self._column, self._on_invalid, self._split = how.column, how.on_invalid, how.split
        self._selection = Selection.parse(how.split)
        self._names = dict(how.names or {})
        for tag in self._names.values():
            check_tag(tag)
        self.report = Report()

    def __getstate__(self) -> dict[str, Any]:
        """What workers need: not the list of all parts, which can be long, nor what was met so far."""
        return {**{name: value for name, value in vars(self).items() if name != "parts"}, "report": Report()}

    def check_seen(self, where: str) -> None:  # noqa: B027 (nothing to check where text is fetched or made)
        """Look whether the machine called `where`, this one, sees the corpus.

        Raises:
            FileNotFoundError: it does not.
        """

    @abstractmethod
    def _find(self) -> dict[str, list[Part]]:
        """All parts by language; the report gets what is left out."""

    @abstractmethod
    def fingerprint(self, part: Part) -> str:
        """A sha256 in hex that changes whenever the part's text does."""

    @abstractmethod
    def _texts(self, part: Part, report: Report) -> Iterator[str]:
        """The part's documents in a fixed order: valid Unicode, not blank, nothing stripped but the line end."""

    def documents(self, part: Part) -> Iterator[str]:
        """The part's documents in a fixed order; the first ones show whether the tag's script is the text's.

        Raises:
            ValueError: the part cannot be read; it is named, with the place and the remedy.
        """
        texts = self._texts(part, self.report)
        head = list(islice(texts, 50))
        script = part.language.partition("_")[2]
        found = script_of("\n".join(head)[:_SCRIPT_SAMPLE])
        if not scripts_agree(script, found):
            called = part.name if part.name.startswith(part.language) else f"{part.name} ({part.language})"
            self.report.notes.append(f"{called}: the text is in {found}, not in {script}; is the tag right?")
        return chain(head, texts)

    def texts(self, language: str) -> Iterator[str]:
        """The documents of all parts of a language; errors as of :meth:`documents`."""
        return (text for part in self.parts[language] for text in self.documents(part))

    def _told(self, pieces: list[str]) -> Told:
        """The language that a name tells, given in pieces.

        Raises:
            ValueError: it tells none, or several.
        """
        told = find_language(pieces, self._names)
        if told is None:
            check_tag(pieces[-1].split(".")[0])  # which says what is wrong with it, where it looks like a tag
            raise ValueError("no language in its name")
        return told

    def _add(self, found: dict[str, list[Part]], told: Told, part: Part) -> None:
        """Put a part where it belongs, if its language is wanted."""
        if self._wants(told):
            part = self._with_script(told, part)
            if self._wants(Told(*part.language.split("_"))):
                found.setdefault(part.language, []).append(part)
                return
        self._others.add(part.language or _tag((told.language, told.script)))

    def _refuse(self, rejected: list[str], what: str) -> None:
        """Text of no language is an error, unless languages were asked for by name.

        Raises:
            ValueError: all names (up to ten) with the reasons.
        """
        if rejected and self._only is None:
            more = f" and {len(rejected) - 10} more" if len(rejected) > 10 else ""
            others = f" ({len(self.report.left_out)} others were left out)" if self.report.left_out else ""
            raise ValueError(
                f"{what} whose name is not a language: {'; '.join(rejected[:10])}{more}{others}. Rename them like "
                "deu_Latn, move them away, say what names mean with --names NAME=LANG, or name the languages you want "
                "with --languages."
            )
        for name in rejected:
            self.report.left_out[name.partition(" (")[0]] = "no language in its name"

    def _with_script(self, told: Told, part: Part) -> Part:
        """The part in its language; some of its text is read where the name has no script."""
        size, sample = 0, []
        for text in self._texts(replace(part, language=told.language), Report()) if told.script is None else ():
            sample.append(text)
            if (size := size + len(text)) > 10 * _SCRIPT_SAMPLE:
                break
        script = script_told(told, "\n".join(sample)[: 10 * _SCRIPT_SAMPLE])
        return replace(part, language=f"{told.language}_{script}")

    def _wants(self, told: Told) -> bool:
        """Whether a language was asked for; one whose script is not known yet may have been."""
        if self._only is None or (told.language, None) in self._only:
            return True
        return told.language in self._asked if told.script is None else (told.language, told.script) in self._only

    @cached_property
    def parts(self) -> dict[str, list[Part]]:
        """``lang_Script`` -> parts in the order of their names; sorted by language.

        Raises:
            ValueError: a language asked for is not there, or there is none at all.
        """
        found = self._find()
        left_out = f" Left out {_named(self.report.left_out)}." if self.report.left_out else ""
        there = {tag.partition("_")[0] for tag in found} | set(found)
        missing = sorted({_tag(asked) for asked in self._only or ()} - there)
        if missing:
            others = sorted({*found, *self._others})
            shown = (
                f"{', '.join(others[:20])}{' ...' if len(others) > 20 else ''}" if others else "none in any language"
            )
            raise ValueError(f"{self.name} has no text in {', '.join(missing)}; it has {shown}.{left_out}")
        if not found:
            raise ValueError(
                f"{self.name} has no text: expected files named like deu_Latn.txt, .jsonl or .parquet.{left_out}"
            )
        return {language: sorted(found[language], key=lambda part: part.name) for language in sorted(found)}

    @cached_property
    def source(self) -> str:
        """What a store calls it: a folder goes by its name alone, as it may move."""
        return Path(self.name).name if Path(self.name).is_dir() else self.name

    @property
    def languages(self) -> list[str]:
        """The languages, sorted."""
        return list(self.parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes as stored, by language."""
        return {language: sum(part.size for part in parts) for language, parts in self.parts.items()}


def _tag(asked: tuple[str, str | None]) -> str:
    return "_".join(filter(None, asked))


def clean(texts: Iterable[object], language: str, on_invalid: str, report: Report, where: str) -> Iterator[str]:
    """Drop blank and missing texts, repair lone surrogates (which JSON and Arrow can smuggle in), cut endless ones.

    Raises:
        ValueError: a text is not a string.
    """
    for text in texts:
        if text is None:
            continue
        if not isinstance(text, str):
            raise ValueError(f"the text in {where} is a {type(text).__name__}, not a string; name another --column.")
        if not text or text.isspace():
            continue
        if (valid := valid_unicode(text)) != text:
            report.invalid[language] += 1
            if on_invalid == "skip":
                continue
        yield from cut(valid, language, report) if len(valid) > LONGEST else (valid,)


def cut(text: str, language: str, report: Report) -> Iterator[str]:
    """A text of more than `LONGEST` characters in pieces, at spaces where there are some."""
    report.long[language] += 1
    start = 0
    while len(text) - start > LONGEST:
        space = text.rfind(" ", start + LONGEST // 2, start + LONGEST)
        end = space if space > 0 else start + LONGEST
        if piece := text[start:end].strip():
            yield piece
        start = end
    if rest := text[start:]:
        yield rest
