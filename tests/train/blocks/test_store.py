"""Stores: the tokens of the plain way, block by block; added to, killed, sent round by the Hub."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from langsamp.core import files
from langsamp.train.blocks import workers
from langsamp.train.blocks.ledger import LanguageWriter
from langsamp.train.blocks.prepare import as_tokenizer, open_tokenizer, prepare
from langsamp.train.blocks.segment import Segmenter, Worker
from langsamp.train.blocks.store import BlockStore, open_store
from langsamp.train.text.open import open_corpus

# words that depend on their neighbours, odd spaces, special tokens in the text, marks, joiners, controls
ODD = [
    "a  b", "   lead", "trail   ", "a\u00a0b", "\u3000wide\u3000", "tab\there", "a <mask> b", "<s>x</s>", "x<mask>y",
    "\u0301combining first", "word \u0301alone", "a \u200d b", "zwnj\u200c end", "▁mark ▁ x▁y", "e\u0301 NFD é",
    "ﬁ ﬂ ½ ㎏", "\x00 nul \x00", "\x01control\x7f", "नदी के किनारे", "家は川の そばに", "\u2028sep\u2029", "\ufeffbom",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f1e9", "ا\u064b \u064b", "w" * 500,
    "\u00ad soft\u00adhyphen", "½", "\U0001f3fd tone", "ｶﾞ ﾞ x", "\u0600 1", "a\u0085b", "…", "\u200b\u200bx",
]  # fmt: skip


@pytest.fixture(scope="module")
def stock(tiny_tokenizer_dir):
    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_dir):
    return open_tokenizer(tiny_tokenizer_dir)


def _corpus(folder, texts, repeat=30):
    """Lines made of the words of a few sentences; every third line is odd."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, sentences in texts.items():
        rng = random.Random(language)
        words = " ".join(sentences).split()
        lines = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(repeat)]
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _lines(folder, language):
    return [line for line in (folder / f"{language}.txt").read_text(encoding="utf-8").split("\n") if line.strip()]


def _plain(stock, lines):
    return [i for line in lines for i in stock(line)["input_ids"]]


def test_blocks_hold_every_token_of_the_plain_way(tmp_path, texts, stock, tokenizer):
    folder = _corpus(tmp_path / "c", texts)
    store = prepare(open_corpus(folder), tokenizer, tmp_path / "s", block_size=32, num_proc=1, progress=False)
    assert store.languages == sorted(texts)
    for language in store.languages:
        expected = _plain(stock, _lines(folder, language))
        got = store.blocks(language)
        assert got.dtype == np.uint32
        assert got.shape == (store.counts[language], 32) == (-(-len(expected) // 32), 32)
        flat = got.reshape(-1).tolist()
        assert flat[: len(expected)] == expected
        assert set(flat[len(expected) :]) <= {stock.pad_token_id}
        assert store.index.languages[language].tokens == len(expected)
        assert got[0, 0] == stock.bos_token_id
    assert (store.block("deu_Latn", 1) == store.blocks("deu_Latn")[1]).all()
    store.verify()


@pytest.mark.parametrize("kind", ["transformers 5", "transformers 4", "spaces kept"])
def test_cached_ids_equal_plain_ids_for_odd_text(tiny_tokenizer_dir, kind):
    backend = Tokenizer.from_file(str(tiny_tokenizer_dir / "tokenizer.json"))
    space = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    if kind == "transformers 5":  # the two forms in which the libraries load XLM-R's tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
        backend.normalizer = normalizers.NFKC()
    else:
        backend.pre_tokenizer = space
        spaces = Regex(" {2,}") if kind == "transformers 4" else "  "
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(spaces, " ")])
    segmenter = Segmenter(backend)
    assert segmenter.cached == (kind != "spaces kept"), "where runs of spaces stay, words do not stand alone"
    rng = random.Random(0)
    pieces = [word for text in ODD for word in [text, *text.split(" ")]]
    for _ in range(20):
        documents = [" ".join(rng.choices(pieces, k=rng.randint(1, 6))) for _ in range(40)]
        documents = [text for text in [*documents, *rng.choices(ODD, k=5)] if text.strip()]
        assert segmenter.encode(documents) == segmenter.plain(documents)
    assert segmenter.encode([]) == b""


