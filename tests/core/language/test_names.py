"""Names of files and folders as data sets are handed out."""

import pytest

from langsamp.core.language.names import Told, find_language, language_in, marks, pair_side


@pytest.mark.parametrize(
    ("piece", "language", "script"),
    [
        ("deu_Latn", "deu", "Latn"),
        ("swh-Latn", "swh", "Latn"),
        ("ENG_latn", "eng", "Latn"),
        ("de", "deu", None),
        ("ger", "deu", None),
        ("pt_BR", "por", None),
        ("pt-br", "por", None),
        ("en_in", "eng", None),
        ("de-CH", "deu", None),
        ("fr-FR", "fra", None),
        ("fr-fr", "fra", None),
        ("zh-Hans", "zho", "Hans"),
        ("zh-min-nan", "nan", "Latn"),
        ("zho_simpl", "zho", "Hans"),
        ("bn_rom", "ben", "Latn"),
        ("sr@latin", "srp", "Latn"),
        ("ns", "nso", "Latn"),
        ("ber", "ber", None),
        ("swh_Latn_removed", "swh", "Latn"),
        ("sw_part_00000", "swa", None),
        ("sw_clean_0000", "swa", None),
        ("swh-Latn_0", "swh", "Latn"),
        ("c4-sw.tfrecord-00000-of-00064", "swa", None),
        ("c4-bg-Latn.tfrecord-00000-of-00001", "bul", "Latn"),
        ("c4-sw-validation.tfrecord-00000-of-00001", "swa", None),
        ("20231101.sw", "swa", None),
        ("swh_wikipedia_2021_100K-sentences", "swh", None),
        ("deu-at_web_2021_1M-sentences", "deu", None),
        ("deu-deu1912", "deu", None),
        ("arb-arb-vd", "arb", None),
        ("wiki.deu_Latn.2020", "deu", "Latn"),
        ("newstest2019-ref.fra-CA", "fra", None),
        ("newstest2019-ref.cat", "cat", None),
        ("test-deu_Latn", "deu", "Latn"),
        ("sw_meta", "swa", None),
    ],
)
def test_a_language_is_found(piece, language, script):
    told = language_in(piece)
    assert (told.language, told.script) == (language, script)


@pytest.mark.parametrize(
    "piece",
    ["notes", "my_notes", "README", "data", "train", "000_00000", "train-00000-of-00001", "v1.0", "wiki_00", "my_zaw",
     "be-x-old", "simple", "dxu_Latn", "deu_Latx", "deu_news_2020_10K-words", "is-it-true", "c4-train.00000-of-01024"],
)  # fmt: skip
def test_a_name_without_a_language(piece):
    assert language_in(piece) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/swh_Latn/train/000_00000", Told("swh", "Latn")),
        ("two/cleaned/swh_Latn/1", Told("swh", "Latn")),
        ("raw/de", Told("deu")),
        ("new/new_part_00000", Told("new")),
        ("zh-TW/zh", Told("zho", None, "TW")),
        ("deu_Latn/eng_Latn", Told("deu", "Latn")),
        ("raw", None),
        ("mix-mixNT", Told("mix")),
        ("text/AA/wiki_00", None),
        ("yor_Latn/AB/wiki_00", Told("yor", "Latn")),
    ],
)
def test_a_path_tells_one_language(path, expected):
    assert find_language(path.split("/")) == expected


def test_names_that_disagree_are_refused_and_a_map_decides():
    with pytest.raises(ValueError, match=r"several languages \(lau, deu\)"):
        find_language(["lau", "de"])
    assert find_language(["lau", "de"], {"lau": "laj_Latn"}) == Told("laj", "Latn")
    assert find_language(["swahili", "train"], {"swahili": "swh"}) == Told("swh")
    assert find_language(["corpus.old"], {"old": "deu_Latf"}) == Told("deu", "Latf")


@pytest.mark.parametrize("name", ["en-sw", "de-fr", "sw_en", "bible.en-sw", "en-ja.clean"])
def test_two_languages_in_one_file_are_not_the_first(name):
    assert language_in(name) is None
    with pytest.raises(ValueError, match=r"tells two languages .* each a file of its own"):
        find_language(["corpus", name])
    assert find_language([name, "sw"]) == Told("swa")  # what lies in a folder of the two


def test_sides_of_parallel_corpora():
    assert pair_side("bible-uedin.en-sw.sw") == Told("swa")
    assert pair_side("Ubuntu.en-sr@latin.sr@latin") == Told("srp", "Latn")
    assert pair_side("tatoeba.ara_Arab-eng_Latn.eng_Latn") == Told("eng", "Latn")
    assert pair_side("GNOME.en-pt_BR.pt_BR") == Told("por", None, "BR")
    assert pair_side("bible-uedin.en-sw.xml") is None
    assert pair_side("deu-deu1912.txt") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deu_Latn/train-00000-of-00001", {"train"}),
        ("deu_Latn/validation-00000-of-00001", {"dev"}),
        ("swh_Latn.devtest", {"test"}),
        ("swh_Latn_removed/train/0", {"removed", "train"}),
        ("sw_noisy_0000", {"noisy"}),
        ("deu_Latn/contest", set()),
        ("en.noclean/c4-train.00000", {"noclean", "train"}),
    ],
)
def test_marks(path, expected):
    assert marks(path.split("/")) == expected
