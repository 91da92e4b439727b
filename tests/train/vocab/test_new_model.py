"""A small model from nothing: stock XLM-R, the same by seed, with places that know their neighbours."""

import torch
from transformers import AutoModelForMaskedLM, XLMRobertaForMaskedLM

from langsamp.train.vocab.new import new_model, new_tokenizer


def _made(folder, seed):
    new_tokenizer({"eng_Latn": ["one two three"] * 50, "deu_Latn": ["eins zwei drei"] * 50}, 30, folder)
    new_model(folder, hidden=64, layers=2, seed=seed)
    return AutoModelForMaskedLM.from_pretrained(folder)


def test_it_is_a_stock_model_and_the_same_by_seed(tmp_path):
    one, same, other = (_made(tmp_path / name, seed) for name, seed in (("one", 1), ("same", 1), ("other", 2)))
    assert type(one) is XLMRobertaForMaskedLM
    weights = [dict(model.named_parameters()) for model in (one, same, other)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    query = "roberta.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(weights[0][query], weights[2][query])


def test_places_are_nearest_to_their_neighbours(tmp_path):
    embeddings = _made(tmp_path, 1).roberta.embeddings
    places = embeddings.position_embeddings.weight[2:40].detach()
    assert set((places[10] - places).norm(dim=1).argsort()[1:3].tolist()) == {9, 11}
    assert 0.5 < places.std() / embeddings.word_embeddings.weight.std() < 2, "neither drowns the other"
