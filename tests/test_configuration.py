"""The tables of a configuration: row 0, what is refused, what survives saving."""

import json

import pytest
from transformers import XLMRobertaConfig

from langsamp import LangSAMPConfig
from langsamp.configuration_langsamp import AUTO_MAP


def test_row_zero_is_added_once_and_survives_saving(tmp_path):
    config = LangSAMPConfig(languages=["deu", "eng"], scripts=["Latn"])
    assert config.languages == ["und", "deu", "eng"]
    assert config.scripts == ["Zyyy", "Latn"]
    config.save_pretrained(tmp_path)
    again = LangSAMPConfig.from_pretrained(tmp_path)
    assert again.languages == config.languages
    assert again.scripts == config.scripts


def test_empty_lists_are_the_ablations():
    config = LangSAMPConfig(languages=[], scripts=["Latn"])
    assert config.languages == []
    assert LangSAMPConfig().languages == LangSAMPConfig().scripts == []
    assert LangSAMPConfig(languages=["und"]).languages == []


@pytest.mark.parametrize(
    ("languages", "scripts", "words"),
    [
        (["deu", "de", "ENG", "deu_Latn"], [], ["'de'", "'ENG'", "'deu_Latn'", "ISO 639-3"]),
        (["deu", "eng", "deu"], [], ["repeated", "'deu'"]),
        (["deu", "und"], [], ["repeated", "'und'"]),
        ([""], [], ["malformed", "''"]),
        ([3], [], ["malformed", "3"]),
        ([], ["latn", "Lat"], ["'latn'", "'Lat'", "ISO 15924"]),
        ("deu", [], ["list", "'deu'"]),
    ],
)
def test_bad_tables_name_every_offender(languages, scripts, words):
    with pytest.raises(ValueError, match="must") as caught:
        LangSAMPConfig(languages=languages, scripts=scripts)
    assert all(word in str(caught.value) for word in words)


def test_assignment_is_validated_too():
    config = LangSAMPConfig(languages=["deu"])
    config.languages = ["deu", "eng"]
    assert config.languages == ["und", "deu", "eng"]
    with pytest.raises(ValueError, match="malformed"):
        config.languages = ["german"]
    assert config.languages == ["und", "deu", "eng"]


def test_auto_map_is_complete_and_local_whatever_was_loaded(tmp_path):
    config = LangSAMPConfig(languages=["deu"], auto_map={"AutoModel": "someone/else--modeling_langsamp.LangSAMPModel"})
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == AUTO_MAP
    assert saved["model_type"] == "xlm-roberta"


def test_from_backbone_keeps_the_architecture_and_takes_given_values():
    stock = XLMRobertaConfig(hidden_size=48, num_attention_heads=4, vocab_size=77, layer_norm_eps=1e-5)
    config = LangSAMPConfig.from_backbone(stock, languages=["deu"], scripts=["Latn"], table_initializer_range=0.02)
    assert (config.hidden_size, config.vocab_size, config.layer_norm_eps) == (48, 77, 1e-5)
    assert config.table_initializer_range == 0.02
    assert config.languages == ["und", "deu"]


def test_a_tokenizer_of_other_tables_is_refused_by_the_first_row_that_differs(tiny_tokenizer, tiny_config):
    tiny_config.check_tokenizer(tiny_tokenizer)
    tiny_config.languages = ["deu", "ell", "eng", "hin", "rus", "jpn"]
    with pytest.raises(ValueError, match=r"row 5 is 'jpn' in the tokenizer and 'rus' in the model"):
        tiny_config.check_tokenizer(tiny_tokenizer)
    tiny_config.languages = ["deu", "ell"]
    with pytest.raises(ValueError, match=r"row 3 is 'eng' in the tokenizer and 'nothing' in the model"):
        tiny_config.check_tokenizer(tiny_tokenizer)
    tiny_config.languages = []
    tiny_config.check_tokenizer(tiny_tokenizer)  # no table: the ids are ignored
