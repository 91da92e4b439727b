"""A mean of checkpoints is what the formula says, whatever the order of their rows; nothing is written by halves."""

from __future__ import annotations

import pytest
import torch
from transformers import XLMRobertaForMaskedLM

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.checkpoints.add_language import add_language
from langsamp.checkpoints.average import average
from langsamp.checkpoints.export import export_encoder
from langsamp.cli import main
from langsamp.core.manifest import verify_manifest
from langsamp.core.model.vocabulary import carry_rows, trim


def load(folder) -> tuple[LangSAMPForMaskedLM, LangSAMPTokenizer]:
    return LangSAMPForMaskedLM.from_pretrained(folder).eval(), LangSAMPTokenizer.from_pretrained(folder)


@pytest.fixture
def other(tiny_model_dir, tmp_path):
    """Another model of the same shape and rows, with other numbers everywhere."""
    model, tokenizer = load(tiny_model_dir)
    torch.manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value))
    return _saved(model, tokenizer, tmp_path / "other")


def _saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("weights", [[], [1, 3]])
def test_every_number_is_the_weighted_mean(tiny_model_dir, other, tmp_path, weights):
    done = average([str(tiny_model_dir), str(other)], tmp_path / "out", weights)
    first, second = weights or (1, 1)
    assert done.shares == [first / (first + second), second / (first + second)]
    a, b, made = (load(folder)[0].state_dict() for folder in (tiny_model_dir, other, tmp_path / "out"))
    assert made.keys() == a.keys()
    for name, value in made.items():
        torch.testing.assert_close(value, (first * a[name] + second * b[name]) / (first + second), rtol=1e-6, atol=1e-7)
    assert verify_manifest(tmp_path / "out") == []


def test_rows_are_matched_by_name_and_those_of_one_model_are_its_own(tiny_model_dir, other, tmp_path):
    add_language(str(tiny_model_dir), tmp_path / "a", "nld_Latn", like="deu")
    model, tokenizer = load(other)
    order = [0, 5, 2, 6, 1]  # und, jpn, ell, rus, deu
    model.lang_embeddings.weight.data = model.lang_embeddings.weight.data[order]
    model.config.languages = tokenizer.languages = [model.config.languages[row] for row in order]
    _saved(model, tokenizer, tmp_path / "b")
    average([str(tmp_path / "b"), str(tmp_path / "a")], tmp_path / "out")
    made, cut = load(tmp_path / "out")
    assert made.config.languages == cut.languages == ["und", "jpn", "ell", "rus", "deu", "eng", "hin", "nld"]
    theirs, ours = model.lang_embeddings.weight, load(tmp_path / "a")[0].lang_embeddings.weight
    expected = [(theirs[0] + ours[0]) / 2, (theirs[1] + ours[5]) / 2, (theirs[2] + ours[2]) / 2,
                (theirs[3] + ours[6]) / 2, (theirs[4] + ours[1]) / 2, ours[3], ours[4], ours[7]]  # fmt: skip
    torch.testing.assert_close(made.lang_embeddings.weight, torch.stack(expected))


def test_pieces_are_matched_by_their_text(tiny_model_dir, other, tmp_path, capsys):
    model, tokenizer = load(other)
    small = trim(tokenizer, [i for i in range(len(tokenizer)) if i % 3])  # other numbers, and some pieces are gone
    carry_rows(model, tokenizer, small)
    _saved(model, small, tmp_path / "small")
    both = [str(tiny_model_dir), str(tmp_path / "small")]
    average(both, tmp_path / "out", [1, 3])
    a, made = load(tiny_model_dir)[0], load(tmp_path / "out")[0]
    new = small.get_vocab()
    for piece, row in tokenizer.get_vocab().items():
        for tensors in ((a.get_input_embeddings().weight, model.get_input_embeddings().weight,
                         made.get_input_embeddings().weight),
                        (a.lm_head.bias, model.lm_head.bias, made.lm_head.bias)):  # fmt: skip
            one, two, mean = tensors
            expected = (one[row] + 3 * two[new[piece]]) / 4 if piece in new else one[row]
            torch.testing.assert_close(mean[row], expected, msg=piece)
    assert main(["average", both[1], both[0], str(tmp_path / "less")]) == 0
    assert f"{len(tokenizer) - len(small)} pieces that {both[1]} does not have" in capsys.readouterr().out
    assert load(tmp_path / "less")[0].config.vocab_size == len(small)


def test_a_stock_model_and_an_encoder_alone_take_part(tiny_model_dir, tiny_xlmr_dir, tmp_path):
    export_encoder(str(tiny_model_dir), tmp_path / "encoder")
    models = [str(tiny_xlmr_dir), str(tiny_model_dir), str(tmp_path / "encoder")]
    average(models, tmp_path / "out")
    made, ours = load(tmp_path / "out")[0], load(tiny_model_dir)[0]
    stock = XLMRobertaForMaskedLM.from_pretrained(tiny_xlmr_dir)
    assert torch.equal(made.lang_embeddings.weight, ours.lang_embeddings.weight)  # the others have none
    torch.testing.assert_close(made.lm_head.dense.weight, (stock.lm_head.dense.weight + ours.lm_head.dense.weight) / 2)
    name = "roberta.encoder.layer.1.output.dense.weight"
    third = (stock.state_dict()[name] + 2 * ours.state_dict()[name]) / 3
    torch.testing.assert_close(made.state_dict()[name], third)


def test_what_cannot_be_averaged_is_refused_and_nothing_is_written(tiny_model_dir, tmp_path):
    export_encoder(str(tiny_model_dir), tmp_path / "short", layer=2)
    model = str(tiny_model_dir)
    for models, weights, message in (
        ([model], [], "two models at least"),
        ([model, model], [1], "2 models need 2 positive weights"),
        ([model, model], [1, -1], "2 models need 2 positive weights"),
        ([str(tmp_path / "short"), str(tmp_path / "short")], [], "none of the models has lm_head"),
        ([model, str(tmp_path / "short")], [], f"short and {tiny_model_dir.name} are of different shapes"),
        ([str(tmp_path / "short"), model], [], f"{tiny_model_dir.name} alone has roberta.encoder.layer.2"),
    ):
        with pytest.raises(ValueError, match=message):
            average(models, tmp_path / "out", weights)
    wide, tokenizer = load(tiny_model_dir)
    wide.config.intermediate_size = 96
    _saved(LangSAMPForMaskedLM(wide.config), tokenizer, tmp_path / "wide")
    with pytest.raises(ValueError, match=r"wide is of another shape: .*intermediate\.dense\.weight is"):
        average([model, str(tmp_path / "wide")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