def test_real_vocabulary_and_scripts_go_through_the_cache_exactly(shared):
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -3.0), ("a", -2.0), ("▁a", -1.5), ("ब", -4.0)], 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    corpus = open_corpus(shared / "data" / "mlm", only=["alw_Ethi", "hin_Deva", "pes_Arab", "tha_Thai", "abk_Cyrl"])
    segmenter = Segmenter(backend)
    for language, (part,) in corpus.parts.items():
        documents = list(corpus.documents(part))[:300]
        assert segmenter.encode(documents) == segmenter.plain(documents), language


def test_tokenizers_of_another_kind_take_the_plain_way():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    segmenter = Segmenter(backend)
    assert not segmenter.cached
    assert np.frombuffer(segmenter.encode(["a b", "c"]), np.uint32).tolist() == [1, 2, 0]


def test_a_worker_that_finds_its_cache_wrong_goes_the_plain_way(stock):
    backend = Tokenizer.from_str(stock.backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    worker = Worker(backend, True, stock.unk_token_id)
    assert worker._segmenter.cached
    worker._segmenter._cache["Haus"] = b"\x07\x00\x00\x00"
    found = worker(["Das Haus steht am Fluss."] * 3, 0.0)
    assert not found.cached
    assert np.frombuffer(found.tokens, np.uint32).tolist() == stock("Das Haus steht am Fluss.")["input_ids"] * 3


def test_processes_and_cache_change_nothing(tmp_path, texts, tokenizer, monkeypatch):
    folder = _corpus(tmp_path / "c", texts, 200)
    prints = set()
    for name, num_proc, cache in (("one", 1, True), ("two", 2, True), ("plain", 1, False), ("large", 2, True)):
        if name == "large":  # as if every file were: read here, encoded elsewhere
            monkeypatch.setattr(workers, "SMALL", 0)
        store = prepare(
            open_corpus(folder), tokenizer, tmp_path / name, 64, num_proc, progress=False, word_cache=cache, heldout=1
        )
        prints.add(store.fingerprint)
    assert len(prints) == 1


def test_adding_a_file_or_language_does_only_the_new_part(tmp_path, texts, tokenizer, monkeypatch):
    folder = _corpus(tmp_path / "c", {"deu_Latn": texts["deu_Latn"], "rus_Cyrl": texts["rus_Cyrl"]})
    prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    (folder / "deu_Latn.txt").rename(folder / "deu_Latn.1.txt")  # a new name, the same text
    (folder / "deu_Latn.2.txt").write_text("Das Haus.\nAm Fluss.\n" * 9, encoding="utf-8")
    _corpus(folder, {"hin_Deva": texts["hin_Deva"]})
    read = []
    corpus = open_corpus(folder)
    documents = corpus.documents
    monkeypatch.setattr(corpus, "documents", lambda part: read.append(part.name) or documents(part))
    added = prepare(corpus, tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert read == ["deu_Latn.2.txt", "hin_Deva.txt"]
    whole = prepare(open_corpus(folder), tokenizer, tmp_path / "whole", 32, 1, progress=False)
    assert added.fingerprint == whole.fingerprint, "as if all had been there from the start: no padding in the middle"
    assert (
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False).fingerprint == whole.fingerprint
    )


def test_the_same_text_twice_counts_once(tmp_path, tokenizer, caplog):
    for name in ("deu_Latn.a.txt", "deu_Latn.b.txt"):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / name).write_text("Das Haus.\n")
    store = prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert store.index.languages["deu_Latn"].documents == 1
    assert "same text" in caplog.text


