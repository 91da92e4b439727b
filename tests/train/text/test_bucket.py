"""Corpora in object stores: read as the same files in a folder are, without fetching what is in already."""

from __future__ import annotations

import bz2
import gzip
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.cli import main
from langsamp.train.blocks.prepare import prepare
from langsamp.train.text.bucket import BucketCorpus
from langsamp.train.text.open import open_corpus

URL = "memory://bucket/text"


@pytest.fixture
def folder(tmp_path, texts):
    """Every way of reading: lines, packed, in archives, tables, Parquet, Arrow; a hidden file, one that is no text."""
    made = tmp_path / "text"
    (made / "swh_Latn").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / ".git" / "config.txt").write_text("x")
    (made / "README.md").write_text("x")
    german, english, greek, hindi = (texts[tag] * 20 for tag in ("deu_Latn", "eng_Latn", "ell_Grek", "hin_Deva"))
    (made / "deu_Latn.txt.gz").write_bytes(gzip.compress("\n".join(german).encode()))
    (made / "de.csv.bz2").write_bytes(bz2.compress("\n".join(["text", *german[:5]]).encode()))
    pq.write_table(pa.table({"text": english}), made / "eng_Latn.parquet")
    with pa.OSFile(str(made / "ell_Grek.arrow"), "wb") as sink:
        table = pa.table({"text": greek})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    with zipfile.ZipFile(made / "swh_Latn" / "all.zip", "w") as archive:
        archive.writestr("a.txt", "Nyumba ni kubwa.\n" * 9)
        archive.writestr("b.jsonl", '{"text": "Mto ni mrefu."}\n' * 9)
    (made / "hin_Deva.txt").write_text("\n".join(hindi), encoding="utf-8")
    return made


@pytest.fixture
def bucket(folder):
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/text", recursive=True)
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_bucket_gives_the_store_of_a_folder(tmp_path, folder, bucket, tiny_tokenizer_dir, num_proc):
    here = prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "here", 32, 1, heldout=1, progress=False)
    corpus = open_corpus(URL + "/")
    there = prepare(corpus, tiny_tokenizer_dir, tmp_path / "there", 32, num_proc, heldout=1, progress=False)
    assert there.fingerprint == here.fingerprint
    assert there.languages == ["deu_Latn", "ell_Grek", "eng_Latn", "hin_Deva", "swh_Latn"]
    assert there.index.source == [URL]
    assert corpus.report.left_out == {"README.md": "comes with the data, no text"}


def test_a_store_with_connections_is_read_by_many_processes(tmp_path, folder, tiny_tokenizer_dir):
    """As s3:// is: the process that listed the files has a thread for its connections, which survives no fork."""
    for name in ("swh_Latn/all.zip", "eng_Latn.parquet", "ell_Grek.arrow"):
        (folder / name).unlink()  # this server has no ranges, so there is no jumping about
    serve = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        corpus = open_corpus(f"http://127.0.0.1:{server.server_port}")
        there = prepare(corpus, tiny_tokenizer_dir, tmp_path / "there", 32, 2, progress=False)
        server.shutdown()
    here = prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "here", 32, 1, progress=False)
    assert there.fingerprint == here.fingerprint


def test_what_is_in_is_not_fetched_again_and_what_changed_is_told(tmp_path, bucket, tiny_tokenizer_dir, monkeypatch):
    prepare(open_corpus(URL), tiny_tokenizer_dir, tmp_path / "s", 32, 1, progress=False)
    bucket.pipe("/bucket/text/rus_Cyrl.txt", "Дом стоит у реки.\n".encode() * 9)
    corpus, read = open_corpus(URL), []
    documents = corpus.documents
    monkeypatch.setattr(corpus, "documents", lambda part: read.append(part.name) or documents(part))
    prepare(corpus, tiny_tokenizer_dir, tmp_path / "s", 32, 1, progress=False)
    assert read == ["rus_Cyrl.txt"]
    bucket.pipe("/bucket/text/rus_Cyrl.txt", "Другое.\n".encode())
    with pytest.raises(ValueError, match=r"rus_Cyrl.txt changed since it went into"):
        prepare(open_corpus(URL), tiny_tokenizer_dir, tmp_path / "s", 32, 1, progress=False)


def test_troubles_are_named(bucket, monkeypatch):
    with pytest.raises(ValueError, match=r"memory://bucket/nothing has no text"):
        open_corpus("memory://bucket/nothing").languages  # noqa: B018
    with pytest.raises(OSError, match="nosuch://bucket cannot be listed: Protocol not known: nosuch"):
        open_corpus("nosuch://bucket").languages  # noqa: B018
    corpus = open_corpus(URL, only=["hin_Deva"])
    [part] = corpus.parts["hin_Deva"]

    def deny(*args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(bucket), "_open", deny)
    with pytest.raises(PermissionError, match=r"memory://.*/bucket/text/hin_Deva.txt: Access Denied"):
        list(corpus.documents(part))
    monkeypatch.setattr(type(bucket), "find", deny)
    with pytest.raises(OSError, match=r"memory://bucket/text cannot be listed: Access Denied"):
        open_corpus(URL).languages  # noqa: B018
    assert isinstance(open_corpus(URL), BucketCorpus)


def test_errors_that_a_store_calls_its_own_are_told_wherever_they_come(bucket, monkeypatch):
    class NoCredentialsError(Exception):
        pass

    def deny(*args, **kwargs):
        raise NoCredentialsError("Unable to locate credentials")

    corpus = open_corpus(URL, only=["hin_Deva"])
    [part] = corpus.parts["hin_Deva"]
    monkeypatch.setattr(type(bucket), "_open", deny)
    with pytest.raises(OSError, match=r"^memory://.*/hin_Deva.txt: cannot be read \(Unable to locate credentials\)$"):
        list(corpus.documents(part))
    monkeypatch.setattr(type(bucket), "info", deny)
    with pytest.raises(OSError, match=r"hin_Deva.txt cannot be read: Unable to locate credentials; look whether it is"):
        corpus.fingerprint(part)


def test_a_missing_package_is_named_with_the_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ImportError, match=r"^s3://bucket/text cannot be listed: pip install s3fs$"):
        open_corpus("s3://bucket/text").languages  # noqa: B018


@pytest.mark.parametrize(
    "line",
    [
        "prepare --corpus cldr --tokenizer x --output s3://bucket/store",
        "train --base x --store gs://bucket/store --output y",
        "eval --model x --tasks lm --data s3://bucket/data --output y",
    ],
)
def test_a_folder_in_a_store_is_refused_where_one_is_meant_on_a_disk(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 1
    assert "://bucket" in (told := capsys.readouterr().err)
    assert "is in an object store, where only a corpus is read; give a folder, and copy it" in told
    assert list(tmp_path.iterdir()) == []
