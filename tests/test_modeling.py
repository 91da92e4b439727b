"""The models: what the tables add, what the encoder never sees, what survives saving, resizing and growing."""

import copy
from functools import partial

import pytest
import torch
from support.card import CARD, blank, numberless, place, unasked
from torch.utils._pytree import tree_map_only
from transformers import XLMRobertaForMaskedLM, XLMRobertaModel

from langsamp import (
    LangSAMPForMaskedLM,
    LangSAMPForSequenceClassification,
    LangSAMPForTokenClassification,
    LangSAMPModel,
)

MASK_EVERY = 3


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    return LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).eval()


@pytest.fixture
def model(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture
def batch(tiny_tokenizer):
    return dict(tiny_tokenizer(["Das Haus steht am Fluss.", "Дом стоит"], lang=["deu", "rus"], padding=True,
                               return_tensors="pt"))  # fmt: skip


def _labels(batch):
    labels = batch["input_ids"].clone()
    labels[:, ::MASK_EVERY] = -100
    labels[batch["attention_mask"] == 0] = -100
    return labels


def _plain_loss(model, batch, labels):
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten())


def test_the_definition(model, batch):
    """logits = head(h + E_lang + E_script), each table seeing its own ids (official fault B1)."""
    hidden = model.roberta(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    rows = model.lang_embeddings.weight[batch["lang_ids"]] + model.script_embeddings.weight[batch["script_ids"]]
    torch.testing.assert_close(model(**batch).logits, model.lm_head(hidden + rows[:, None]), rtol=0, atol=1e-6)


def test_the_encoder_never_sees_the_ids(model, batch):
    with_ids = model(**batch, output_hidden_states=True).hidden_states
    without = {k: v for k, v in batch.items() if not k.endswith("_ids") or k == "input_ids"}
    for a, b in zip(with_ids, model(**without, output_hidden_states=True).hidden_states):
        assert torch.equal(a, b)


def test_ids_per_sequence_and_per_token_agree(model, batch):
    length = batch["input_ids"].shape[1]
    per_token = {**batch, "lang_ids": batch["lang_ids"][:, None].expand(-1, length),
                 "script_ids": batch["script_ids"][:, None]}  # fmt: skip
    assert torch.equal(model(**batch).logits, model(**per_token).logits)
    labels = _labels(batch)
    assert torch.equal(model(**batch, labels=labels).loss, model(**per_token, labels=labels).loss)


def test_code_switched_text_gets_each_tokens_own_row(model, batch):
    ids = torch.zeros_like(batch["input_ids"])
    ids[0, 3:] = 1
    mixed = model(**{**batch, "lang_ids": ids}).logits
    german, unknown = (model(**{**batch, "lang_ids": torch.full((2,), k)}).logits for k in (1, 0))
    assert torch.equal(mixed[0, 3:], german[0, 3:])
    assert torch.equal(mixed[0, :3], unknown[0, :3])


def test_no_ids_are_unknown_ids(model, batch):
    none = {k: batch[k] for k in ("input_ids", "attention_mask")}
    zero = torch.zeros(2, dtype=torch.long)
    assert torch.equal(model(**none).logits, model(**none, lang_ids=zero, script_ids=zero).logits)
    assert not torch.equal(model(**none).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (torch.tensor([1, 7]), IndexError, "lang_ids holds 7, but the table has rows 0 to 6"),
        (torch.tensor([-1, 1]), IndexError, "lang_ids holds -1"),
        (torch.tensor([1.0, 2.0]), ValueError, "must be a tensor of integers"),
        (torch.tensor([True, False]), ValueError, "must be a tensor of integers"),
        ([1, 2], ValueError, "must be a tensor of integers"),
        (torch.tensor([1, 2, 3]), ValueError, r"shape \(3,\); it must be \(2,\) or \(2, "),
        (torch.zeros(2, 1, 1, dtype=torch.long), ValueError, "shape"),
    ],
)
def test_wrong_ids_are_one_sentence(model, batch, ids, error, words):
    with pytest.raises(error, match=words):
        model(**{**batch, "lang_ids": ids})