def test_changed_parts_and_settings_are_refused(tmp_path, texts, tokenizer, stock):
    folder = _corpus(tmp_path / "c", {"deu_Latn": texts["deu_Latn"]})
    prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    with pytest.raises(ValueError, match=r"another block_size \(32, now 64\)"):
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 64, 1, progress=False)
    larger = Tokenizer.from_str(stock.backend_tokenizer.to_str())
    larger.add_tokens(["novel"])
    stock_larger = type(stock)(tokenizer_object=larger, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>")
    with pytest.raises(ValueError, match="another tokenizer"):
        prepare(open_corpus(folder), as_tokenizer(stock_larger, "new"), tmp_path / "s", 32, 1, progress=False)
    (folder / "deu_Latn.txt").write_text("Etwas anderes.\n")
    with pytest.raises(ValueError, match=r"deu_Latn.txt changed since"):
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        BlockStore(tmp_path / "s")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_what_the_workers_met_is_told(tmp_path, texts, tokenizer, num_proc):
    folder = _corpus(tmp_path / "c", {"deu_Latn": texts["deu_Latn"]})
    (folder / "rus_Latn.txt").write_text("Дом стоит у реки.\n" * 3, encoding="utf-8")
    (folder / "eng_Latn.txt").write_bytes(b"The house\xff\n")
    corpus = open_corpus(folder)
    prepare(corpus, tokenizer, tmp_path / "s", 32, num_proc, progress=False)
    assert corpus.report.lines() == [
        "1 texts were not valid Unicode: eng_Latn 1",
        "rus_Latn.txt: the text is in Cyrl, not in Latn; is the tag right?",
    ]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_file_that_cannot_be_read_is_named_from_any_process(tmp_path, texts, tokenizer, num_proc):
    folder = _corpus(tmp_path / "c", texts)
    (folder / "fra_Latn.txt").write_bytes("La maison\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"fra_Latn.txt is UTF-16"):
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, num_proc, progress=False)


def test_a_language_that_is_held_out_whole_is_told(tmp_path, tokenizer, caplog):
    lines = (f"only line {number}" for number in range(1000))
    line = next(line for line in lines if zlib.crc32(line.encode()) < 0.1 * 2**32)  # a tenth is the most held out
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "deu_Latn.txt").write_text(line + "\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="langsamp"):
        store = prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "s", 64, 1, heldout=8, progress=False)
    assert store.counts.get("deu_Latn", 0) == 0
    assert "deu_Latn: all of its 1 documents are held out" in caplog.text


def test_held_out_documents_are_never_trained_on(tmp_path, stock, tokenizer):
    rng = random.Random(1)
    words = ["Das", "Haus", "steht", "am", "Fluss", "Im", "Januar", "sind", "die", "Tage"]
    lines = [" ".join(rng.choices(words, k=12)) for _ in range(2000)]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "deu_Latn.txt").write_text("\n".join(lines * 2), encoding="utf-8")
    store = prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "s", 64, 1, heldout=8, progress=False)

    def sentences(blocks):
        found = [[]]
        for i in blocks.reshape(-1).tolist():
            if i == stock.bos_token_id:
                found.append([])
            elif i not in stock.all_special_ids:
                found[-1].append(i)
        return [tuple(sentence) for sentence in found if sentence]

    held, trained = sentences(store.heldout("deu_Latn")), sentences(store.blocks("deu_Latn"))
    assert 3 <= len(store.heldout("deu_Latn")) <= 30
    assert not set(held) & set(trained), "copies of a document fall on one side"
    assert len(held + trained) == 4000, "every document is on one side"
    plain = prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "none", 64, 1, progress=False)
    assert plain.heldout("deu_Latn").shape == (0, 64)


