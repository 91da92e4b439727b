"""The text and the test sets of the replication, cut out of a data folder once; every choice is fixed by the files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from langsamp.eval.data.columns import COLUMNS

from .plan import Languages, Sizes

ENGLISH = "eng_Latn"


def cut(source: Path, languages: Languages, sizes: Sizes, output: Path) -> None:
    """Write `output/corpus` (training text) and `output/test` (evaluation data in the usual format).

    The last rows of a language's text are held out for the masked-LM loss; languages that are not trained on give their
    first rows. Retrieval keeps the first verses and pairs. SIB-200 keeps all of English and of the languages that may
    be sources of transfer (`sizes.sources`, else those trained on), and the test part of the others. Taxi1500 and
    tagging are cut if `sizes.words` asks for them.

    Raises:
        FileNotFoundError: the folder lacks text of a language to train on.
    """
    if (output / "test").is_dir():
        return
    scratch = output / "cutting"
    shutil.rmtree(scratch, ignore_errors=True)
    for tag in languages.measured:
        text = _read(source, "mlm", tag)
        if text is None and tag in languages.trained:
            raise FileNotFoundError(f"{source / 'mlm'} has no {tag}.parquet, which the recipe trains on.")
        if text is not None:
            _text(text.select(["text"]), tag, tag in languages.trained, sizes, scratch, output)
        _test(source, tag, tag in (sizes.sources or languages.trained), sizes, scratch)
    _test(source, ENGLISH, True, sizes, scratch)
    scratch.rename(output / "test")


def _text(table: pa.Table, tag: str, trained: bool, sizes: Sizes, scratch: Path, output: Path) -> None:
    """Split one language's text into what is trained on and what is held out."""
    rows = min(sizes.heldout_rows, len(table) // 10)
    if not trained:
        _write(table.slice(0, rows), scratch / "lm" / f"{tag}.parquet")
        return
    _write(table.slice(len(table) - rows), scratch / "lm" / f"{tag}.parquet")
    kept, total = 0, 0
    for value in table.column("text").to_pylist()[: len(table) - rows]:
        total += len(value.encode())
        if total > sizes.max_bytes:
            break
        kept += 1
    _write(table.slice(0, kept), output / "corpus" / f"{tag}.parquet")


def _test(source: Path, tag: str, whole: bool, sizes: Sizes, scratch: Path) -> None:
    """The first sentences of each test set; of SIB-200 the training part, too, if `whole`."""
    verses, pairs = _read(source, "bible_retrieval", tag), _read(source, "tatoeba", tag)
    if verses is not None:
        count = len(verses) if tag == ENGLISH else sizes.verses  # others may lack some of its first verses
        kept = verses.sort_by("id").slice(0, count)
        _write(kept, scratch / "bible_retrieval" / f"{tag}.parquet")
    if pairs is not None:
        _write(pairs.slice(0, sizes.pairs), scratch / "tatoeba" / f"{tag}.parquet")
    _labelled(source, "sib200", tag, scratch, None if whole else ("test",))
    if sizes.words:
        _labelled(source, "taxi1500", tag, scratch, None if tag == ENGLISH else ("test",))
        for folder in ("pos", *(f"ner/{place.name}" for place in sorted((source / "ner").glob("*")))):
            _tagged(source, folder, tag, sizes.words, scratch)


def _labelled(source: Path, folder: str, tag: str, scratch: Path, splits: tuple[str, ...] | None) -> None:
    """The sentences of some splits; None is all of them."""
    table = _read(source, folder, tag)
    if table is None:
        return
    if splits:
        table = table.filter(pa.array([split in splits for split in table.column("split").to_pylist()]))
    _write(table, scratch / folder / f"{tag}.parquet")


def _tagged(source: Path, folder: str, tag: str, words: int, scratch: Path) -> None:
    """The first sentences of the test part, and of English those to train and choose on."""
    table = _read(source, folder, tag)
    if table is None:
        return
    counts = {"test": words} | ({"train": 10 * words, "dev": words} if tag == ENGLISH else {})
    splits = pa.array(table.column("split").to_pylist())
    parts = [table.filter(pc.equal(splits, split)).slice(0, count) for split, count in counts.items()]
    _write(pa.concat_tables(parts), scratch / folder / f"{tag}.parquet")


def texts_of(place: Path) -> list[str]:
    """The texts of a Parquet file, or of all in a folder in the order of their names."""
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    return [text for path in files for text in pq.read_table(path, columns=["text"]).column("text").to_pylist()]


def _read(source: Path, folder: str, tag: str) -> pa.Table | None:
    path = source / folder / f"{tag}.parquet"
    return pq.read_table(path) if path.exists() else None


def _write(table: pa.Table, path: Path) -> None:
    """What the tasks read, plain: whoever packs many of these into one archive need not pack what is packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [name for name in table.column_names if name in COLUMNS]
    pq.write_table(table.select(kept), path, compression="none", use_dictionary=False, write_statistics=False)