def test_the_loss_is_the_plain_one_and_so_are_all_gradients(model, batch):
    labels = _labels(batch)
    other = copy.deepcopy(model)
    loss = model(**batch, labels=labels).loss
    plain = _plain_loss(other, batch, labels)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)
    loss.backward()
    plain.backward()
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-6, msg=name)


def test_a_batch_without_a_masked_token_is_a_zero_loss_with_gradients(model, batch):
    loss = model(**batch, labels=torch.full_like(batch["input_ids"], -100)).loss
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_step_without_a_masked_token_on_any_rank_is_a_zero_loss_too(model, batch):
    """Trainer then gives a count of zero; 0 / 0 would make every weight NaN."""
    loss = model(**batch, labels=torch.full_like(batch["input_ids"], -100), num_items_in_batch=torch.tensor(0)).loss
    assert loss.item() == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_num_items_in_batch_makes_accumulation_exact(model, batch):
    labels = _labels(batch)
    total = int((labels != -100).sum())
    whole = model(**batch, labels=labels).loss
    rows = [{k: v[i : i + 1] for k, v in {**batch, "labels": labels}.items()} for i in range(2)]
    parts = [model(**row, num_items_in_batch=torch.tensor(total)).loss for row in rows]
    torch.testing.assert_close(sum(parts), whole)
    assert model.accepts_loss_kwargs


@pytest.mark.parametrize("per_token", [False, True])
def test_given_positions_are_those_of_the_labels_in_any_order_filled_up(model, batch, per_token):
    labels = _labels(batch)
    if per_token:
        batch["lang_ids"] = batch["input_ids"] % 7
    found = (labels.flatten() != -100).nonzero().squeeze(1)
    positions = torch.cat([torch.tensor([-1]), found.flip(0), torch.tensor([-1, -1])])
    other = copy.deepcopy(model)
    loss, plain = model(**batch, labels=labels, masked_positions=positions).loss, other(**batch, labels=labels).loss
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    (loss.backward(), plain.backward())
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6, msg=name)


@unasked
@pytest.mark.parametrize("elsewhere", [("lang_embeddings", "script_embeddings"), ("roberta.encoder",)])
def test_a_model_in_parts_on_two_devices(model, batch, elsewhere):
    """As `device_map` splits one: what goes into a part is brought to it; what comes out is the model's own affair."""
    model.check_ids, model.lm_head.decoder._hf_hook = False, None  # accelerate's mark on its parts
    batch = {**batch, "labels": _labels(batch), "masked_positions": torch.arange(4)}
    del batch["attention_mask"]
    layers = [f"roberta.encoder.layer.{number}" for number in range(len(model.encoder_layers))]
    with numberless():
        place(model, torch.device("cpu"), **dict.fromkeys(elsewhere, CARD))
        for name in (*layers, "lang_embeddings", "script_embeddings", "lm_head.dense", "lm_head.decoder"):
            part = model.get_submodule(name)
            to = partial(torch.Tensor.to, device=next(part.parameters()).device)
            part.register_forward_pre_hook(
                lambda _, *given, to=to: tree_map_only(torch.Tensor, to, given), with_kwargs=True
            )
        given = blank(batch, "cpu")
        for items in (None, 3, torch.zeros((), device=CARD)):
            model(**given, num_items_in_batch=items).loss.backward()
        assert {p.grad.device for p in model.parameters() if p.grad is not None} == {CARD, torch.device("cpu")}
        del given["labels"]
        assert model(**given).logits.shape[-1] == model.config.vocab_size
        model.set_unknown("mean")
        model.fold_unknown()