_CHILD = """
import sys
from langsamp.train.blocks import pipeline, workers
from langsamp.train.text.open import open_corpus
from langsamp.train.blocks.prepare import prepare
workers.CHUNK_CHARS, pipeline._COMMIT_SECONDS, workers.SMALL = 4000, 0.0, int(sys.argv[4])
if __name__ == "__main__":
    prepare(open_corpus(sys.argv[1]), sys.argv[2], sys.argv[3], 32, 2, heldout=1, progress=False)
    print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("small", [0, 10**6], ids=["chunks", "parts"])
def test_killed_at_any_point_it_goes_on_and_ends_the_same(tmp_path, texts, tokenizer, tiny_tokenizer_dir, small):
    folder = _corpus(tmp_path / "c", texts, 3000)
    (tmp_path / "child.py").write_text(_CHILD)
    expected = prepare(open_corpus(folder), tokenizer, tmp_path / "whole", 32, 1, heldout=1, progress=False)
    command = [sys.executable, tmp_path / "child.py", folder, tiny_tokenizer_dir, tmp_path / "s", str(small)]
    rng, kills = random.Random(1), 0
    while kills < 3:
        before = _written(tmp_path / "s")
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        while child.poll() is None and _written(tmp_path / "s") == before:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.1)
        if child.poll() is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
    assert kills >= 1
    assert b"done" in subprocess.run(command, capture_output=True, check=True).stdout
    store = BlockStore(tmp_path / "s")
    assert store.fingerprint == expected.fingerprint
    store.verify()


def test_an_interrupted_run_ends_in_one_sentence(tmp_path, texts, tiny_tokenizer_dir):
    """Ctrl-C reaches the workers too; whenever it comes, while importing or at work, there is no traceback."""
    folder = _corpus(tmp_path / "c", texts, 60_000)
    command = ["prepare", "--corpus", folder, "--tokenizer", tiny_tokenizer_dir, "--num-proc", "2", "--output"]
    for wait in (0.6, 1.2, 2.0, None):  # None: until text is being written
        store = tmp_path / f"s{wait}"
        child = subprocess.Popen(
            [sys.executable, "-m", "langsamp", *map(str, command), str(store)], stderr=subprocess.PIPE, text=True,
            start_new_session=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a background job
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while wait is None and child.poll() is None and not _written(store) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait or 0)
        os.killpg(child.pid, signal.SIGINT)
        error = child.communicate(timeout=60)[1]
        assert "Traceback" not in error
        if wait is None:
            assert child.returncode == 130, error
            assert "interrupted; run the same command again" in error


def _written(folder):
    return sum(path.stat().st_size for path in folder.glob("*.u32")) if folder.exists() else 0


@pytest.mark.parametrize("small", [0, 10**6], ids=["chunks", "parts"])
def test_every_interruption_inside_a_run_is_survived(tmp_path, texts, tokenizer, monkeypatch, small):
    """Stops the run after each of its appends in turn, with and without a commit since."""
    from langsamp.train.blocks import ledger, pipeline, workers

    monkeypatch.setattr(workers, "SMALL", small)

    folder = _corpus(tmp_path / "c", {k: texts[k] for k in ("deu_Latn", "rus_Cyrl")}, 60)
    (folder / "deu_Latn.b.txt").write_text("Am Fluss.\n" * 50)
    expected = prepare(open_corpus(folder), tokenizer, tmp_path / "whole", 32, 1, heldout=1, progress=False)
    monkeypatch.setattr(workers, "CHUNK_CHARS", 300)
    append = ledger.LanguageWriter.append

    class Stop(Exception):
        pass

    for seconds in (0.0, 1e9):
        for after in range(0, 24, 2):
            target = tmp_path / f"s-{seconds}-{after}"
            monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", seconds)
            calls = iter(range(10**6))

            def stopping(self, *arguments, calls=calls, after=after):
                append(self, *arguments)
                if next(calls) == after:
                    raise Stop

            monkeypatch.setattr(ledger.LanguageWriter, "append", stopping)
            try:
                prepare(open_corpus(folder), tokenizer, target, 32, 1, heldout=1, progress=False)
            except Stop:
                with pytest.raises(FileNotFoundError, match="unfinished"):
                    BlockStore(target)
            monkeypatch.setattr(ledger.LanguageWriter, "append", append)
            store = prepare(open_corpus(folder), tokenizer, target, 32, 1, heldout=1, progress=False)
            assert store.fingerprint == expected.fingerprint, (seconds, after)


def test_a_part_that_changes_after_an_interruption_is_taken_back(tmp_path, tokenizer, monkeypatch):
    from langsamp.train.blocks import ledger, pipeline, workers

    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "deu_Latn.txt").write_text("Das Haus.\n" * 200)
    monkeypatch.setattr(workers, "CHUNK_CHARS", 300)
    monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(ledger.LanguageWriter, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    monkeypatch.undo()
    row = json.loads((tmp_path / "s" / "deu_Latn.json").read_text())
    assert row["current"]["documents"] == 200
    (folder / "deu_Latn.txt").write_text("Am Fluss.\n" * 20)
    store = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    whole = prepare(open_corpus(folder), tokenizer, tmp_path / "whole", 32, 1, progress=False)
    assert store.fingerprint == whole.fingerprint


def test_a_language_that_another_run_left_half_way_is_told(tmp_path, texts, tokenizer, monkeypatch, caplog):
    """It was whole before; without a word the next model would be trained without it."""
    from langsamp.train.blocks import pipeline

    folder, output = _corpus(tmp_path / "c", {k: texts[k] for k in ("deu_Latn", "rus_Cyrl")}), tmp_path / "s"
    prepare(open_corpus(folder), tokenizer, output, 32, 1, progress=False)
    (folder / "deu_Latn.b.txt").write_text("Am Fluss.\n" * 50)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_COMMIT_SECONDS", 0.0)
        patch.setattr(LanguageWriter, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(open_corpus(folder), tokenizer, output, 32, 1, progress=False)
    store = prepare(open_corpus(folder, only=["rus"]), tokenizer, output, 32, 1, progress=False)
    assert store.languages == ["rus_Cyrl"]
    assert "deu_Latn is left out: an earlier run that added to it was interrupted" in caplog.text
    assert prepare(open_corpus(folder), tokenizer, output, 32, 1, progress=False).languages == ["deu_Latn", "rus_Cyrl"]


@pytest.mark.parametrize("lost", ["cut off", "zeros"])
@pytest.mark.parametrize("together", [False, True])
def test_after_a_power_cut_at_any_point_it_goes_on_and_ends_the_same(
    tmp_path, texts, tokenizer, monkeypatch, lost, together
):
    """What was not waited for is gone, or its place is there and holds zeros; names are the newest."""
    from langsamp.train.blocks import pipeline

    folder = _corpus(tmp_path / "c", {k: texts[k] for k in ("deu_Latn", "rus_Cyrl", "hin_Deva")}, 60)
    monkeypatch.setattr(workers, "CHUNK_CHARS", 300)
    monkeypatch.setattr(workers, "SMALL", 0)

    def make(target):
        return prepare(open_corpus(folder), tokenizer, target, 32, 1, heldout=1, progress=False)

    expected, disk, images = make(tmp_path / "whole"), {}, []
    fsync, replace = os.fsync, os.replace

    def image():
        found = {}
        for path in (tmp_path / "s").glob("[a-z]*"):
            kept, size = disk.get(path.stat().st_ino, b""), path.stat().st_size
            found[path.name] = kept[:size] if lost == "cut off" else kept[:size].ljust(size, b"\0")
        images.extend([found] if found not in images else [])

    def remember(descriptor):
        fsync(descriptor)
        disk[os.fstat(descriptor).st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        image()

    class System:
        """A system whose whole disk can be waited for."""

        def syncfs(self, descriptor):
            disk.update(
                {path.stat().st_ino: path.read_bytes() for path in (tmp_path / "s").iterdir() if path.is_file()}
            )
            image()
            return 0

    def rename(source, target):
        replace(source, target)
        image()

    for seconds in (0.0, 1e9):
        monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", seconds)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", remember)
            patch.setattr(os, "replace", rename)
            patch.setattr(files, "SYSTEM", System() if together else None)
            patch.setattr(files, "TOGETHER", 1)
            make(tmp_path / "s")
        shutil.rmtree(tmp_path / "s")
    assert len(images) > 10
    for number, found in enumerate(images):
        target = tmp_path / f"after-{number}"
        target.mkdir()
        for name, content in found.items():
            (target / name).write_bytes(content)
        try:
            store = BlockStore(target)
        except FileNotFoundError:
            store = make(target)
        assert store.fingerprint == expected.fingerprint
        store.verify()


def test_a_worker_that_dies_is_one_sentence_and_the_next_run_goes_on(tmp_path, texts, tokenizer, monkeypatch):
    folder = _corpus(tmp_path / "c", texts, 3000)
    expected = prepare(open_corpus(folder), tokenizer, tmp_path / "whole", 32, 1, progress=False)
    append = LanguageWriter.append

    def kill(self, *arguments):
        append(self, *arguments)
        for worker in multiprocessing.active_children():
            worker.kill()

    with monkeypatch.context() as patch:
        patch.setattr(workers, "CHUNK_CHARS", 4000)
        patch.setattr(LanguageWriter, "append", kill)
        with pytest.raises(RuntimeError, match=r"a worker process died .*; run the same command again"):
            prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 2, progress=False)
    assert multiprocessing.active_children() == []
    with pytest.raises(FileNotFoundError, match="unfinished"):
        BlockStore(tmp_path / "s")
    again = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 2, progress=False)
    assert again.fingerprint == expected.fingerprint


def test_a_damaged_store_is_refused_by_name(tmp_path, texts, tokenizer):
    folder = _corpus(tmp_path / "c", texts)
    store = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    file = tmp_path / "s" / "rus_Cyrl.u32"
    data = file.read_bytes()
    file.write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"rus_Cyrl.u32 has"):
        BlockStore(tmp_path / "s")
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ValueError, match=r"rus_Cyrl.u32 does not have the sha256"):
        BlockStore(tmp_path / "s").verify()
    (tmp_path / "s" / "store.json").write_text("{")
    with pytest.raises(ValueError, match=r"store\.json is not readable JSON"):
        BlockStore(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="not a store of format"):
        BlockStore(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="langsamp prepare"):
        BlockStore(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder 'stores/none' here.* Make a store with langsamp prepare\."):
        open_store("stores/none")
    with pytest.raises(IndexError, match="deu_Latn has blocks 0 to"):
        store.block("deu_Latn", 10**6)
    with pytest.raises(KeyError, match="no language 'xxx_Latn'"):
        store.block("xxx_Latn", 0)


@pytest.mark.parametrize("name", ["../deu_Latn", "/etc/hosts", "deu_Latn/x", ""])
def test_a_store_that_names_files_elsewhere_is_refused(small_store_dir, tmp_path, name):
    shutil.copytree(small_store_dir, tmp_path / "store")
    index = tmp_path / "store" / "store.json"
    found = json.loads(index.read_text())
    found["languages"][name] = found["languages"].pop("deu_Latn")
    index.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"store.json: .* is not a language tag.* langsamp prepare"):
        BlockStore(tmp_path / "store")


def _damaged(file, place, value):
    """Change one entry of a JSON file; KeyError: remove it."""
    whole = row = json.loads(file.read_text())
    *path, last = place
    for key in path:
        row = row[key]
    if value is KeyError:
        del row[last]
    else:
        row[last] = value
    file.write_text(json.dumps(whole))


def _error(action):
    """What a user is told; empty if all is well."""
    try:
        action()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("place", "fine"),
    [
        (("block_size",), []),
        (("complete",), [True]),
        (("tokenizer",), []),
        (("tokenizer", "pad_id"), [-1]),
        (("languages",), [KeyError, {}]),
        (("languages", "deu_Latn"), [KeyError]),
        (("languages", "deu_Latn", "blocks"), []),
        (("languages", "deu_Latn", "sha256"), []),
        (("source",), [KeyError, []]),
    ],
    ids=str,
)
def test_entries_that_are_missing_or_of_the_wrong_kind_are_one_sentence(tmp_path, texts, tokenizer, place, fine):
    folder = _corpus(tmp_path / "c", {"deu_Latn": texts["deu_Latn"]})
    prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    file = tmp_path / "s" / "store.json"
    whole = file.read_text()
    for value in (KeyError, "x", 1.5, -1, None, [], [[]], {}, {"a": {}}, True):
        file.write_text(whole)
        _damaged(file, place, value)
        message = _error(lambda: BlockStore(tmp_path / "s").verify())
        assert bool(message) == (value not in fine), (value, message)
        assert "\n" not in message
        assert not message or "store.json" in message or "the store in" in message


@pytest.mark.parametrize("place", [("totals",), ("totals", "tokens"), ("done",), ("current",), ("sha256",)], ids=str)
@pytest.mark.parametrize("value", [KeyError, "x", [], {}, {"a": 1}, 1e999, None])
def test_a_damaged_ledger_is_one_sentence_and_never_lost_text(tmp_path, texts, tokenizer, place, value):
    folder = _corpus(tmp_path / "c", {"deu_Latn": texts["deu_Latn"]})
    store = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    ledger = tmp_path / "s" / "deu_Latn.json"
    _damaged(ledger, place, value)
    message = _error(lambda: prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False))
    harmless = {"current": [None, 1e999], "done": [{}], "sha256": ["x"]}
    if value in harmless.get(place[0], []):
        assert (message, BlockStore(tmp_path / "s").index.languages["deu_Latn"].documents >= 30) == ("", True)
    else:
        assert re.search(r"deu_Latn\.json.*; delete .*deu_Latn\.\* and run langsamp prepare again", message), message
    for file in (tmp_path / "s").glob("deu_Latn.*"):
        file.unlink()
    again = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert again.fingerprint == store.fingerprint, "the remedy works"


def test_a_store_travels_to_workers_as_its_path(tmp_path, texts, tokenizer):
    folder = _corpus(tmp_path / "c", texts, 500)
    store = prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    store.blocks("deu_Latn")
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert (pickle.loads(data).block("deu_Latn", 0) == store.block("deu_Latn", 0)).all()


def test_text_that_went_into_two_languages_is_told(tmp_path, tokenizer, caplog):
    """A name was said to mean another language in the run before."""
    for number in range(3):
        (tmp_path / "c" / "luganda").mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / "luganda" / f"{number}.txt").write_text(f"Ennyumba {number}\n")
    for names in ({"luganda": "lgg"}, {"luganda": "lug"}):
        assert "went into" not in caplog.text
        prepare(open_corpus(tmp_path / "c", names=names), tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert caplog.text.count("c/luganda/0.txt went into lgg_Latn and into lug_Latn; delete the files of the wrong") == 1
    assert caplog.text.count("went into") == 1
    for path in (tmp_path / "s").glob("lgg_Latn.*"):
        path.unlink()
    caplog.clear()
    store = prepare(open_corpus(tmp_path / "c", names=names), tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert (store.languages, caplog.text) == (["lug_Latn"], "")


def test_a_store_in_a_cache_that_others_look_after_is_read(small_store_dir, monkeypatch):
    from langsamp.train.blocks import store

    def denied(path, content):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: str(small_store_dir))
    monkeypatch.setattr(store, "atomic_write", denied)
    assert store.open_store("user/store").counts == BlockStore(small_store_dir).counts


def test_a_store_is_pushed_again_after_faults_that_pass(small_store_dir, monkeypatch, waits):
    from langsamp.core.retry import HubError
    from langsamp.train.blocks.store import push_store

    calls, faults = [], [ConnectionError("reset by peer"), TimeoutError("timed out")]

    class Api:
        def _take(self, **given):
            calls.append(given.get("path_in_repo") or given.get("ignore_patterns"))
            if faults:
                raise faults.pop()

        create_repo = upload_folder = upload_file = _take

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    push_store(small_store_dir, "user/store")
    assert calls == [None, None, None, ["store.json"], "store.json"], "the index comes last"
    assert waits == [1, 2]
    faults += [OSError("no room")]
    with pytest.raises(HubError, match="creating the data set user/store failed: no room"):
        push_store(small_store_dir, "user/store")


def test_two_runs_do_not_write_to_one_store(tmp_path, texts, tokenizer):
    from filelock import FileLock

    folder = _corpus(tmp_path / "c", texts)
    (tmp_path / "s").mkdir()
    with FileLock(tmp_path / "s" / ".lock"), pytest.raises(RuntimeError, match="another langsamp prepare"):
        prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)


def test_languages_without_text_and_bad_arguments(tmp_path, tokenizer):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "deu_Latn.txt").write_text("Das Haus.\n")
    (tmp_path / "c" / "rus_Cyrl.txt").write_text("\n \n")
    store = prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "s", 32, 1, progress=False)
    assert store.languages == ["deu_Latn"]
    assert store.index.languages["rus_Cyrl"].blocks == 0
    store.verify()
    with pytest.raises(ValueError, match="block_size 4"):
        prepare(open_corpus(tmp_path / "c"), tokenizer, tmp_path / "t", 4, progress=False)
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        open_tokenizer(tmp_path)


def test_command_line(tmp_path, texts, tiny_tokenizer_dir, capsys):
    from langsamp.cli import main

    folder = _corpus(tmp_path / "c", texts)
    out = str(tmp_path / "s")
    command = ["prepare", "--corpus", str(folder), "--tokenizer", str(tiny_tokenizer_dir), "--output", out]
    options = ["--block-size", "32", "--num-proc", "1", "--languages", "de", "rus_Cyrl"]
    assert main([*command, *options]) == 0
    assert "2 languages, 60 documents" in capsys.readouterr().out
    assert BlockStore(out).languages == ["deu_Latn", "rus_Cyrl"]
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "--output", out])


_HUB = """
import os, sys, threading
sys.path.insert(0, {tools!r})
from loopback_hub import HubServer
server = HubServer(0)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.update(HF_ENDPOINT=server.url, HF_HUB_DISABLE_XET="1", HF_TOKEN="hf_x")
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from pathlib import Path
from langsamp.train.text.open import open_corpus
from langsamp.train.blocks.store import BlockStore, open_store, push_store

