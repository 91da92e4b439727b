"""Reading text: every format, every way a folder can be untidy, and Hub data sets."""

from __future__ import annotations

import gzip
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.train.text import hub as corpus_hub
from langsamp.train.text.open import open_corpus

LINES = ["Erste Zeile.", "Zweite, mit Ümlaut.", "Dritte  ", " vierte"]


def _texts(corpus, language):
    return [text for part in corpus.parts[language] for text in corpus.documents(part)]


def _zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("pack", [None, "gz", "zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_text_formats(tmp_path, kind, pack):
    rows = LINES if kind == "txt" else [json.dumps({"id": i, "text": line}) for i, line in enumerate(LINES)]
    data = ("\n".join(rows) + "\n").encode()
    name = f"deu_Latn.{kind}"
    if pack:
        name += f".{pack}"
        data = gzip.compress(data) if pack == "gz" else _zstd(data)
    _write(tmp_path / name, data)
    corpus = open_corpus(tmp_path)
    assert corpus.languages == ["deu_Latn"]
    assert corpus.sizes == {"deu_Latn": len(data)}
    assert _texts(corpus, "deu_Latn") == LINES


def test_parquet(tmp_path):
    pq.write_table(pa.table({"text": [*LINES, None, ""], "n": range(6)}), tmp_path / "deu_Latn.parquet")
    assert _texts(open_corpus(tmp_path), "deu_Latn") == LINES


def test_names_are_normalised_or_rejected_by_name(tmp_path):
    for name in ("de.txt", "eng-Latn.txt", "zh-Hant.jsonl"):
        _write(tmp_path / name, b"")
    assert open_corpus(tmp_path).languages == ["deu_Latn", "eng_Latn", "zho_Hant"]
    _write(tmp_path / "notes.txt", b"x")
    _write(tmp_path / "dxu_Latn.txt", b"x")
    with pytest.raises(ValueError, match=r"dxu_Latn.txt .*notes.txt .*--languages"):
        open_corpus(tmp_path).languages  # noqa: B018
    assert open_corpus(tmp_path, only=["deu"]).languages == ["deu_Latn"]
    with pytest.raises(ValueError, match="no text in fra; it has deu, eng_Latn, zho_Hant"):
        open_corpus(tmp_path, only=["fr"]).languages  # noqa: B018


def test_hidden_and_other_files_are_left_out_and_said(tmp_path):
    _write(tmp_path / "deu_Latn.txt", b"a\n")
    _write(tmp_path / ".deu_Latn.txt", b"b\n")
    _write(tmp_path / ".cache" / "eng_Latn.txt", b"b\n")
    _write(tmp_path / "README.md", b"c\n")
    _write(tmp_path / "notes.docx", b"d\n")
    corpus = open_corpus(tmp_path)
    assert corpus.languages == ["deu_Latn"]
    assert set(corpus.report.left_out) == {"README.md", "notes.docx"}
    assert "left out 2 files: README.md (comes with the data, no text), notes.docx (no format that is read)" in (
        corpus.report.lines()
    )


def test_for_xml_a_way_to_text_is_named(tmp_path):
    _write(tmp_path / "swwiki-pages-articles.xml.bz2", b"BZh9")
    _write(tmp_path / "en-sw.tmx", b"<tmx/>")
    with pytest.raises(ValueError, match=r"has no text: .*en-sw.tmx \(XML; .*Moses.*xml.bz2 \(XML; wikiextractor"):
        open_corpus(tmp_path).languages  # noqa: B018


def test_several_files_of_one_language_are_read_in_the_order_of_their_names(tmp_path):
    _write(tmp_path / "deu_Latn.wiki.txt", b"w\n")
    _write(tmp_path / "deu_Latn.bible.jsonl", b'{"text": "b"}\n')
    _write(tmp_path / "deu_Latn" / "0001.txt", b"n\n")
    _write(tmp_path / "de.txt", b"d\n")
    corpus = open_corpus(tmp_path)
    assert [part.name for part in corpus.parts["deu_Latn"]] == [
        "de.txt", "deu_Latn.bible.jsonl", "deu_Latn.wiki.txt", "deu_Latn/0001.txt",
    ]  # fmt: skip
    assert _texts(corpus, "deu_Latn") == ["d", "b", "w", "n"]


def test_line_ends_byte_order_mark_and_blank_lines(tmp_path):
    _write(tmp_path / "deu_Latn.txt", b"\xef\xbb\xbfone\r\n\r\n   \r\ntwo\rhalf\r\n\xc2\xa0\nthree")
    assert _texts(open_corpus(tmp_path), "deu_Latn") == ["one", "two\rhalf", "three"]


def test_an_empty_file_is_a_language_without_text(tmp_path):
    _write(tmp_path / "deu_Latn.txt", b"")
    _write(tmp_path / "eng_Latn.txt", b"\xef\xbb\xbf")
    corpus = open_corpus(tmp_path)
    assert _texts(corpus, "deu_Latn") == _texts(corpus, "eng_Latn") == []


@pytest.mark.parametrize("on_invalid", ["replace", "skip"])
def test_invalid_unicode_is_counted_and_replaced_or_skipped(tmp_path, on_invalid):
    _write(tmp_path / "deu_Latn.txt", b"good\nb\xffd\nend\xe2\x82\n")
    _write(tmp_path / "eng_Latn.jsonl", b'{"text": "a\\ud800b"}\n{"text": "ok"}\n')
    _write(tmp_path / "fra_Latn.jsonl", b'{"text": "a\xffb"}\n{"text": "ok"}\n')
    pq.write_table(pa.table({"text": _strings(b"a\xffb", None, b"ok")}), tmp_path / "hin_Deva.parquet")
    corpus = open_corpus(tmp_path, on_invalid=on_invalid)
    skips = on_invalid == "skip"
    assert _texts(corpus, "deu_Latn") == (["good"] if skips else ["good", "b\ufffdd", "end\ufffd"])
    assert _texts(corpus, "eng_Latn") == (["ok"] if skips else ["a\ufffdb", "ok"])
    assert _texts(corpus, "fra_Latn") == _texts(corpus, "hin_Deva") == (["ok"] if skips else ["a\ufffdb", "ok"])
    assert corpus.report.invalid == {"deu_Latn": 2, "eng_Latn": 1, "fra_Latn": 1, "hin_Deva": 1}


def _strings(*values):
    """An Arrow column that claims to be text, whatever the bytes."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path):
    path = tmp_path / "deu_Latn.parquet"
    pq.write_table(pa.table({"text": [f"line {i}" for i in range(50_000)]}), path)
    data = bytearray(path.read_bytes())
    data[3000:6000] = b"\xff" * 3000
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"deu_Latn.parquet is damaged"):
        _texts(open_corpus(tmp_path), "deu_Latn")


def test_a_zst_file_of_several_frames_is_read_to_its_end(tmp_path):
    _write(tmp_path / "deu_Latn.txt.zst", _zstd(b"one\n") + _zstd(b"two\n"))
    assert _texts(open_corpus(tmp_path), "deu_Latn") == ["one", "two"]


def test_lines_longer_than_a_read_and_many_reads(tmp_path):
    lines = ["x" * 3_000_000, "ä" * 700_001, *(f"line {i}" for i in range(200_000))]
    _write(tmp_path / "deu_Latn.txt", "\n".join(lines).encode())
    assert zlib.crc32(repr(_texts(open_corpus(tmp_path), "deu_Latn")).encode()) == zlib.crc32(repr(lines).encode())


def test_fingerprint_follows_content_not_time_or_place(tmp_path):
    for folder, text in (("a", b"one\n"), ("b", b"one\n"), ("c", b"two\n")):
        _write(tmp_path / folder / "deu_Latn.txt", text)
    a, b, c = (open_corpus(tmp_path / folder) for folder in "abc")
    prints = [corpus.fingerprint(corpus.parts["deu_Latn"][0]) for corpus in (a, b, c)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("deu_Latn.txt.gz", gzip.compress(b"hello\n" * 1000, mtime=0)[:-20], "damaged or truncated"),
        ("deu_Latn.txt.gz", b"not gzip", "damaged or truncated"),
        ("deu_Latn.txt.gz", gzip.compress(b"hello", mtime=0)[:10] + b"\xff" * 40, "damaged or truncated"),
        ("deu_Latn.txt.zst", b"not zstd at all", "damaged or truncated"),
        ("deu_Latn.txt.zst", _zstd(b"hello\n" * 1000)[:-3], "damaged or truncated"),
        ("deu_Latn.txt.zst", _zstd(b"hello\n") + _zstd(b"hello\n")[:-3], "damaged or truncated"),
        ("deu_Latn.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("deu_Latn.jsonl", b'{"text": "a", "n": ' + b"1" * 5000 + b"}\n", "line 1 is not JSON"),
        ("deu_Latn.jsonl", b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        ("deu_Latn.jsonl", b'{"body": "a"}\n', "no field 'text'; it has body"),
        ("deu_Latn.jsonl", b'{"text": 3}\n', "is a int, not a string"),
        ("deu_Latn.parquet", b"PAR1 nonsense", "not a Parquet file"),
    ],
    ids=[
        "cut gz",
        "no gz",
        "bad gz",
        "no zst",
        "cut zst",
        "cut frame",
        "bad json",
        "big number",
        "deep json",
        "no field",
        "no string",
        "no parquet",
    ],
)
def test_damaged_files_are_named(tmp_path, name, data, message):
    _write(tmp_path / name, data)
    corpus = open_corpus(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        _texts(corpus, "deu_Latn")
    assert name in str(caught.value)


def test_parquet_without_the_column_and_packed_parquet(tmp_path):
    pq.write_table(pa.table({"body": LINES}), tmp_path / "deu_Latn.parquet")
    with pytest.raises(ValueError, match="no column 'text'; it has body"):
        _texts(open_corpus(tmp_path), "deu_Latn")
    assert _texts(open_corpus(tmp_path, column="body"), "deu_Latn") == LINES
    (tmp_path / "eng_Latn.parquet.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="compressed inside"):
        open_corpus(tmp_path).languages  # noqa: B018


def test_what_is_no_corpus_is_refused(tmp_path):
    _write(tmp_path / "file.txt", b"x")
    with pytest.raises(FileNotFoundError, match="is a file"):
        open_corpus(tmp_path / "file.txt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_corpus(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(ValueError, match="'ignore'"):
        open_corpus(tmp_path, on_invalid="ignore")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no text"):
        open_corpus(tmp_path / "empty").languages  # noqa: B018


def test_hub_data_set_with_one_configuration_a_language(tmp_path, monkeypatch):
    """The Hub's answers are played by a local data set with the same layout (configurations in the README)."""
    for tag, lines in (("deu_Latn", LINES), ("uzb_Cyrl", ["бир", "икки"])):
        (tmp_path / tag / "train").mkdir(parents=True)
        pq.write_table(pa.table({"text": lines}), tmp_path / tag / "train" / "0000.parquet")
    entries = "".join(f"- config_name: {t}\n  data_files: {t}/train/*.parquet\n" for t in ("deu_Latn", "uzb_Cyrl"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    monkeypatch.setattr(corpus_hub.HubCorpus, "commit", "0" * 40)
    monkeypatch.setattr(corpus_hub.HubCorpus, "_sizes", lambda self, configs: dict.fromkeys(configs, 7))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    corpus = open_corpus("some/data-set")
    assert isinstance(corpus, corpus_hub.HubCorpus)
    corpus._repo = str(tmp_path)
    assert corpus.languages == ["deu_Latn", "uzb_Cyrl"]
    assert corpus.sizes == {"deu_Latn": 7, "uzb_Cyrl": 7}
    assert _texts(corpus, "deu_Latn") == LINES
    prints = {corpus.fingerprint(part) for parts in corpus.parts.values() for part in parts}
    assert len(prints) == 2
    other = open_corpus("some/data-set", split="test")
    other._repo = str(tmp_path)
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        _texts(other, "deu_Latn")
    corpus._column = "content"
    with pytest.raises(ValueError, match="no column 'content'; it has text"):
        _texts(corpus, "deu_Latn")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    from huggingface_hub import HfApi

    def refuse(*args, **kwargs):
        raise OSError("connection refused\nmore")

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    with pytest.raises(FileNotFoundError, match=r"no folder 'some/data-set' here, and .*connection refused"):
        open_corpus("some/data-set").languages  # noqa: B018
