"""Stores made by many: bit for bit the store of one process, whoever dies on the way."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from functools import partial

import pytest

from langsamp.core.compute.crew import Machine
from langsamp.train.blocks import pipeline
from langsamp.train.blocks import prepare as command
from langsamp.train.blocks.cluster import CrewTeam, NodeEncoder
from langsamp.train.blocks.ledger import LanguageWriter
from langsamp.train.blocks.prepare import prepare
from langsamp.train.blocks.store import BlockStore
from langsamp.train.text.open import open_corpus


def write_corpus(folder, texts, lines=400):
    """Some languages in several parts, one of them so large that it is read by the driver, and text met with a word."""
    folder.mkdir()
    for number, (language, sentences) in enumerate(sorted(texts.items())):
        rng, words = random.Random(language), " ".join(sentences).split()
        for part in range(1 + number % 3):
            text = "\n".join(" ".join(rng.choices(words, k=12)) for _ in range(lines * (9 if number == 1 else 1)))
            (folder / f"{language}.{part}.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "eng_Latn.txt").write_bytes(b"The house\xff\n" * 3 + b"The river\n" * 50)
    return folder


@contextmanager
def processes(corpus, worker, address):
    """What `ray_team` does, with processes of this machine for nodes."""
    make = partial(NodeEncoder, corpus, *worker)
    with closing(CrewTeam(Machine(2), make, 2, sum(corpus.sizes.values()) // int(address))) as team:
        yield team


def same(store, other):
    assert store.index.languages == other.index.languages
    assert store.fingerprint == other.fingerprint
    store.verify()
    left = [path.name for path in store.path.iterdir() if path.name.startswith(".")]
    assert left == [path.name for path in other.path.iterdir() if path.name.startswith(".")]  # nothing is left behind


@pytest.fixture
def folder(tmp_path, texts):
    return write_corpus(tmp_path / "corpus", texts)


@pytest.fixture
def one(tmp_path, folder, tiny_tokenizer_dir):
    return prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "one", 32, 1, heldout=2, progress=False)


@pytest.fixture
def many(tmp_path, folder, tiny_tokenizer_dir, monkeypatch):
    """Prepare by processes. Address 1: a part of half of the text is read by the driver, address 9: a twentieth."""
    monkeypatch.setattr(command, "ray_team", processes)
    monkeypatch.setattr(pipeline, "SMALL", 30_000)  # between the sizes of parts: some are sent, some are parked

    def run(address="9", corpus=None):
        corpus = corpus or open_corpus(folder)
        return prepare(corpus, tiny_tokenizer_dir, tmp_path / "many", 32, heldout=2, ray=address, progress=False)

    return run


@pytest.mark.parametrize("address", ["1", "9"], ids=["parked", "read by the driver"])
def test_processes_that_read_make_the_store_of_one(one, many, monkeypatch, address):
    """Large parts pass through files, the largest are read by the driver; a worker is killed while it works."""
    append, submit = LanguageWriter.append, CrewTeam.submit
    teams, methods, kinds, killed = set(), set(), set(), []

    def remember(self, part, method, *arguments):
        teams.add(self)
        methods.add(method)
        return submit(self, part, method, *arguments)

    def kill_one(self, tokens, *rest):
        kinds.add(isinstance(tokens, bytes))
        append(self, tokens, *rest)
        if not killed:
            member = next(iter(next(iter(teams))._members.values()))
            killed.append(os.kill(member._pid.result(), signal.SIGKILL))

    monkeypatch.setattr(CrewTeam, "submit", remember)
    monkeypatch.setattr(LanguageWriter, "append", kill_one)
    corpus = open_corpus(one.path.parent / "corpus")
    same(many(address, corpus), one)
    assert methods == {"fingerprint", "part"} | ({"chunk"} if address == "9" else set())
    assert kinds == {True, False}
    assert corpus.report.lines() == ["3 texts were not valid Unicode: eng_Latn 3"]


def test_an_interrupted_run_goes_on_whoever_worked_before(one, many, tmp_path, folder, tiny_tokenizer_dir, monkeypatch):
    append, calls = LanguageWriter.append, iter(range(10**6))

    def stop(self, *arguments):
        append(self, *arguments)
        if next(calls) in (1, 5):
            raise KeyboardInterrupt

    monkeypatch.setattr(LanguageWriter, "append", stop)
    monkeypatch.setattr(pipeline, "_COMMIT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        many()
    with pytest.raises(KeyboardInterrupt):
        prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "many", 32, 1, heldout=2, progress=False)
    same(many(), one)


def test_errors_name_the_worker_and_the_file(many, folder):
    (folder / "fra_Latn.txt").write_bytes("La maison\n".encode("utf-16") * 50)
    with pytest.raises(ValueError, match=r"fra_Latn.txt \(fra_Latn\), on process \d: .*fra_Latn.txt is UTF-16"):
        many()


def test_a_node_that_sees_something_else_says_so(folder, tiny_tokenizer_dir, tmp_path):
    corpus = open_corpus(folder)
    tokenizer = command.open_tokenizer(tiny_tokenizer_dir)
    [part, *_] = corpus.parts["deu_Latn"]
    encoder = NodeEncoder(corpus, tokenizer.backend, True, None)
    with pytest.raises(
        FileNotFoundError, match=r"does not see .*gone, where the tokens .* choose an --output that all"
    ):
        encoder.part(part, 0, 0.0, (tmp_path / "gone" / ".parked", "x"))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"does not see the corpus .*corpus; put it where all nodes see it"):
        NodeEncoder(corpus, tokenizer.backend, True, None)


def test_without_ray_it_says_what_to_install(folder, tiny_tokenizer_dir, tmp_path, monkeypatch, capsys):
    from langsamp.cli import main

    monkeypatch.setitem(sys.modules, "ray", None)
    options = ["--corpus", str(folder), "--tokenizer", str(tiny_tokenizer_dir), "--output", str(tmp_path / "s")]
    assert main(["prepare", *options, "--ray"]) == 1
    assert "pip install 'langsamp[ray]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_ray_cluster_makes_the_store_of_one_machine(
    one, folder, tiny_tokenizer_dir, tmp_path, ray_cluster, monkeypatch
):
    """Three nodes; one leaves and one joins on the way."""
    nodes = [ray_cluster.add_node(num_cpus=1) for _ in range(3)]
    append, changed = LanguageWriter.append, []

    def change_nodes(self, *arguments):
        append(self, *arguments)
        if not changed:
            changed.append(ray_cluster.add_node(num_cpus=1))
            ray_cluster.remove_node(nodes[0], allow_graceful=False)

    monkeypatch.setattr(LanguageWriter, "append", change_nodes)
    monkeypatch.setattr(pipeline, "SMALL", 30_000)
    address = ray_cluster.address
    same(
        prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "many", 32, heldout=2, ray=address, progress=False),
        one,
    )
    (folder / "fra_Latn.txt").write_bytes("La maison\n".encode("utf-16") * 50)
    with pytest.raises(
        ValueError, match=r"^fra_Latn.txt \(fra_Latn\), on node [\d.]+ \(\w+\), core 0: .* is UTF-16[^\n]*$"
    ):
        prepare(open_corpus(folder), tiny_tokenizer_dir, tmp_path / "many", 32, heldout=2, ray=address, progress=False)


_DRIVER = """
import sys
from langsamp.train.blocks import pipeline
from langsamp.train.blocks.prepare import prepare
from langsamp.train.text.open import open_corpus
pipeline._COMMIT_SECONDS, pipeline.SMALL, pipeline._WINDOW = 0.0, 30_000, 2
folder, tokenizer, output, address = sys.argv[1:]
prepare(open_corpus(folder), tokenizer, output, 32, heldout=2, ray=address)
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_twice_goes_on(one, folder, tiny_tokenizer_dir, tmp_path, ray_cluster):
    for _ in range(2):
        ray_cluster.add_node(num_cpus=1)
    output = tmp_path / "many"
    run = [sys.executable, "-c", _DRIVER, folder, tiny_tokenizer_dir, output, ray_cluster.address]
    for _ in range(2):
        driver = subprocess.Popen(run, stderr=subprocess.PIPE)
        before = written(output)
        while driver.poll() is None and written(output) == before:
            time.sleep(0.001)
        assert driver.poll() is None, driver.stderr.read()
        driver.kill()
        driver.wait()
        with pytest.raises(FileNotFoundError, match="unfinished"):
            BlockStore(output)
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"B/s, rus_Cyrl, 6 of 6, (1 worker|2 workers on 2 nodes)\]", done.stderr), done.stderr
    same(BlockStore(output), one)


def written(folder):
    return sum(path.stat().st_size for path in folder.glob("*.u32")) if folder.exists() else 0