push_store({store!r}, "user/store")
pulled = open_store("user/store")
assert pulled.fingerprint == BlockStore({store!r}).fingerprint
victim = pulled.path / "deu_Latn.u32"
data = victim.read_bytes()
victim.unlink()
victim.write_bytes(bytes([data[0] ^ 1]) + data[1:])
(pulled.path / ".verified").unlink()
try:
    open_store("user/store")
except ValueError as error:
    print(error)
try:
    open_store("user/nothing")
except FileNotFoundError as error:
    print(error)

api = HfApi()
api.create_repo("user/text", repo_type="dataset")
folder = Path("text")
entries = ""
for tag in ("deu_Latn", "uzb_Cyrl"):
    (folder / tag / "train").mkdir(parents=True)
    pq.write_table(pa.table({{"text": ["one", "two " + tag]}}), folder / tag / "train" / "0000.parquet")
    entries += f"- config_name: {{tag}}\\n  data_files: {{tag}}/train/*.parquet\\n"
(folder / "README.md").write_text(f"---\\nconfigs:\\n{{entries}}---\\n")
api.upload_folder(repo_id="user/text", repo_type="dataset", folder_path=folder)
corpus = open_corpus("user/text", only=["de", "uz-Cyrl"])
assert all(corpus.sizes.values())
print({{language: list(corpus.documents(part)) for language, (part,) in corpus.parts.items()}})
"""


@pytest.mark.slow
def test_stores_and_corpora_on_the_hub(tmp_path, texts, tokenizer, shared):
    folder = _corpus(tmp_path / "c", texts)
    prepare(open_corpus(folder), tokenizer, tmp_path / "s", 32, 1, progress=False)
    code = _HUB.format(tools=str(shared / "tools"), store=str(tmp_path / "s"))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-I", "-c", code]
    out = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "deu_Latn.u32 does not have the sha256" in out
    assert "there is no folder 'user/nothing' here" in out
    assert "{'deu_Latn': ['one', 'two deu_Latn'], 'uzb_Cyrl': ['one', 'two uzb_Cyrl']}" in out
