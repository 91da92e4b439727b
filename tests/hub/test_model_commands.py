"""The commands convert, export and add-language as they are typed."""

from __future__ import annotations

import pytest

from langsamp.cli import main


def test_convert_then_add_a_language_then_export(tiny_model_dir, tiny_xlmr_dir, tmp_path, capsys):
    assert main(["convert", str(tiny_xlmr_dir), str(tmp_path / "stock")]) == 0
    assert "masked-lm, 0 language rows, 0 script rows, all tensors in place" in capsys.readouterr().out
    more = str(tmp_path / "more")
    assert main(["add-language", str(tiny_model_dir), more, "--language", "nl", "--like", "de"]) == 0
    assert "nld_Latn is row 7, started like de" in capsys.readouterr().out
    assert main(["export", more, str(tmp_path / "encoder"), "--to", "encoder", "--layer", "2"]) == 0
    assert "parameters" in capsys.readouterr().out
    (tmp_path / "nld_Latn.txt").write_text("Het huis.\nDe rivier.\n")
    given = ["--to", "monolingual", "--language", "nl", "--trim-vocab", str(tmp_path)]
    assert main(["export", more, str(tmp_path / "dutch"), *given]) == 0
    printed = capsys.readouterr().out
    small, large = (
        int(word.replace(",", "")) for word in printed.split("parameters, ")[1].split(" pieces")[0].split(" of ")
    )
    assert small < large


def test_add_language_from_a_store_and_from_the_script(tiny_model_dir, texts, tmp_path, capsys):
    corpus, store = tmp_path / "corpus", tmp_path / "store"
    corpus.mkdir()
    lines = [text for text in texts["hin_Deva"] for _ in range(12)]
    (corpus / "mar_Deva.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare = ["prepare", "--corpus", str(corpus), "--tokenizer", str(tiny_model_dir), "--output", str(store)]
    assert main([*prepare, "--block-size", "12", "--num-proc", "1"]) == 0
    given = ["--language", "mr", "--store", str(store), "--steps", "2"]
    assert main(["add-language", str(tiny_model_dir), str(tmp_path / "out"), *given]) == 0
    printed = capsys.readouterr().out
    assert "started mean of 1 languages" in printed
    assert "loss on held-out blocks" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "MODEL", "OUT", "--to", "monolingual"], "needs --language"),
        (
            ["export", "MODEL", "OUT", "--to", "encoder", "--language", "de"],
            "--language has no meaning with --to encoder",
        ),
        (["export", "MODEL", "OUT", "--to", "onnx", "--layer", "2"], "--layer has no meaning with --to onnx"),
        (["export", "MODEL", "OUT", "--to", "encoder", "--layer", "9"], "blocks 1 to 3"),
        (["export", "MODEL", "MODEL", "--to", "encoder"], "exists already"),
        (["export", "/nowhere", "OUT", "--to", "encoder"], "no folder '/nowhere'"),
        (["convert", "/nowhere", "OUT"], "no folder '/nowhere'"),
        (["add-language", "MODEL", "OUT", "--language", "deu"], "has row 1 already"),
        (["add-language", "MODEL", "OUT", "--language", "xyz", "--like", "deu"], "xyz"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_1(tiny_model_dir, tmp_path, capsys, arguments, message):
    places = {"MODEL": str(tiny_model_dir), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in arguments]) == 1
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith("langsamp: error: ")
    assert message in printed
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", "a", "b", "--to", "pdf"])
    assert stopped.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
