"""One test class over all families of encoders: what LangSAMP promises holds for each, with models made in memory."""

from __future__ import annotations

import copy
import inspect
import json
import re
import shutil
from dataclasses import replace

import accelerate
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.families import available, stock_config, stock_model, train_tokenizer
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments

import langsamp.modeling_langsamp as modeling
from langsamp import (
    LangSAMPConfig,
    LangSAMPForMaskedLM,
    LangSAMPForSequenceClassification,
    LangSAMPModel,
    LangSAMPTokenizer,
)
from langsamp.checkpoints.export import export_encoder, export_monolingual
from langsamp.configuration_langsamp import FAMILIES, config_class
from langsamp.core.outputs import add_pooling
from langsamp.eval.engines.encoder import Encoder
from langsamp.eval.results.card.card import write_card
from langsamp.modeling_langsamp import LangSAMPMixin

LANGUAGES = ["deu", "ell", "eng", "hin", "jpn", "rus"]
SCRIPTS = ["Cyrl", "Deva", "Grek", "Jpan", "Latn"]
SENTENCES = ["Das Haus steht am Fluss.", "Она читает книгу о птицах и домах.", "家は川のそばにあります。"]
HIDE = "import sys; sys.modules['langsamp'] = None\n"  # the installed package must not help


@pytest.fixture(scope="session")
def made(texts, tmp_path_factory):
    """What a test asks for of a family, made once: stock tokenizer and folder, LangSAMP folder and model."""
    kept = {}

    def make(name):
        if name not in kept:
            tokenizer = train_tokenizer(name, [text for lines in texts.values() for text in lines])
            base = stock_model(name, tokenizer, tmp_path_factory.mktemp(f"{name}-base"))
            config = LangSAMPConfig.from_backbone(
                transformers.AutoConfig.from_pretrained(base), LANGUAGES, SCRIPTS, table_initializer_range=0.3
            )
            torch.manual_seed(1)
            model = LangSAMPForMaskedLM.from_pretrained(base, config=config)
            for parameter in model.parameters():  # biases that would show if they were lost
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
            folder = tmp_path_factory.mktemp(f"{name}-langsamp")
            model.save_pretrained(folder)
            ours = LangSAMPTokenizer.from_pretrained(base, languages=LANGUAGES, scripts=SCRIPTS)
            ours.save_pretrained(folder)
            kept[name] = tokenizer, base, folder, LangSAMPForMaskedLM.from_pretrained(folder).eval()
        return kept[name]

    return make