def test_positions_that_only_fill_up_are_a_zero_loss(model, batch):
    """The last token is labelled: -1 must not stand for it."""
    loss = model(**batch, labels=batch["input_ids"], masked_positions=torch.full((4,), -1)).loss
    assert loss.item() == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_parts_have_names_that_no_family_changes(model, batch):
    """base_model, encoder_layers, head_dense, head_transform and the stock names for both ends of the vocabulary."""
    model.set_unknown("zero")
    inputs = batch["input_ids"], batch["attention_mask"]
    hidden = model.base_model(*inputs).last_hidden_state
    assert torch.equal(model.get_output_embeddings()(model.head_transform(hidden)), model(*inputs).logits)
    assert len(model.encoder_layers) == model.config.num_hidden_layers
    assert model.head_dense is model.lm_head.dense


def test_all_padding_and_tuple_output(model, batch):
    empty = {"input_ids": torch.ones(1, 4, dtype=torch.long), "attention_mask": torch.zeros(1, 4, dtype=torch.long)}
    assert torch.isfinite(model(**empty).logits).all()
    assert torch.equal(model(**batch, return_dict=False)[0], model(**batch).logits)
    loss, hidden = model(**batch, labels=_labels(batch), return_dict=False, output_hidden_states=True)
    assert loss.dim() == 0
    assert len(hidden) == model.config.num_hidden_layers + 1


def test_inputs_embeds_equal_input_ids(model, batch):
    embeds = model.get_input_embeddings()(batch["input_ids"])
    rest = {k: v for k, v in batch.items() if k != "input_ids"}
    position_ids = torch.arange(2, 2 + embeds.shape[1])[None].expand(2, -1).clone()
    position_ids[batch["attention_mask"] == 0] = model.config.pad_token_id
    torch.testing.assert_close(
        model(inputs_embeds=embeds, position_ids=position_ids, **rest).logits, model(**batch).logits
    )


def test_vanilla_xlmr_becomes_langsamp_with_equal_logits(tiny_xlmr_dir, batch):
    stock = XLMRobertaForMaskedLM.from_pretrained(tiny_xlmr_dir).eval()
    ours = LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir, languages=["deu", "rus"], scripts=["Latn", "Cyrl"]).eval()
    assert ours.config.languages == ["und", "deu", "rus"]
    ids = {"lang_ids": torch.tensor([1, 2]), "script_ids": torch.tensor([1, 2])}
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(ours(**inputs, **ids).logits, stock(**inputs).logits)


@pytest.mark.parametrize(("languages", "scripts"), [([], ["Latn"]), (["deu"], []), ([], [])])
def test_the_ablations_have_no_table_and_ignore_its_ids(tiny_xlmr_dir, batch, languages, scripts):
    model = LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir, languages=languages, scripts=scripts)
    assert (model.lang_embeddings is None, model.script_embeddings is None) == (not languages, not scripts)
    ids = {"lang_ids": torch.zeros(2, dtype=torch.long), "script_ids": torch.zeros(2, dtype=torch.long)}
    ids |= {} if languages else {"lang_ids": torch.tensor([5, 6])}
    model({**batch, **ids}["input_ids"], **{k: v for k, v in {**batch, **ids}.items() if k != "input_ids"})
    model.set_unknown("mean")
    model.fold_unknown()


def test_trained_rows_survive_saving_and_resizing(model, tmp_path, batch):
    before = model(**batch).logits
    model.save_pretrained(tmp_path)
    again = LangSAMPForMaskedLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**batch).logits, before)
    again.resize_token_embeddings(200)
    assert again.lm_head.decoder.weight is again.get_input_embeddings().weight
    assert again.lm_head.decoder.bias.shape == again.lm_head.bias.shape == (200,)
    assert again.config.vocab_size == 200
    assert torch.equal(again.lang_embeddings.weight, model.lang_embeddings.weight)
    assert torch.allclose(again(**batch).logits[..., : before.shape[-1]], before)
    again(**batch, labels=_labels(batch)).loss.backward()


def test_garbage_memory_never_becomes_a_parameter(tiny_xlmr_dir, monkeypatch):
    """transformers#48892: rows that a checkpoint lacks must be initialised, whatever torch.empty returns."""
    empty = torch.empty_like

    def garbage(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty_like", garbage)
    model = LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir, languages=["deu"], scripts=["Latn"])
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


