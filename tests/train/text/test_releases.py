"""Corpora as they are downloaded: miniatures with the file names and columns of the releases."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.train.blocks.prepare import prepare
from langsamp.train.text.open import open_corpus, read_names

SWAHILI = ["Leo mvua inanyesha.", "Watoto wanacheza nje."]


def texts(corpus):
    return {
        language: [text for part in parts for text in corpus.documents(part)]
        for language, parts in corpus.parts.items()
    }


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_fineweb2(tmp_path):
    for name, lines in (
        ("swh_Latn/train", SWAHILI),
        ("swh_Latn/test", ["jaribio"]),
        ("swh_Latn_removed/train", ["taka"]),
    ):
        n = len(lines)
        parquet(
            tmp_path / f"data/{name}/000_00000.parquet",
            text=lines, id=["<urn:uuid:1>"] * n, dump=["CC-MAIN-2024-10"] * n, url=["https://x"] * n,
            file_path=["s3://x"] * n, language=["swh"] * n, language_score=[0.99] * n, language_script=["Latn"] * n,
            minhash_cluster_size=[1] * n, top_langs=["{}"] * n,
        )  # fmt: skip
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"swh_Latn": SWAHILI}
    assert corpus.report.left_out == {
        "data/swh_Latn/test/000_00000.parquet": "split test",
        "data/swh_Latn_removed/train/000_00000.parquet": "marked removed",
    }
    assert texts(open_corpus(tmp_path, split="test")) == {"swh_Latn": ["jaribio"]}
    assert texts(open_corpus(tmp_path, split="removed")) == {"swh_Latn": ["taka"]}
    assert texts(open_corpus(tmp_path, split="train+removed")) == {"swh_Latn": [*SWAHILI, "taka"]}
    assert texts(open_corpus(tmp_path, split="train+validation+test")) == {"swh_Latn": ["jaribio", *SWAHILI]}


def test_hplt(tmp_path):
    rows = [{"f": "x.warc.gz", "u": "https://x", "lang": ["swh_Latn"], "prob": [1.0], "text": text} for text in SWAHILI]
    write(tmp_path / "two/cleaned/swh_Latn/1.jsonl.zst", pa.compress(jsonl(rows), codec="zstd", asbytes=True))
    write(
        tmp_path / "one/deduplicated/is/is_1.jsonl.zst", pa.compress(b'{"text": "hei"}\n', codec="zstd", asbytes=True)
    )
    assert texts(open_corpus(tmp_path)) == {"isl_Latn": ["hei"], "swh_Latn": SWAHILI}


def test_culturax(tmp_path):
    parquet(
        tmp_path / "sw/sw_part_00000.parquet", text=SWAHILI, timestamp=["2020"] * 2, url=["x"] * 2, source=["mC4"] * 2
    )
    parquet(tmp_path / "new/new_part_00000.parquet", text=["नेपाल भाषा"], source=["OSCAR-2301"])
    assert texts(open_corpus(tmp_path)) == {"new_Deva": ["नेपाल भाषा"], "swa_Latn": SWAHILI}


def test_madlad_400(tmp_path):
    for code, kind, line in (("sw", "clean", SWAHILI[0]), ("sw", "noisy", "taka"), ("sr", "clean", "Danas pada kiša")):
        write(tmp_path / f"data/{code}/{code}_{kind}_0000.jsonl.gz", gzip.compress(jsonl([{"text": line}])))
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"srp_Latn": ["Danas pada kiša"], "swa_Latn": SWAHILI[:1]}
    assert corpus.report.left_out == {"data/sw/sw_noisy_0000.jsonl.gz": "marked noisy"}
    assert texts(open_corpus(tmp_path, split="noisy")) == {"swa_Latn": ["taka"]}


def test_cc_100(tmp_path):
    for code, text in (
        ("sw", "Leo\nmvua\n\n"),
        ("zh-Hans", "今天下雨\n"),
        ("bn_rom", "ami bhalo\n"),
        ("ns", "Dumela\n"),
    ):
        write(tmp_path / f"{code}.txt.xz", lzma.compress(text.encode()))
    expected = {
        "ben_Latn": ["ami bhalo"],
        "nso_Latn": ["Dumela"],
        "swa_Latn": ["Leo", "mvua"],
        "zho_Hans": ["今天下雨"],
    }
    assert texts(open_corpus(tmp_path)) == expected
    write(tmp_path / "my_zaw.txt.xz", lzma.compress(b"x\n"))  # Burmese in an encoding of its own
    with pytest.raises(ValueError, match=r"my_zaw\.txt\.xz .*--names"):
        open_corpus(tmp_path).languages  # noqa: B018


def test_c4(tmp_path):
    row = {"text": SWAHILI[0], "timestamp": "2019-04-25T12:57:54Z", "url": "https://x"}
    for name in ("c4-sw.tfrecord-00000-of-00064", "c4-sw-validation.tfrecord-00000-of-00001"):
        write(tmp_path / f"multilingual/{name}.json.gz", gzip.compress(jsonl([row])))
    write(
        tmp_path / "multilingual/c4-bg-Latn.tfrecord-00000-of-00001.json.gz", gzip.compress(jsonl([{"text": "dobre"}]))
    )
    for name in ("c4-train.00000-of-01024", "c4-validation.00000-of-00008"):
        write(tmp_path / f"en/{name}.json.gz", gzip.compress(jsonl([{"text": name}])))
    write(tmp_path / "en.noclean/c4-train.00000-of-07168.json.gz", gzip.compress(jsonl([{"text": "dirt"}])))
    corpus = open_corpus(tmp_path)
    expected = {"bul_Latn": ["dobre"], "eng_Latn": ["c4-train.00000-of-01024"], "swa_Latn": SWAHILI[:1]}
    assert texts(corpus) == expected
    assert sorted(corpus.report.left_out.values()) == ["marked noclean", "split dev", "split dev"]


def test_glotcc(tmp_path):
    parquet(tmp_path / "v1.0/swh-Latn/swh-Latn_0.parquet", content=SWAHILI, warc_date=["2023"] * 2, lid_prob=[1.0] * 2)
    assert texts(open_corpus(tmp_path)) == {"swh_Latn": SWAHILI}


@pytest.mark.parametrize("packed", [True, False])
def test_opus_moses(tmp_path, packed):
    files = {
        "README": "about", "LICENSE": "CC", "bible-uedin.en-sw.en": "In the beginning\n",
        "bible-uedin.en-sw.sw": "Hapo mwanzo\n", "bible-uedin.en-sw.xml": "<x/>\n",
    }  # fmt: skip
    if packed:
        with zipfile.ZipFile(tmp_path / "en-sw.txt.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    else:
        for name, text in files.items():
            write(tmp_path / name, text)
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"eng_Latn": ["In the beginning"], "swa_Latn": ["Hapo mwanzo"]}
    assert len(corpus.report.left_out) == 3
    assert len({corpus.fingerprint(part) for parts in corpus.parts.values() for part in parts}) == 2


@pytest.mark.parametrize("packed", [True, False])
def test_leipzig(tmp_path, packed):
    name = "swh_wikipedia_2021_10K"
    files = {
        f"{name}/{name}-sentences.txt": "1\tLeo mvua inanyesha.\n2\tWatoto wanacheza nje.\n",
        f"{name}/{name}-words.txt": "1\tLeo\t7\n",
        f"{name}/{name}-sources.txt": "1\thttps://x\t2021\n",
        f"{name}/{name}-co_n.txt": "1\t2\t3\t4.5\n",
        f"{name}/{name}-import.sql": "x",
    }
    if packed:
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    else:
        for path, text in files.items():
            write(tmp_path / path, text)
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"swh_Latn": SWAHILI}
    assert len(corpus.report.left_out) == 4


def test_ebible(tmp_path):
    write(tmp_path / "corpus/swh-swhulb.txt", "Hapo mwanzo\n<range>\n\nMungu akasema\n")
    write(tmp_path / "corpus/arb-arb-vd.txt", "في البدء\n\n")
    write(tmp_path / "metadata/vref.txt", "GEN 1:1\n")
    assert texts(open_corpus(tmp_path)) == {"arb_Arab": ["في البدء"], "swh_Latn": ["Hapo mwanzo", "Mungu akasema"]}


def test_wikiextractor(tmp_path):
    write(
        tmp_path / "swh/AA/wiki_00", jsonl([{"id": "1", "url": "x", "title": "Leo", "text": SWAHILI[0]}, {"text": ""}])
    )
    page = '<doc id="1" url="https://x" title="Fluss">\nFluss\n\nDas Haus steht am Fluss.\n</doc>\n'
    write(tmp_path / "de/AA/wiki_00", page + page.replace("Fluss", "See"))
    write(tmp_path / "deu_Latn/AB/wiki_07.bz2", bz2.compress(b'{"text": "Im Januar"}\n'))
    assert texts(open_corpus(tmp_path)) == {
        "deu_Latn": [
            "Fluss\n\nDas Haus steht am Fluss.", "See\n\nDas Haus steht am See.", "Im Januar",
        ],
        "swh_Latn": SWAHILI[:1],
    }  # fmt: skip


def test_data_sets_of_the_hugging_face_hub_and_what_it_saves(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"text": SWAHILI, "id": [1, 2]})
    DatasetDict({"train": rows, "test": Dataset.from_dict({"text": ["jaribio"]})}).save_to_disk(tmp_path / "swh_Latn")
    parquet(tmp_path / "20231101.is/train-00000-of-00001.parquet", id=["1"], url=["x"], title=["y"], text=["Hei"])
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"isl_Latn": ["Hei"], "swh_Latn": SWAHILI}
    assert corpus.report.left_out["swh_Latn/test/data-00000-of-00001.arrow"] == "split test"


def test_names_that_are_no_codes(tmp_path):
    write(tmp_path / "swahili/train.txt", "Leo\n")
    write(tmp_path / "eval.yoruba", "abc\n")
    write(tmp_path / "part.yoruba", "def\n")
    with pytest.raises(ValueError, match=r"swahili/train.txt .*--names NAME=LANG"):
        open_corpus(tmp_path).languages  # noqa: B018
    (tmp_path / "map.tsv.dir").mkdir()
    table = tmp_path / "map.tsv.dir" / ".names"
    write(table, "\ufeffswahili\tswh\r\nyoruba=yor_Latn\r\n")  # as Windows saves it
    for given in (["swahili=swh", "yoruba=yor_Latn"], [str(table)]):
        assert texts(open_corpus(tmp_path, names=read_names(given))) == {"swh_Latn": ["Leo"], "yor_Latn": ["def"]}
    with pytest.raises(ValueError, match="write NAME=LANG"):
        read_names(["swahili"])
    with pytest.raises(ValueError, match="no ISO 639-3 code"):
        open_corpus(tmp_path, names={"swahili": "xxq"})
    (tmp_path / "lau").mkdir()
    write(tmp_path / "lau/de.txt", "x\n")
    with pytest.raises(ValueError, match=r"lau/de.txt \(its names tell several languages \(lau, deu\)\)"):
        open_corpus(tmp_path, names=read_names(["swahili=swh", "yoruba=yor"])).languages  # noqa: B018


def test_a_column_that_tells_the_split_is_heeded(tmp_path):
    parquet(tmp_path / "swh_Latn.parquet", text=["a", "b", "c", "d"], split=["train", "validation", "test", "strange"])
    write(tmp_path / "deu_Latn.jsonl", jsonl([{"text": "e", "split": "test"}, {"text": "f", "split": "train"}]))
    write(tmp_path / "fra_Latn.tsv", "split\ttext\ndev\tg\ntrain\th\n")
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"deu_Latn": ["f"], "fra_Latn": ["h"], "swh_Latn": ["a", "d"]}
    assert corpus.report.other_splits == {"swh_Latn": 2, "deu_Latn": 1, "fra_Latn": 1}
    assert any("4 rows of other splits were left out" in line for line in corpus.report.lines())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("swh_Latn.tsv", "id\ttext\r\n1\tLeo mvua inanyesha.\r\n2\tWatoto wanacheza nje.\r\n"),
        ("swh_Latn.csv", '\ufeffid,text\n1,"Leo mvua inanyesha."\n2,Watoto wanacheza nje.\n'),
        ("swh_Latn.json", json.dumps([{"text": text} for text in SWAHILI])),
        ("swh_Latn.json", json.dumps([{"text": text, "n": [1, {"a": 2}]} for text in SWAHILI], indent=2)),
        ("swh_Latn.json", "\n".join(json.dumps({"text": text}, indent=1) for text in SWAHILI)),
        ("swh_Latn.ndjson", jsonl([{"text": text} for text in SWAHILI]).decode()),
        ("swh_Latn.txt", "\n".join(SWAHILI)),
    ],
)
@pytest.mark.parametrize("pack", ["", "gz", "xz", "bz2", "zst", "lz4"])
def test_every_format_in_every_packing(tmp_path, name, data, pack):
    raw = data.encode()
    if pack:
        name = f"{name}.{pack}"
        codecs = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
        arrow = {"zst": "zstd", "lz4": "lz4"}
        raw = codecs[pack](raw) if pack in codecs else pa.compress(raw, codec=arrow[pack], asbytes=True)
        if pack == "lz4":  # Arrow's one-shot codec is the raw block; files hold frames
            sink = io.BytesIO()
            with pa.CompressedOutputStream(pa.PythonFile(sink, "w"), "lz4") as stream:
                stream.write(data.encode())
                stream.flush()
                stream.close()
                raw = sink.getvalue() if not sink.closed else raw
    write(tmp_path / name, raw)
    assert texts(open_corpus(tmp_path)) == {"swh_Latn": SWAHILI}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("swh_Latn.json", '[{"text": "a"}, {"text": ', "object 2 is not JSON"),
        ("swh_Latn.json", '[{"text": ' + "[" * 100_000, "object 1 is not JSON"),
        ("swh_Latn.json", '["a", "b"]', "object 1 is a str, not an object"),
        ("swh_Latn.json", '[{"text": "a"}, {"body": "b"}]', r"object 2 has no field 'text'; it has body"),
        ("swh_Latn.tsv", "1\tLeo\n2\tmvua\n", "has no column 'text'; it has 1, Leo"),
        ("swh_Latn.tsv", "id\ttext\n1\tLeo\tmvua\n", "row 2 has 3 cells, the header 2"),
        ("swh_Latn.csv", 'id,text\n1,"a\n', "is not CSV"),
        ("swh_Latn.arrow", "ARROW1 nonsense", "is not an Arrow file|damaged"),
        ("swh_Latn.txt.xz", "no xz", "damaged or truncated"),
        ("swh_Latn.txt.bz2", "no bz2", "damaged or truncated"),
        ("swh_Latn.txt.lz4", "no lz4", "damaged or truncated"),
    ],
)
def test_damaged_files_of_every_format_are_named(tmp_path, name, data, message):
    write(tmp_path / name, data)
    with pytest.raises(ValueError, match=message) as caught:
        texts(open_corpus(tmp_path))
    assert name in str(caught.value)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_files_that_were_cut_off_are_named(tmp_path, pack):
    suffix = "bz2" if pack is bz2.compress else "xz"
    write(tmp_path / f"swh_Latn.txt.{suffix}", pack(b"Leo mvua\n" * 10_000)[:-20])
    with pytest.raises(ValueError, match="damaged or truncated"):
        texts(open_corpus(tmp_path))


def test_damaged_and_locked_archives_are_named(tmp_path):
    write(tmp_path / "a/x.zip", b"PK nothing")
    write(tmp_path / "b/x.tar.gz", gzip.compress(b"no tar" * 200)[:-9])
    for folder in ("a", "b"):
        with pytest.raises(ValueError, match=r"x\.\S+ is damaged or truncated"):
            open_corpus(tmp_path / folder).languages  # noqa: B018
    with zipfile.ZipFile(tmp_path / "a/x.zip", "w") as archive:
        archive.writestr("../../swh_Latn.txt", "Leo\n")
        archive.writestr("__MACOSX/._swh_Latn.txt", "x")
    assert texts(open_corpus(tmp_path / "a")) == {"swh_Latn": ["Leo"]}  # read where it is, never written anywhere


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("line", ["Das Haus steht am Fluss", "Дом стоит у реки", "घर नदी के किनारे है"])
@pytest.mark.parametrize("name", ["deu_Latn.txt", "deu.jsonl", "deu_Latn.tsv", "deu_Latn/wiki_00"])
def test_utf_16_is_an_error_with_the_remedy(tmp_path, encoding, line, name):
    write(tmp_path / name, (f"{line}\n" * 50).encode(encoding))
    with pytest.raises(ValueError, match="is UTF-16 or UTF-32, not UTF-8; convert it: iconv") as caught:
        texts(open_corpus(tmp_path))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("windows-1251", "Дом стоит у реки"),
        ("latin-1", "Schöne Grüße"),
        ("gb18030", "今天下雨"),
        ("shift-jis", "家は川のそばに"),
    ],
)
@pytest.mark.parametrize("on_invalid", ["replace", "skip"])
def test_a_text_in_another_encoding_is_refused(tmp_path, encoding, line, on_invalid):
    write(tmp_path / "deu_Latn.txt", (f"{line}\n" * 40).encode(encoding))
    write(tmp_path / "deu_Latn.tsv", ("text\n" + f"{line}\n" * 40).encode(encoding))
    for part in open_corpus(tmp_path, on_invalid=on_invalid).parts["deu_Latn"]:
        with pytest.raises(ValueError, match=r"is not UTF-8: 4\d of the first 4\d lines .* iconv"):
            list(open_corpus(tmp_path, on_invalid=on_invalid).documents(part))


def test_scattered_bad_lines_do_not_stop_a_corpus(tmp_path):
    write(tmp_path / "deu_Latn.txt", b"gut\n" * 100 + b"b\xf6se\n" * 12 + b"gut\n" * 100)
    corpus = open_corpus(tmp_path)
    assert len(texts(corpus)["deu_Latn"]) == 212
    assert corpus.report.lines() == ["12 texts were not valid Unicode: deu_Latn 12"]


def test_the_text_tells_the_script_where_the_name_does_not(tmp_path):
    for name, line in (
        ("sr", "Danas u Beogradu"), ("grc", "ἐν ἀρχῇ ἦν"), ("ber", "azul fellawen"), ("zh", "今天下雨"),
        ("zh-TW", "今天下雨"), ("ja", "家は川の"), ("ko", "집은 강"), ("und", "abc"), ("tlh", "12 34"),
    ):  # fmt: skip
        write(tmp_path / f"{name}.txt", f"{line}\n" * 3)
    assert open_corpus(tmp_path).languages == sorted(
        ["srp_Latn", "grc_Grek", "ber_Latn", "zho_Hani", "zho_Hant", "jpn_Jpan", "kor_Hang", "und_Latn", "tlh_Zyyy"]
    )
    assert open_corpus(tmp_path, only=["sr", "zh_Hant"]).languages == ["srp_Latn", "zho_Hant"]
    with pytest.raises(ValueError, match=r"no text in srp_Cyrl; it has .*srp_Latn"):
        open_corpus(tmp_path, only=["sr_Cyrl"]).languages  # noqa: B018


def test_a_text_that_contradicts_its_tag_is_told(tmp_path):
    write(tmp_path / "deu_Cyrl.txt", "Das Haus steht am Fluss\n" * 5)
    write(tmp_path / "zho_Hans.txt", "今天下雨\n" * 5)
    write(tmp_path / "jpn_Jpan.txt", "今天\n" * 5)
    write(tmp_path / "fas_Aran.txt", "خانه\n" * 5)
    corpus = open_corpus(tmp_path)
    texts(corpus)
    assert corpus.report.notes == ["deu_Cyrl.txt: the text is in Latn, not in Cyrl; is the tag right?"]


def test_endless_lines_are_cut_in_text_and_refused_in_json(tmp_path, monkeypatch):
    from langsamp.train.text import corpus as base
    from langsamp.train.text import formats

    monkeypatch.setattr(base, "LONGEST", 1000)
    monkeypatch.setattr(formats, "CHUNK", 512)
    monkeypatch.setattr(formats, "_CUT", 4000)
    monkeypatch.setattr(formats, "_REFUSED", 8000)
    words = " ".join(f"wort{i}" for i in range(3000))
    write(tmp_path / "deu_Latn.txt", f"kurz\n{words}\n{'घ' * 5000}\nEnde\n")
    parquet(tmp_path / "fra_Latn.parquet", text=["x" * 2500, "court"])
    corpus = open_corpus(tmp_path)
    found = texts(corpus)
    german = found["deu_Latn"]
    assert (german[0], german[-1]) == ("kurz", "Ende")
    assert max(map(len, german)) <= 1000
    assert " ".join(text for text in german if "wort" in text).split() == words.split()
    assert "".join(text for text in german if "घ" in text) == "घ" * 5000, "never within a letter of three bytes"
    assert list(map(len, found["fra_Latn"])) == [1000, 1000, 500, 5]
    assert corpus.report.long["fra_Latn"] == 1
    write(tmp_path / "eng_Latn.jsonl", jsonl([{"text": "y" * 20_000}]))
    with pytest.raises(ValueError, match=r"eng_Latn.jsonl has a line of more than 8,000 bytes"):
        texts(open_corpus(tmp_path))


def test_folders_of_any_depth_and_links_in_circles(tmp_path):
    write(tmp_path / "a/b/c/swh_Latn/d/0001.txt", "Leo\n")
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/up").symlink_to(tmp_path.parent)
    write(tmp_path / ".store/0001.txt", "Mto\n")
    (tmp_path / "lin_Latn").symlink_to(tmp_path / ".store")
    (tmp_path / "kon_Latn").symlink_to(tmp_path / ".store")  # the same for another language
    (tmp_path / "deu_Latn").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / ".hidden/deu_Latn.txt", "x\n")
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"kon_Latn": ["Mto"], "lin_Latn": ["Mto"], "swh_Latn": ["Leo"]}
    assert corpus.report.left_out == {"deu_Latn": "a link that leads nowhere"}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """Its languages would be missing from the model, and nobody would know."""
    write(tmp_path / "a/swh_Latn.txt", "Leo\n")
    write(tmp_path / "b/deu_Latn.txt", "Haus\n")
    scandir = os.scandir

    def scan(place):
        if os.fspath(place).endswith("/b"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/b'"):
        open_corpus(tmp_path).languages  # noqa: B018


@pytest.mark.parametrize("name", ["deu_Latn.txt", "deu_Latn.txt.gz", "deu_Latn.parquet", "de.zip", "de.tar.xz"])
def test_what_a_clone_without_git_lfs_left_is_no_text(tmp_path, tiny_tokenizer_dir, name):
    write(tmp_path / "c" / name, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises(ValueError, match=re.escape(name) + r": it is a Git LFS pointer, which `git lfs pull`"):
        prepare(open_corpus(tmp_path / "c"), tiny_tokenizer_dir, tmp_path / "s", progress=False)


def test_a_file_and_the_same_packed_count_once(tmp_path):
    write(tmp_path / "deu_Latn.txt", "Haus\n")
    write(tmp_path / "deu_Latn.txt.gz", gzip.compress(b"Haus\n"))
    write(tmp_path / "deu_Latn.b.txt.gz", gzip.compress(b"Fluss\n"))
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == {"deu_Latn": ["Fluss", "Haus"]}
    assert corpus.report.left_out == {"deu_Latn.txt.gz": "deu_Latn.txt, packed"}


def test_names_in_archives_that_are_not_utf_8(tmp_path, tiny_tokenizer_dir):
    (tmp_path / "c").mkdir()
    with tarfile.open(tmp_path / "c" / "a.tar", "w", encoding="latin-1") as tar:
        entry = tarfile.TarInfo("donn\xe9es/deu_Latn.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"Haus\n"))
    store = prepare(open_corpus(tmp_path / "c"), tiny_tokenizer_dir, tmp_path / "s", progress=False)
    assert store.index.languages["deu_Latn"].documents == 1


def test_only_what_is_left_out_is_told_when_nothing_is_left(tmp_path):
    write(tmp_path / "deu_Latn/test.txt", "x\n")
    write(tmp_path / "notes.docx", "x\n")
    with pytest.raises(
        ValueError, match=r"has no text: .* Left out 2 files: deu_Latn/test.txt \(split test\), notes.docx"
    ):
        open_corpus(tmp_path).languages  # noqa: B018