@pytest.mark.parametrize("name", available())
class TestFamily:
    """Every family."""

    @pytest.fixture(autouse=True)
    def _world(self, name, made):
        self.name, self.family = name, FAMILIES[name]
        self.stock_tokenizer, self.base, self.folder, self.loaded = made(name)

    @pytest.fixture
    def model(self):
        return copy.deepcopy(self.loaded)

    @pytest.fixture
    def stock(self):
        """The folder through the other door, in the same process."""
        return AutoModelForMaskedLM.from_pretrained(self.folder).eval()

    @pytest.fixture
    def batch(self):
        tokenizer = LangSAMPTokenizer.from_pretrained(self.folder)
        made = tokenizer(SENTENCES, lang=["deu", "rus", "jpn"], padding=True, return_tensors="pt")
        made.pop("token_type_ids", None)
        return dict(made)

    @staticmethod
    def inputs(batch):
        return {key: batch[key] for key in ("input_ids", "attention_mask")}

    @staticmethod
    def labels(batch):
        labels = batch["input_ids"].clone()
        labels[:, ::3] = -100
        labels[batch["attention_mask"] == 0] = -100
        return labels

    def test_a_stock_configuration_becomes_ours_and_stays_stock_to_others(self, tmp_path):
        config = LangSAMPConfig.from_backbone(stock_config(self.name, self.stock_tokenizer), ["deu"], ["Latn"])
        assert config.model_type == self.name
        assert type(config) is config_class(self.name)
        config.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        classes = {value.split(".")[1] for value in saved["auto_map"].values()}
        assert classes >= {f"{self.family.ours}{kind}" for kind in ("Config", "Model", "ForMaskedLM")}
        assert all(getattr(modeling, cls, None) for cls in classes if not cls.endswith("Config"))
        again = LangSAMPConfig.from_pretrained(tmp_path)
        assert type(again) is type(config)
        assert again.languages == ["und", "deu"]
        stock = transformers.AutoConfig.from_pretrained(tmp_path)
        assert type(stock).__name__ == f"{self.family.stock}Config"
        assert type(again.stock()) is type(stock)

    def test_loss_and_all_gradients_equal_the_stock_encoder_rows_and_head(self, model, stock, batch):
        """In double precision, where a difference is none of rounding."""
        model, stock, labels = model.double(), stock.double(), self.labels(batch)
        tables = [copy.deepcopy(table.weight) for table in (model.lang_embeddings, model.script_embeddings)]

        def add_rows(module, args, output):
            rows = tables[0][batch["lang_ids"]] + tables[1][batch["script_ids"]]
            output.last_hidden_state = output.last_hidden_state + rows[:, None]
            return output

        stock.base_model.register_forward_hook(add_rows)
        logits = stock(**self.inputs(batch), return_dict=True).logits
        plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss = model(**batch, labels=labels).loss
        torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0, check_dtype=False)
        torch.testing.assert_close(model(**batch).logits, logits, rtol=0, atol=1e-9)
        loss.backward()
        plain.backward()
        theirs = dict(stock.named_parameters())
        theirs |= {"lang_embeddings.weight": tables[0], "script_embeddings.weight": tables[1]}
        assert theirs.keys() == dict(model.named_parameters()).keys()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            worst = (parameter.grad - theirs[key].grad).abs().max()
            assert worst <= 1e-6 * theirs[key].grad.abs().max() + 1e-12, key

    def test_all_keys_but_the_tables_are_stock_ones(self, model, stock):
        ours = {key for key in model.state_dict() if not key.startswith(("lang_embeddings.", "script_embeddings."))}
        assert ours == stock.state_dict().keys()

    def test_the_stock_encoder_is_bit_identical_and_ours_ignores_the_ids(self, model, batch):
        theirs = AutoModel.from_pretrained(self.folder).eval()
        assert type(theirs).__name__ == f"{self.family.stock}Model"
        ours = LangSAMPModel.from_pretrained(self.folder).eval()
        with torch.no_grad():
            expected = theirs(**self.inputs(batch), output_hidden_states=True)
            for found in (ours(**batch, output_hidden_states=True), model(**batch, output_hidden_states=True)):
                for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
                    assert torch.equal(one, other)
            assert torch.equal(ours(**batch).last_hidden_state, expected.last_hidden_state)

    def test_folding_unknown_makes_the_stock_head_language_unknown(self, model, batch, tmp_path):
        with torch.no_grad():
            unknown, known = model(**self.inputs(batch)).logits, model(**batch).logits
            model.fold_unknown()
            torch.testing.assert_close(model(**self.inputs(batch)).logits, unknown, rtol=0, atol=2e-5)
            torch.testing.assert_close(model(**batch).logits, known, rtol=0, atol=2e-5)
            model.save_pretrained(tmp_path)
            stock = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
            assert torch.equal(stock(**self.inputs(batch)).logits, model(**self.inputs(batch)).logits)

    def test_one_language_folds_into_a_stock_model(self, model, batch):
        alone = model.specialize("rus_Cyrl")
        assert type(alone).__name__ == f"{self.family.stock}ForMaskedLM"
        ids = {"lang_ids": torch.full((3,), 6), "script_ids": torch.full((3,), 1)}
        with torch.no_grad():
            expected = model(**self.inputs(batch), **ids).logits
            torch.testing.assert_close(alone(**self.inputs(batch)).logits, expected, rtol=0, atol=2e-5)

    def test_a_new_row_leaves_the_old_ones_and_the_vocabulary_can_grow(self, model, batch, tmp_path):
        with torch.no_grad():
            before = model(**batch).logits
            assert model.add_language("xho_Latn", like="eng") == 7
            assert torch.equal(model(**batch).logits, before)
            model.resize_token_embeddings(len(self.stock_tokenizer) + 7)
            model.save_pretrained(tmp_path)
            again = LangSAMPForMaskedLM.from_pretrained(tmp_path).eval()
            assert again.config.languages[-1] == "xho"
            torch.testing.assert_close(again(**batch).logits[..., : before.shape[-1]], before, rtol=0, atol=1e-5)

    def test_a_stock_checkpoint_starts_at_exactly_its_own_logits(self, batch):
        model, info = LangSAMPForMaskedLM.from_pretrained(
            self.base, languages=LANGUAGES, scripts=SCRIPTS, output_loading_info=True
        )
        assert type(model).__name__ == f"{self.family.ours}ForMaskedLM"
        assert self.family.lacking(info["missing_keys"]) == []
        assert not model.head_dense.bias.any() or not self.family.needs
        stock = AutoModelForMaskedLM.from_pretrained(self.base).eval()
        with torch.no_grad():
            assert torch.equal(model.eval()(**batch).logits, stock(**self.inputs(batch)).logits)
        for key, value in stock.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key

    def test_any_familys_class_makes_the_right_one(self, model):
        config = model.config
        assert type(LangSAMPForMaskedLM(config)) is type(model)
        assert isinstance(model, LangSAMPMixin)
        assert type(copy.deepcopy(model)) is type(model)
        assert type(config_class(self.name).from_pretrained(self.folder)) is type(config)

    def test_a_stock_configuration_is_taken_for_what_it_is(self, batch):
        """Of a stock checkpoint: the baseline. Of ours: the very model, though the configuration is not our class's."""
        stock, ours = (transformers.AutoConfig.from_pretrained(folder) for folder in (self.base, self.folder))
        assert not isinstance(ours, config_class(self.name))
        for model in (LangSAMPForMaskedLM(stock), LangSAMPForMaskedLM.from_pretrained(self.base, config=stock)):
            assert type(model).__name__ == f"{self.family.ours}ForMaskedLM"
            assert model.lang_embeddings is None
        again = LangSAMPForMaskedLM.from_pretrained(self.folder, config=ours).eval()
        assert torch.equal(again(**batch).logits, self.loaded(**batch).logits)
        for kind, name in ((LangSAMPModel, "Model"), (LangSAMPForSequenceClassification, "ForSequenceClassification")):
            model = kind.from_pretrained(self.folder, config=ours)
            assert type(model).__name__ == self.family.ours + name
            words = model.get_input_embeddings().weight
            assert torch.equal(words, self.loaded.get_input_embeddings().weight)
            assert type(kind(ours)).__name__ == type(model).__name__

    def test_a_class_that_somebody_derived_takes_its_own_family_only(self):
        """It used to load a checkpoint of another family without a single weight of it."""

        class Mine(LangSAMPForSequenceClassification):
            pass

        if self.name == "xlm-roberta":
            assert type(Mine.from_pretrained(self.folder)) is Mine
        else:
            with pytest.raises(
                ValueError, match=f"Mine is derived from a class for XLMRoberta; .* {self.family.stock}"
            ):
                Mine.from_pretrained(self.folder)

    def test_a_decoder_whose_weight_is_not_what_it_computes_with_is_called(self, model, batch):
        """Adapters add to it, offloading leaves an empty one behind."""
        labels = self.labels(batch)

        class Adapted(torch.nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner, self.weight, self.bias = inner, inner.weight, inner.bias

            def forward(self, features):
                return 2 * self.inner(features)

        plain = model.get_output_embeddings()
        model.set_output_embeddings(Adapted(plain))
        expected = torch.nn.functional.cross_entropy(model(**batch).logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(model(**batch, labels=labels).loss, expected, rtol=1e-5, atol=0)
        model.set_output_embeddings(plain)
        with torch.no_grad():
            expected = model(**batch, labels=labels).loss
            accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
            assert model.head_dense.weight.is_meta
            torch.testing.assert_close(model(**batch, labels=labels).loss, expected, rtol=1e-5, atol=0)

    def test_the_baseline_has_no_table(self, batch):
        model = LangSAMPForMaskedLM.from_pretrained(self.base).eval()
        assert model.lang_embeddings is None
        model(**batch)
        assert self.family.lacking(model.state_dict()) == sorted(
            key for key in AutoModelForMaskedLM.from_pretrained(self.base).state_dict() if "position_ids" not in key
        )

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_attention_checkpointing_and_bf16_agree(self, model, batch, attention):
        expected = model(**batch, labels=self.labels(batch)).loss
        drops = [name for name in vars(model.config) if name.endswith(("dropout", "dropout_prob"))]
        other = LangSAMPForMaskedLM.from_pretrained(
            self.folder, attn_implementation=attention, **dict.fromkeys(drops, 0.0)
        ).train()
        if other.supports_gradient_checkpointing:  # XLM-R XL's does not in transformers 4
            other.gradient_checkpointing_enable()
        loss = other(**batch, labels=self.labels(batch)).loss
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        loss.backward()
        assert all(parameter.grad is not None for parameter in other.parameters())
        with torch.autocast("cpu", torch.bfloat16):
            assert float(other(**batch, labels=self.labels(batch)).loss) == pytest.approx(float(expected), rel=0.05)

    def test_a_compiled_model_agrees(self, model, batch):
        with torch.no_grad():
            expected = model(**batch).logits
            compiled = torch.compile(model, backend="aot_eager")
            torch.testing.assert_close(compiled(**batch).logits, expected, rtol=0, atol=1e-5)

    def test_every_task_trains_through_the_remote_door(self, tmp_path):
        """Trainer and PEFT find what to learn in the signature, which is the stock one with the ids."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=True)
        row = dict(tokenizer("Das Haus", lang="deu"))
        row.pop("token_type_ids", None)
        length = len(row["input_ids"])
        both = {key: [value, value] if isinstance(value, list) else value for key, value in row.items()}
        learn = {
            "SequenceClassification": {**row, "labels": 1},
            "TokenClassification": {**row, "labels": [0] * length},
            "QuestionAnswering": {**row, "start_positions": 1, "end_positions": 2},
            "MultipleChoice": {**both, "labels": 1},
        }
        for task, sample in learn.items():
            stock = getattr(transformers, f"{self.family.stock}For{task}", None)
            if stock is None:
                continue
            kind = getattr(transformers, f"AutoModelFor{task}")
            model = kind.from_pretrained(self.folder, trust_remote_code=True)
            assert type(model).__name__ == f"{self.family.ours}For{task}"
            given = list(inspect.signature(model.forward).parameters)
            assert [name for name in given if name not in ("lang_ids", "script_ids")] == list(
                inspect.signature(stock.forward).parameters
            )[1:]
            arguments = TrainingArguments(
                str(tmp_path / task), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
                per_device_train_batch_size=2, per_device_eval_batch_size=2,
            )  # fmt: skip
            trainer = Trainer(model, arguments, train_dataset=[sample] * 4, eval_dataset=[sample] * 4)
            trainer.train()
            assert "eval_loss" in trainer.evaluate()
            assert trainer.predict([sample] * 4).label_ids is not None

    def test_a_run_that_trainer_resumes_ends_in_the_same_weights(self, batch, tmp_path):
        """With dropout, ids and a part-finished epoch."""
        rows = {**batch, "labels": self.labels(batch)}
        samples = [{key: value[i % 3] for key, value in rows.items()} for i in range(8)]

        def train(name, resume=None):
            torch.manual_seed(0)
            arguments = TrainingArguments(
                str(tmp_path / name), max_steps=4, save_steps=2, per_device_train_batch_size=3, learning_rate=1e-3,
                report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
            )  # fmt: skip
            model = LangSAMPForMaskedLM.from_pretrained(self.folder)
            trainer = Trainer(model, arguments, train_dataset=samples)
            trainer.train(resume_from_checkpoint=resume)
            assert trainer.state.global_step == 4
            return model.state_dict()

        straight = train("run")
        resumed = train("again", str(tmp_path / "run" / "checkpoint-2"))
        changed = LangSAMPForMaskedLM.from_pretrained(self.folder).state_dict()
        for key, value in straight.items():
            assert torch.equal(resumed[key], value), key
            assert not torch.equal(changed[key], value) or "position" in key, key

    def test_sentence_transformers_takes_the_mean(self, tmp_path):
        models = pytest.importorskip("sentence_transformers")
        shutil.copytree(self.folder, tmp_path / "st")
        add_pooling(tmp_path / "st")
        vectors = models.SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(SENTENCES)
        expected = Encoder(self.folder, "last").encode(SENTENCES)[0]
        torch.testing.assert_close(torch.as_tensor(vectors), torch.from_numpy(expected), rtol=0, atol=1e-5)

    def test_both_doors_in_a_fresh_process_without_the_package(self, run_fresh, tmp_path):
        script = HIDE + _DOORS.format(folder=str(self.folder), sentences=SENTENCES, stock=self.family.stock)
        found = json.loads(run_fresh(script).splitlines()[-1])
        ours, stock = self.family.ours, self.family.stock
        assert found["remote"] == [f"{ours}Config", "LangSAMPTokenizer", f"{ours}Model", f"{ours}ForMaskedLM"]
        assert found["stock"][0] == f"{stock}Config"
        assert found["stock"][2:] == [f"{stock}Model", f"{stock}ForMaskedLM"]
        assert found["same_ids"]
        assert found["same_hidden"]
        assert found["fills"] == [5, 5]
        assert found["features"]
        assert found["zero_shot"] == 2
        assert found.get("answers", True)

    def test_texts_are_cut_exactly_as_the_stock_class_cuts_them(self, tmp_path):
        """Special tokens in the text, pairs, blanks, unknown letters; before and after saving, through both doors."""
        special = [str(token) for token in self.stock_tokenizer.all_special_tokens]
        texts = [*SENTENCES, "", " ", "a  b\n\tc ", "𐌰𐌱 ¼ e\u0301", *(f"a {token} b{token}c" for token in special)]
        stock = AutoTokenizer.from_pretrained(self.base)
        ours = LangSAMPTokenizer.from_pretrained(self.base, languages=LANGUAGES, scripts=SCRIPTS)
        ours.save_pretrained(tmp_path)
        others = [ours, LangSAMPTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)]
        for other in others:
            assert other.get_vocab() == stock.get_vocab()
            assert other.all_special_ids == stock.all_special_ids
            assert other.mask_token_id == stock.mask_token_id
            for text in texts:
                assert other(text)["input_ids"] == stock(text)["input_ids"], text
                assert other(text, "b").data == {k: v for k, v in stock(text, "b").items() if k in other(text, "b")}
                assert other.decode(stock(text)["input_ids"]) == stock.decode(stock(text)["input_ids"])
            assert ("token_type_ids" in other("a")) == (self.name == "bert")
            assert other.model_max_length == stock.model_max_length

    def test_the_examples_of_the_card_run_and_give_the_vectors_of_the_evaluations(self, tmp_path):
        shutil.copytree(self.folder, tmp_path / "model")
        text = write_card(tmp_path / "model", repo="user/model").read_text()
        assert ("XLM-R" in text) == self.name.startswith("xlm")
        found = {}
        for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(example.replace("user/model", str(tmp_path / "model")), "card", "exec"), found)
        expected = Encoder(self.folder).encode(["A house by the river.", "Ein Haus am Fluss."])[0]
        torch.testing.assert_close(found["vectors"], torch.from_numpy(expected), rtol=0, atol=1e-5)

    def test_a_cut_encoder_and_one_language_are_exported_as_stock_folders(self, model, batch, tmp_path):
        export_encoder(str(self.folder), tmp_path / "encoder", layer=2)
        export_monolingual(str(self.folder), tmp_path / "german", "deu_Latn")
        ids = self.stock_tokenizer(SENTENCES[0])["input_ids"]
        text = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        with torch.no_grad():
            vector = AutoModel.from_pretrained(tmp_path / "encoder").eval()(**text).last_hidden_state[0].mean(0)
            german = AutoModelForMaskedLM.from_pretrained(tmp_path / "german").eval()(**text).logits
            known = model(**text, lang_ids=torch.tensor([1]), script_ids=torch.tensor([5])).logits
        torch.testing.assert_close(german, known, rtol=0, atol=2e-5)
        expected = Encoder(self.folder, 2).encode(SENTENCES[:1])[0, 0]
        torch.testing.assert_close(vector, torch.from_numpy(expected), rtol=0, atol=1e-5)
        for name in ("encoder", "german"):
            assert AutoTokenizer.from_pretrained(tmp_path / name)(SENTENCES[0])["input_ids"] == ids
            assert json.loads((tmp_path / name / "config.json").read_text())["model_type"] == self.name
            assert self.family.stock in (tmp_path / name / "README.md").read_text()
        if not self.name.startswith("xlm"):
            with pytest.raises(ValueError, match="only Unigram vocabularies"):
                export_monolingual(str(self.folder), tmp_path / "small", "deu_Latn", trim_to=iter(SENTENCES))

    @pytest.mark.parametrize("layers", ["all", "2"])
    def test_evaluations_encode_as_the_stock_encoder_does(self, layers):
        """Texts of many lengths, longer than ModernBERT's window; a cut encoder ends in its last norm."""
        texts = [" ".join(SENTENCES[:2] * n) for n in (1, 2, 2, 5)] + ["a", SENTENCES[2]]
        encoder = Encoder(self.folder, layers, max_tokens=200)
        found = encoder.encode(texts)
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        for layer, vectors in zip(encoder.layers, found, strict=True):
            stock = AutoModel.from_pretrained(self.folder, num_hidden_layers=layer).eval()
            for text, vector in zip(texts, vectors):
                ids = torch.tensor([tokenizer(text)["input_ids"]])
                with torch.no_grad():
                    expected = stock(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)
                torch.testing.assert_close(torch.from_numpy(vector), expected, rtol=1e-5, atol=1e-5)


def test_a_further_family_is_a_line(texts, tmp_path, monkeypatch):
    """As docs/families.md says: RoBERTa here, in a process that adds it."""
    monkeypatch.setitem(FAMILIES, "roberta", replace(FAMILIES["xlm-roberta"], stock="Roberta", ours="LangSAMPRoberta"))
    tokenizer = train_tokenizer("xlm-roberta", [text for lines in texts.values() for text in lines])
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=1, max_position_embeddings=40, **size
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path)
    model = LangSAMPForMaskedLM.from_pretrained(tmp_path, languages=["deu"], scripts=["Latn"]).eval()
    assert type(model).__name__ == "LangSAMPRobertaForMaskedLM"
    longest = model.config.max_tokens
    assert longest == 38
    ids = torch.full((1, longest), 5)
    assert model(ids, lang_ids=torch.tensor([1])).logits.shape == (1, longest, len(tokenizer))
    with pytest.raises((IndexError, RuntimeError)):  # one more has no position
        model(torch.full((1, longest + 1), 5))


def test_a_checkpoint_from_before_the_families_stays_what_it_was(tmp_path):
    """XLM-R with the configuration and the tensors' names that the first version wrote."""
    kinds = ("MaskedLM", "SequenceClassification", "TokenClassification")
    size = {"vocab_size": 90, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1}
    written = {
        "architectures": ["XLMRobertaForMaskedLM"],
        "auto_map": {
            "AutoConfig": "configuration_langsamp.LangSAMPConfig",
            "AutoModel": "modeling_langsamp.LangSAMPModel",
            **{f"AutoModelFor{kind}": f"modeling_langsamp.LangSAMPFor{kind}" for kind in kinds},
        },
        "languages": ["und", "deu", "rus"], "scripts": ["Zyyy", "Latn", "Cyrl"], "model_type": "xlm-roberta",
        "table_initializer_range": 0.3, "intermediate_size": 16, "max_position_embeddings": 20, "type_vocab_size": 1,
        **size,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(written))
    block = {
        **{f"attention.self.{name}": (8, 8) for name in ("query", "key", "value")},
        "attention.output.dense": (8, 8), "intermediate.dense": (16, 8), "output.dense": (8, 16),
        "attention.output.LayerNorm": (8,), "output.LayerNorm": (8,),
    }  # fmt: skip
    shapes = {f"roberta.encoder.layer.0.{name}": shape for name, shape in block.items()}
    shapes |= {"roberta.embeddings.LayerNorm": (8,), "lm_head.dense": (8, 8), "lm_head.layer_norm": (8,)}
    tables = {f"roberta.embeddings.{k}_embeddings": n for k, n in (("word", 90), ("position", 20), ("token_type", 1))}
    tables |= {"lang_embeddings": 3, "script_embeddings": 3}
    tensors = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    tensors |= {f"{name}.weight": torch.randn(rows, 8) for name, rows in tables.items()}
    tensors["lm_head.bias"] = torch.randn(90)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    model, told = LangSAMPForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is LangSAMPForMaskedLM
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for key, value in tensors.items():
        assert torch.equal(model.state_dict()[key], value), key
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == tensors.keys()
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {**again["auto_map"], **written["auto_map"]} == again["auto_map"]  # more classes, the old ones as they were
    del written["auto_map"]
    assert {key: again[key] for key in written} == written


_DOORS = """
import json, torch, transformers
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
transformers.logging.set_verbosity_error()
found, hidden, ids = {{}}, [], []
for door, trust in (("remote", True), ("stock", False)):
    parts = [kind.from_pretrained({folder!r}, trust_remote_code=trust)
             for kind in (AutoConfig, AutoTokenizer, AutoModel, AutoModelForMaskedLM)]
    found[door] = [type(part).__name__ for part in parts]
    batch = parts[1]({sentences!r}, padding=True, return_tensors="pt")
    inputs = {{key: batch[key] for key in ("input_ids", "attention_mask")}}
    with torch.no_grad():
        hidden.append(parts[2].eval()(**inputs).last_hidden_state)
    ids.append(inputs["input_ids"])
found["same_ids"], found["same_hidden"] = torch.equal(*ids), torch.equal(*hidden)
fill = pipeline("fill-mask", model={folder!r}, trust_remote_code=True)
text = "Das Haus steht am " + fill.tokenizer.mask_token + "."
found["fills"] = [len(fill(text)), len(fill(text, tokenizer_kwargs={{"lang": "deu_Latn"}}))]
choose = pipeline("zero-shot-classification", model={folder!r}, trust_remote_code=True)
found["zero_shot"] = len(choose("Das Haus", candidate_labels=["a", "b"])["scores"])
if hasattr(transformers, "QuestionAnsweringPipeline") and hasattr(transformers, {stock!r} + "ForQuestionAnswering"):
    answer = pipeline("question-answering", model={folder!r}, trust_remote_code=True)
    for answer.tokenizer.lang in (None, "deu_Latn"):
        answer(question="Was steht?", context="Das Haus steht am Fluss.")
    found["answers"] = True
found["features"] = len(pipeline("feature-extraction", model={folder!r}, trust_remote_code=True)(text)[0])
print(json.dumps(found))
"""