def test_folding_keeps_the_function_and_zeroes_the_unknown_rows(model, batch):
    before, rows = model(**batch).logits, model.lang_embeddings.weight[1:] - model.lang_embeddings.weight[0]
    model.fold_unknown()
    assert not model.lang_embeddings.weight[0].any()
    assert not model.script_embeddings.weight[0].any()
    torch.testing.assert_close(model(**batch).logits, before, rtol=0, atol=2e-6)
    torch.testing.assert_close(model.lang_embeddings.weight[1:], rows)


def test_set_unknown(model):
    lang, script = model.lang_embeddings.weight, model.script_embeddings.weight
    model.set_unknown("mean")
    torch.testing.assert_close(lang[0], lang[1:].mean(0))
    model.set_unknown({"deu_Latn": 3, "rus_Cyrl": 1})
    torch.testing.assert_close(lang[0], 0.75 * lang[1] + 0.25 * lang[6])
    torch.testing.assert_close(script[0], 0.75 * script[5] + 0.25 * script[1])
    model.set_unknown("zero")
    assert not lang[0].any()
    with pytest.raises(ValueError, match="'zero', 'mean' or weights"):
        model.set_unknown("max")
    with pytest.raises(ValueError, match="'fra' has no row in this model; nearest"):
        model.set_unknown({"fra_Latn": 1})
    for weights in ({"deu_Latn": 0}, {}):
        with pytest.raises(ValueError, match="positive"):
            model.set_unknown(weights)
    with pytest.raises(ValueError, match="'Thai' has no row"):
        model.set_unknown({"deu_Thai": 1})
    assert not lang[0].any(), "an error in the second table leaves the first as it was"


def test_set_unknown_in_half_precision(model):
    """Counts of tokens are larger than the largest fp16."""
    counts = {"deu_Latn": 3_000_000, "rus_Cyrl": 1_000_000}
    model.set_unknown(counts)
    expected = model.lang_embeddings.weight[0].clone()
    model.half().set_unknown(counts)
    torch.testing.assert_close(model.lang_embeddings.weight[0].float(), expected, rtol=1e-2, atol=1e-3)


def test_specialize_is_a_stock_model_that_predicts_for_one_language(model, batch):
    stock = model.specialize("deu", "Latn")
    assert type(stock) is XLMRobertaForMaskedLM
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    german = model(**inputs, lang_ids=torch.tensor([1, 1]), script_ids=torch.tensor([5, 5])).logits
    torch.testing.assert_close(stock(**inputs).logits, german, rtol=0, atol=1e-6)
    assert torch.equal(stock(**inputs).logits, model.specialize("de-Latn")(**inputs).logits)
    with pytest.raises(ValueError, match="'fra' has no row"):
        model.specialize("fra_Latn")


def test_add_language(model, batch, tmp_path, tiny_tokenizer):
    before, old = model(**batch).logits, model.lang_embeddings.weight.clone()
    assert model.add_language("nld_Latn", like="deu") == 7
    assert model.add_language("tha_Thai") == 8
    assert torch.equal(model.lang_embeddings.weight[:7], old)
    assert torch.equal(model.lang_embeddings.weight[7], old[1])
    assert torch.equal(model.lang_embeddings.weight[8], old[0])
    assert model.config.scripts[-1] == "Thai"
    assert torch.equal(model(**batch).logits, before)
    model.save_pretrained(tmp_path)
    assert LangSAMPForMaskedLM.from_pretrained(tmp_path).config.languages[-2:] == ["nld", "tha"]
    with pytest.raises(ValueError, match="'nld' has row 7 already"):
        model.add_language("nld")
    with pytest.raises(ValueError, match="'xyz' has no row"):
        model.add_language("fra", like="xyz")
    assert len(model.config.languages) == len(model.lang_embeddings.weight) == 9


def test_add_language_needs_a_table(tiny_xlmr_dir):
    with pytest.raises(ValueError, match="no language table"):
        LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir).add_language("deu")


def test_the_encoder_class_is_stock_xlmr_without_pooler(tiny_model_dir, batch, caplog):
    ours = LangSAMPModel.from_pretrained(tiny_model_dir).eval()
    stock = XLMRobertaModel.from_pretrained(tiny_model_dir, add_pooling_layer=False).eval()
    assert ours.pooler is None
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(ours(**batch).last_hidden_state, stock(**inputs).last_hidden_state)
    assert not [name for name, _ in ours.named_parameters() if "lang_" in name or "script_" in name]


@pytest.mark.parametrize("cls", [LangSAMPForSequenceClassification, LangSAMPForTokenClassification])
def test_heads_ignore_the_ids_and_train(cls, tiny_model_dir, batch):
    model = cls.from_pretrained(tiny_model_dir, num_labels=3).eval()
    assert model.accepts_loss_kwargs is False
    ids = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(model(**batch).logits, model(**ids).logits)
    labels = torch.zeros(model(**ids).logits.shape[:-1], dtype=torch.long)
    model(**batch, labels=labels).loss.backward()
    assert model.roberta.embeddings.word_embeddings.weight.grad is not None


def test_gradient_checkpointing_and_eager_attention_agree(tiny_model_dir, batch):
    labels = _labels(batch)
    sdpa, eager = (
        LangSAMPForMaskedLM.from_pretrained(tiny_model_dir, attn_implementation=name) for name in ("sdpa", "eager")
    )
    for model in (sdpa, eager):
        model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    eager.gradient_checkpointing_enable()
    losses = [model.eval()(**batch, labels=labels).loss for model in (sdpa, eager)]
    torch.testing.assert_close(*losses)
    losses[1].backward()


def test_weights_that_can_run_code_are_refused(tiny_model_dir, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model_dir / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"holds no weights at all; a model\.safetensors is needed"):
        LangSAMPForMaskedLM.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(FileNotFoundError, match=r"only pytorch_model\.bin, which can run code"):
        LangSAMPModel.from_pretrained(tmp_path)


def test_half_precision_loads_and_runs(tiny_model_dir, batch):
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    model(**batch, labels=_labels(batch)).loss.backward()
    assert model.lang_embeddings.weight.grad.dtype == torch.bfloat16


def test_the_official_initialisation_is_an_option(tiny_config):
    tiny_config.table_initializer_range = 0.02
    torch.manual_seed(0)
    table = LangSAMPForMaskedLM(tiny_config).lang_embeddings.weight
    assert 0.01 < table.std().item() < 0.03
    tiny_config.table_initializer_range = 0.0
    assert not LangSAMPForMaskedLM(tiny_config).lang_embeddings.weight.any()


def test_trainer_loss_is_the_same_whatever_the_accumulation(tiny_model_dir, tiny_tokenizer, texts, tmp_path):
    """Trainer trusts a forward with **kwargs with num_items_in_batch; a mean loss would come out multiplied."""
    from transformers import Trainer, TrainingArguments

    rows = [dict(tiny_tokenizer(line, lang=tag)) for tag, lines in texts.items() for line in lines][:8]
    length = max(len(row["input_ids"]) for row in rows)
    batch = tiny_tokenizer.pad(rows, padding="max_length", max_length=length, return_tensors="pt")
    data = [{**{k: v[i] for k, v in batch.items()}, "labels": _labels(batch)[i]} for i in range(8)]
    losses = []
    for size, accumulation in ((8, 1), (2, 4)):
        arguments = TrainingArguments(
            str(tmp_path / str(size)), per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
            max_steps=1, logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir, hidden_dropout_prob=0.0,
                                                    attention_probs_dropout_prob=0.0)  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data)
        evaluated = trainer.evaluate()["eval_loss"]
        trainer.train()
        losses.append((evaluated, next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)))
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-4)
    assert losses[0][1] == pytest.approx(losses[0][0], rel=1e-4)
