"""A run from start to finished folder: what is written, what is equal between models, what is refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from filelock import FileLock
from support.runs import QUICK
from transformers import TrainerCallback

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.manifest import read_manifest, verify_manifest
from langsamp.train.cli import train_values
from langsamp.train.fast import step as fast_step
from langsamp.train.pretrain import pretrain
from langsamp.train.saves import checkpoints
from langsamp.train.settings import PretrainSettings, read_recipe, split, training_arguments
from langsamp.train.trainer import NonFiniteError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


class Batches(TrainerCallback):
    """Records the labels and ids of each step's batch by hooking the model."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def hook(module, _, inputs):
            if module.training:
                self.seen.append({k: v.clone() for k, v in inputs.items() if k in ("input_ids", "labels", "lang_ids")})

        model.register_forward_pre_hook(hook, with_kwargs=True)


def test_ids_are_not_looked_at_again_in_the_step_and_are_afterwards(go):
    """On a GPU a look waits for it; the collator takes the ids from the tables themselves."""
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.check_ids)

    model = go(callbacks=[Look()]).model
    assert seen == [False] * 4
    ids = torch.tensor([[3, 4]])
    with pytest.raises(IndexError, match="lang_ids holds 99"):
        model(ids, lang_ids=torch.tensor([99]))


def test_one_process_on_several_cards_takes_the_stock_step(tmp_path, small_store, tiny_xlmr_dir, monkeypatch, caplog):
    """torch copies the model to the others in every step, and what the fast step puts into it knows one card only."""
    monkeypatch.setattr(fast_step, "accelerate", None)
    args = training_arguments(tmp_path, QUICK | {"save_strategy": "no"})
    assert args.device.type == "cpu"
    args._n_gpu = 2
    result = pretrain(PretrainSettings(str(tmp_path), base=str(tiny_xlmr_dir)), args, store=small_store)
    assert result.losses[-1][0] == QUICK["max_steps"]
    assert "one process trains on 2 cards, by the stock step" in caplog.text


def test_finished_folder_is_whole_and_loads(go, small_store):
    result = go(training={"eval_strategy": "steps", "eval_steps": 2})
    assert verify_manifest(result.folder) == []
    assert {"model.safetensors", "config.json", "training.json", "modeling_langsamp.py"} <= set(
        read_manifest(result.folder)
    )
    model = LangSAMPForMaskedLM.from_pretrained(result.folder)
    tokenizer = LangSAMPTokenizer.from_pretrained(result.folder)
    model.config.check_tokenizer(tokenizer)
    assert model.config.languages == ["und", "deu", "ell", "eng", "hin", "jpn", "rus"]
    assert not model.lang_embeddings.weight[0].any()  # folded into the head
    assert model.lang_embeddings.weight[1:].abs().sum(1).gt(0).all()
    facts = json.loads((result.folder / "training.json").read_text())
    assert facts["steps"] == 4
    assert facts["tokens"] == 4 * 4 * 32
    assert facts["settings"]["learning_rate"] == 1e-2
    assert [row["language"] for row in facts["sampling"]] != []
    assert str(result.folder) not in json.dumps(facts["settings"])
    assert [step for step, _ in result.losses] == [1, 2, 3, 4]
    assert result.losses[-1][1] < result.losses[0][1]
    records = [json.loads(line) for line in (result.folder / "heldout.jsonl").read_text().splitlines()]
    assert {record["metric"] for record in records} == {"loss", "loss_missing", "loss_wrong"}
    assert {record["revision"] for record in records} == {"step-2", "step-4"}
    assert {record["task"] for record in records} == {"heldout"}  # `lm` is measured in another way
    assert len(records) == 2 * 3 * sum(1 for language in small_store.languages if len(small_store.heldout(language)))
    assert not list(result.folder.rglob("training_args.bin"))


def test_the_row_of_another_code_is_trained_where_that_is_asked_for(go, tmp_path, tiny_model_dir):
    base = tmp_path / "base"
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    model.config.languages = [{"hin": "urd"}.get(code, code) for code in model.config.languages]
    model.save_pretrained(base)
    LangSAMPTokenizer.from_pretrained(tiny_model_dir, languages=model.config.languages).save_pretrained(base)
    given = {"eval_strategy": "steps", "eval_steps": 4}
    trained = LangSAMPForMaskedLM.from_pretrained(go("same", given, base=str(base), same_as=["hi=urd"]).folder)
    assert trained.config.languages == model.config.languages
    beside = LangSAMPForMaskedLM.from_pretrained(go("own", given, base=str(base)).folder)
    assert beside.config.languages == [*model.config.languages, "hin"]
    with pytest.raises(ValueError, match=r"--same-as 'hin': write two languages like swh=swa"):
        go("wrong", base=str(base), same_as=["hin"])


def test_heldout_records_have_the_format_of_evaluation(go):
    from langsamp.eval.results.records import read

    result = go(training={"eval_strategy": "steps", "eval_steps": 4})
    records = read(result.folder / "heldout.jsonl")
    assert {(r.task, r.model) for r in records} == {("heldout", "run")}
    mean = sum(r.value for r in records if r.metric == "loss") / sum(r.metric == "loss" for r in records)
    assert result.heldout[-1][1]["eval_loss"] == pytest.approx(mean)


def test_baseline_and_ablations_see_the_same_blocks_and_masks(go):
    seen = {}
    for name, tables in {"both": {}, "none": {"lang": False, "script": False}, "lang": {"script": False}}.items():
        batches = Batches()
        go(name, callbacks=[batches], **tables)
        seen[name] = batches.seen
    for other in ("none", "lang"):
        for a, b in zip(seen["both"], seen[other], strict=True):
            assert torch.equal(a["input_ids"], b["input_ids"])
            assert torch.equal(a["labels"], b["labels"])
    assert "lang_ids" not in seen["none"][0]
    assert "lang_ids" in seen["both"][0]


def test_tables_learn_at_their_own_rate(go):
    still = go("still", table_lr=0.0, unknown="keep", table_init=0.02)
    moved = go("moved", unknown="keep", table_init=0.02)
    start = LangSAMPForMaskedLM.from_pretrained(still.folder / "checkpoint-2").lang_embeddings.weight
    end = LangSAMPForMaskedLM.from_pretrained(still.folder / "checkpoint-4").lang_embeddings.weight
    assert torch.equal(start, end)
    start = LangSAMPForMaskedLM.from_pretrained(moved.folder / "checkpoint-2").lang_embeddings.weight
    end = LangSAMPForMaskedLM.from_pretrained(moved.folder / "checkpoint-4").lang_embeddings.weight
    assert not torch.equal(start, end)


def test_unknown_policy_is_what_the_stock_head_becomes(go):
    """After training the unknown rows are zero and the head is "language unknown", by the policy asked for."""
    zero, mean = go("zero", unknown="zero"), go("mean", unknown="mean")
    raw = LangSAMPForMaskedLM.from_pretrained(mean.folder / "checkpoint-4")
    shares = {row.language: row.probability for row in mean.facts.sampling}
    tables = (raw.lang_embeddings.weight, raw.config.languages), (raw.script_embeddings.weight, raw.config.scripts)
    expected = 0
    for part, (table, names) in enumerate(tables):
        for tag, share in shares.items():
            expected = expected + share * table[names.index(tag.split("_")[part])]
    dense = raw.lm_head.dense
    assert torch.allclose(mean.model.lm_head.dense.bias, dense.bias + dense.weight @ expected, atol=1e-5)
    raw = LangSAMPForMaskedLM.from_pretrained(zero.folder / "checkpoint-4")
    assert torch.equal(zero.model.lm_head.dense.bias, raw.lm_head.dense.bias)
    assert PretrainSettings(output="x", lang_dropout=0.1).unknown_policy == "keep"
    assert PretrainSettings(output="x").unknown_policy == "fitted"


def test_language_dropout_can_begin_late(go):
    batches, always = Batches(), Batches()
    go(callbacks=[batches], lang_dropout=0.5, lang_dropout_from=0.75, training={"max_steps": 8})
    go("always", callbacks=[always], lang_dropout=0.5, training={"max_steps": 8})
    assert all((batch["lang_ids"] > 0).all() for batch in batches.seen[:6])
    for late, usual in zip(batches.seen[6:], always.seen[6:], strict=True):
        assert torch.equal(late["lang_ids"], usual["lang_ids"])
    assert (torch.cat([b["lang_ids"] for b in batches.seen[6:]]) == 0).any()
    with pytest.raises(ValueError, match="the masking"):
        go(lang_dropout=0.5, lang_dropout_from=0.5, training={"max_steps": 16})


@pytest.mark.parametrize("tables", [{}, {"lang": False}, {"script": False}])
def test_fitted_unknown_rows_lower_the_loss_without_ids_and_change_nothing_else(go, tables, caplog):
    quick = {"max_steps": 24, "save_steps": 24, "eval_strategy": "steps", "eval_steps": 24}
    with caplog.at_level(logging.INFO, "langsamp"):
        fitted = go("fitted", unknown="fitted", training=quick, **tables)
    mean = go("mean", unknown="mean", training=quick, **tables)
    told = next(m for m in caplog.messages if m.startswith("unknown rows fitted: "))
    before, after = (float(word) for word in re.findall(r"\d+\.\d+", told))
    assert after < before
    raw = LangSAMPForMaskedLM.from_pretrained(fitted.folder / "checkpoint-24")
    state, other = fitted.model.state_dict(), mean.model.state_dict()
    same = [name for name in state if "_embeddings.weight" not in name or name.startswith("roberta")]
    assert all(torch.equal(state[name], other[name]) for name in same if name != "lm_head.dense.bias")
    ids = {"input_ids": torch.tensor([[0, 10, 20, 2]]), "lang_ids": torch.tensor([2]), "script_ids": torch.tensor([1])}
    with torch.no_grad():  # what is known is predicted as before: folding takes the rows' new zero point along
        torch.testing.assert_close(fitted.model(**ids).logits, raw.eval()(**ids).logits, atol=2e-5, rtol=0)


def test_without_room_for_the_fit_the_unknown_rows_are_the_mean_and_the_model_is_not_lost(go, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    mean = go("mean", unknown="mean").model.state_dict()
    monkeypatch.setattr("langsamp.train.unknown.fit_rows", full)
    kept = go("kept").model.state_dict()
    assert all(torch.equal(kept[name], mean[name]) for name in mean)
    assert "no room on cpu to fit the unknown rows: they are the mean" in caplog.text


def test_bf16_of_one_run_does_not_reach_the_next(go):
    """transformers 4 leaves the precision in the environment, where every later run of the process would find it."""
    once = go("once", unknown="keep").model.state_dict()
    go("bf16", training={"bf16": True})
    again = go("again", unknown="keep").model.state_dict()
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_best_model_cannot_be_chosen_without_held_out_blocks(go, caplog):
    """That is told at once, not at the first evaluation of a long run; a run that chooses none goes on without."""
    training = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    with pytest.raises(ValueError, match=r"no held-out blocks \(langsamp prepare --heldout\), by which the best model"):
        go(heldout_blocks=0, training={**training, "load_best_model_at_end": True})
    assert go(heldout_blocks=0, training=training).heldout == []
    assert "no held-out loss" in caplog.text


def test_language_dropout_reaches_the_unknown_row(go):
    batches = Batches()
    go(callbacks=[batches], lang_dropout=0.5, training={"max_steps": 8})
    ids = torch.cat([batch["lang_ids"] for batch in batches.seen])
    assert 0.2 < float((ids == 0).float().mean()) < 0.8


def test_non_finite_loss_stops_with_step_mix_and_last_good_checkpoint(go):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                model.lm_head.decoder.bias.data[5] = float("nan")

    with pytest.raises(
        NonFiniteError, match=r"the loss is nan in step 4; .*[a-z]{3}_[A-Z][a-z]{3} \d.*checkpoint-2\."
    ) as error:
        go(callbacks=[Poison()], training={"max_steps": 6})
    run = Path(str(error.value).split("last good checkpoint is ")[1].split(". Lower")[0]).parent
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-2"]
    assert not (run / "model.safetensors").exists()
    result = go(training={"max_steps": 6})
    assert result.losses[-1][0] == 6


def test_non_finite_gradient_stops_before_the_step(go):
    class Poison(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.roberta.embeddings.LayerNorm.weight.register_hook(lambda grad: grad * float("inf"))

    with pytest.raises(NonFiniteError, match=r"gradient norm is (nan|inf) in step 1; .*none yet"):
        go(callbacks=[Poison()])


def test_broken_weights_are_never_saved(go):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                model.lang_embeddings.weight.data[1, 0] = float("inf")

    with pytest.raises(NonFiniteError, match=r"weight lang_embeddings.weight \(1 in all\) .* none yet"):
        go(callbacks=[Poison()])


def test_a_second_run_on_the_folder_is_refused(go, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".langsamp.lock"), pytest.raises(RuntimeError, match="another run is training in"):
        go()
    assert go().losses


def test_a_finished_run_is_left_as_it_is_and_other_settings_are_refused(go):
    first = go()
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = go()
    assert again.losses == first.losses
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"learning_rate 0.01 then, 0.5 now"):
        go(training={"learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"checkpoint-4 is at step 4, beyond the 3 steps asked for"):
        go(training={"max_steps": 3})
    with pytest.raises(ValueError, match="would be mixed up"):
        go(resume="never")


def test_a_longer_run_that_is_killed_while_it_writes_its_model_is_not_finished(go, monkeypatch):
    """The manifest of the shorter one is there already."""
    from langsamp.train import pretrain

    go()
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "write_manifest", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(training={"max_steps": 6})
    assert verify_manifest(go(training={"max_steps": 6}).folder) == []


def test_things_that_do_not_belong_together(go, tiny_model_dir, small_store, tmp_path):
    with pytest.raises(ValueError, match="no store to train on"):
        go(store=None)
    with pytest.raises(ValueError, match="no model to start from"):
        go(base=None)
    tokenizer = LangSAMPTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.add_tokens(["neu"])
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="cut with another tokenizer"):
        go(tokenizer=str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match=r"no store\.json"):
        pretrain(PretrainSettings(output=str(tmp_path / "x"), base=str(tiny_model_dir), store=str(tmp_path)), QUICK)


# -- publishing --


def test_every_nth_save_is_published_and_a_dead_hub_does_not_stop_training(go, monkeypatch, caplog):
    from langsamp.train.saves import publisher

    monkeypatch.setattr(publisher.Publisher.__init__, "__defaults__", (1, 0.01, 0.02))
    up, arrived = threading.Event(), []

    def publish(folder, step):
        if not up.is_set():
            raise ConnectionError("the Hub is down")
        assert verify_manifest(folder) == []
        arrived.append((folder.name, step))

    with caplog.at_level(logging.WARNING, "langsamp"):
        result = go(publish=publish, hub_every=2, training={"max_steps": 8, "save_total_limit": 1})
    assert arrived == []
    assert result.unsent == [4, 8]  # every second of the saves at 2, 4, 6, 8; 4 was not pruned
    assert "could not be pushed (steps 4, 8; last error: the Hub is down)" in caplog.text
    assert {path.name for path in checkpoints.checkpoints(result.folder)} == {"checkpoint-4", "checkpoint-8"}
    up.set()
    assert go(publish=publish, hub_every=2, training={"max_steps": 8, "save_total_limit": 1}).unsent == []
    assert arrived == [("checkpoint-4", 4), ("checkpoint-8", 8)]


def test_a_hub_that_comes_back_gets_everything_once(go, monkeypatch):
    from langsamp.train.saves import publisher

    monkeypatch.setattr(publisher.Publisher.__init__, "__defaults__", (1, 0.01, 0.02))
    calls = []

    def publish(folder, step):
        calls.append(step)
        if len(calls) < 4:
            raise OSError("503")

    result = go(publish=publish)
    assert result.unsent in ([], [2, 4], [4])
    assert sorted(set(calls)) in ([2], [2, 4])
    go(publish=publish)
    assert json.loads((result.folder / "published.json").read_text()) == {"steps": [2, 4]}
    assert calls.count(4) == 1


def test_the_last_save_is_sent_although_it_comes_before_its_turn(go, monkeypatch):
    """Five steps, a save every two: the third save is the end of the run, and 5 is no multiple of 2."""
    from langsamp.train.saves import publisher

    monkeypatch.setattr(publisher.Publisher.__init__, "__defaults__", (1, 0.01, 0.02))

    def refuse(folder, step):
        raise OSError("503")

    assert go(publish=refuse, training={"max_steps": 5}).unsent == [2, 4, 5]
    arrived = []
    assert go(publish=lambda folder, step: arrived.append(step), training={"max_steps": 5}).unsent == []
    assert arrived == [2, 4, 5]


def test_the_end_of_a_run_waits_for_a_slow_push(tmp_path):
    from langsamp.train.saves.publisher import Publisher

    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    arrived = []
    publisher = Publisher(lambda folder, step: time.sleep(0.3) or arrived.append(step), tmp_path)
    args = training_arguments(tmp_path, {**QUICK, "save_steps": 2})
    publisher.start(args, 4)
    assert publisher.close() == []
    assert arrived == [2, 4]
    assert Publisher.close.__defaults__ is not None
    assert Publisher.close.__defaults__[0] >= 3600  # gigabytes on a common line


def test_a_deleted_checkpoint_does_not_keep_the_others_from_the_hub(tmp_path, caplog):
    from langsamp.train.saves.publisher import Publisher

    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-4").mkdir()
    arrived, reached, go_on = [], threading.Event(), threading.Event()

    def publish(folder, step):
        reached.set()
        assert go_on.wait(30)
        if not folder.is_dir():
            raise FileNotFoundError(folder)
        arrived.append(step)

    publisher = Publisher(publish, tmp_path, pause=0.01)
    publisher.start(training_arguments(tmp_path, {**QUICK, "save_steps": 2}), 4)
    assert reached.wait(30)
    (tmp_path / "checkpoint-2").rmdir()
    go_on.set()
    assert publisher.close() == []
    assert arrived == [4]
    assert "checkpoint-2 is gone" in caplog.text


@pytest.mark.parametrize("content", ["", "[1]", '{"ste'])
def test_a_damaged_note_of_what_was_sent_is_named(tmp_path, content):
    from langsamp.train.saves import publisher

    (tmp_path / publisher.SENT).write_text(content)
    with pytest.raises(ValueError, match=r"published\.json"):
        publisher.Publisher(lambda *args: None, tmp_path).start(SimpleNamespace(), 4)


def test_a_run_begun_anew_sends_its_own_checkpoints(go):
    first, second = [], []
    folder = go(publish=lambda folder, step: first.append(step)).folder
    for path in checkpoints.checkpoints(folder):
        shutil.rmtree(path)
    again = go(publish=lambda folder, step: second.append(step), resume="never", training={"learning_rate": 1e-3})
    assert (first, second, again.unsent) == ([2, 4], [2, 4], [])


def test_pushing_knows_the_output_folder_by_either_name(monkeypatch, tmp_path):
    """``--output_dir`` is TrainingArguments' name for ``--output``; it used to fail after the training."""
    import langsamp.hub.documents
    import langsamp.hub.push
    import langsamp.train.cli
    from langsamp.cli import build_parser, run_train

    pushed = []
    monkeypatch.setattr(langsamp.train.cli, "run_train", lambda *args, **kwargs: 0)
    monkeypatch.setattr(langsamp.hub.documents, "complete", lambda folder, repo: None)
    monkeypatch.setattr(
        langsamp.hub.push,
        "push",
        lambda folder, repo, **kwargs: pushed.append((folder, repo)) or SimpleNamespace(url=""),
    )
    for option in ("--output", "--output_dir"):
        line = ["train", option, str(tmp_path), "--push_to_hub", "true", "--hub_model_id", "user/x"]
        assert run_train(build_parser().parse_args(line)) == 0
    assert pushed == [(str(tmp_path), "user/x")] * 2


# -- settings --


@pytest.mark.parametrize("name", ["paper", "low_resource", "tiny"])
def test_recipes_are_valid_and_say_why(name, tmp_path):
    path = RECIPES / f"{name}.yaml"
    settings, training = split(read_recipe(path), name)
    training_arguments(tmp_path, {**training, "fp16": False, "bf16": False})
    assert settings.output.startswith("runs/")
    assert path.read_text().count("#") >= 8


def test_paper_recipe_is_the_papers(tmp_path):
    settings, training = split(read_recipe(RECIPES / "paper.yaml"), "paper")
    assert 4 * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] * 512 == 524_288
    assert (training["learning_rate"], training["weight_decay"], training["warmup_steps"]) == (5e-5, 0, 0)
    assert (settings.alpha, settings.mlm_probability, settings.table_init, settings.new_rows) == (
        0.3,
        0.15,
        0.02,
        "random",
    )


def test_recipe_numbers_dashes_and_errors(tmp_path):
    def recipe(text):
        (tmp_path / "r.yaml").write_text(text)
        return read_recipe(tmp_path / "r.yaml")

    values = recipe("output: x\nlearning-rate: 5e-5\ntable_lr: 1E-3\nmax_steps: 10\n")
    assert values == {"output": "x", "learning_rate": 5e-5, "table_lr": 1e-3, "max_steps": 10}
    with pytest.raises(ValueError, match=r"no setting 'leaning_rate'; nearest: learning_rate"):
        recipe("leaning_rate: 1")
    with pytest.raises(ValueError, match="'seed' is given twice"):
        recipe("seed: 1\nseed: 2")
    for text in ("- a\n", "a", ""):
        with pytest.raises(ValueError, match="must be a mapping"):
            recipe(text)
    with pytest.raises(ValueError, match=r"r\.yaml"):
        recipe("a: [")
    with pytest.raises(ValueError, match=r"r\.yaml"):
        recipe("!!python/object/apply:os.system ['true']")
    with pytest.raises(FileNotFoundError, match=r"no recipe"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="names no output folder"):
        split({"max_steps": 1}, "the command line")
    with pytest.raises(ValueError, match="here it is --resume"):
        split({"output": "x", "resume_from_checkpoint": "y"}, "the command line")


@pytest.mark.parametrize(
    "line",
    [
        "alpha: high", "alpha:", "mlm_probability: 15%", "hub_every: two", "max_epochs: auto", "lang_dropout: [0.1]",
        "lang_dropout: {a: 0.1}", "output: &a [*a]", "max_steps: many", "max_steps: 1.5", "max_steps: true",
        "bf16: perhaps", "eval_strategy: sometimes", "allow_changed: [[corpus]]", "logging_steps: []", "seed: .inf",
    ],
)  # fmt: skip
def test_a_recipe_with_a_value_of_the_wrong_kind_names_it(line, tmp_path):
    (tmp_path / "r.yaml").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"r\.yaml: .*\b{line.split(':')[0]}\b") as error:
        read_recipe(tmp_path / "r.yaml")
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_recipe_values_are_read_as_the_command_line_reads_them(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "max_steps: 1e4\nlearning_rate: 1\nlang: no\nallow_changed: [batch, seed]\nmax_epochs:\n"
        "alpha_schedule: ['10:0.5']\nfsdp_config: {version: 1}\noutput: 2024-01-01\nlr_scheduler_type: cosine\n"
    )
    assert read_recipe(tmp_path / "r.yaml") == {
        "max_steps": 10_000, "learning_rate": 1.0, "lang": False, "allow_changed": ["batch", "seed"],
        "max_epochs": None, "alpha_schedule": ["10:0.5"], "fsdp_config": {"version": 1}, "output": "2024-01-01",
        "lr_scheduler_type": "cosine",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "? " * 40 + "a\n",  # used to take 2^40 steps
        "{" * 3000 + "}" * 3000,
        "[" * 3000,
        "? [a]\n: b\n",
        "a: &a {max_steps: 1}\n<<: [*a, *a]\n",
        "!!timestamp x: 1",
        "max_steps: !!timestamp x",
        "max_steps: !!bool x",
        "max_steps: " + "9" * 5000,
        "\0",
    ],
)
def test_hostile_recipes_are_refused_at_once(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")
    assert time.monotonic() - started < 5


def test_python_settings_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no setting 'max_step'; nearest: max_steps"):
        training_arguments(tmp_path, {"max_step": 1})
    for wrong in (
        {"lang_dropout": 1.5},
        {"new_rows": "zero"},
        {"unknown": "what"},
        {"hub_every": 0},
        {"allow_changed": ["weather"]},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PretrainSettings(output="x", **wrong)
    with pytest.raises(ValueError, match="STEP:ALPHA"):
        PretrainSettings(output="x", alpha_schedule=["0.5"]).sampling(["deu_Latn"], 4, 10)
    rule = PretrainSettings(output="x", alpha=0.7, alpha_schedule=["10:0.5", "20:0.3"]).sampling(["deu_Latn"], 4, 30)
    assert rule.schedule == ((40, 0.5), (80, 0.3))


def test_one_process_of_a_launcher_that_was_asked_for_more_is_refused(monkeypatch, tmp_path):
    """``accelerate launch --cpu --num_processes 2`` starts one process, with these variables."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    training_arguments(tmp_path, {**QUICK})
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match=r"has started one, .*torchrun --nproc_per_node N"):
        training_arguments(tmp_path, {**QUICK})


def test_training_arguments_can_be_an_object_and_stay_the_callers(tmp_path, small_store, tiny_xlmr_dir):
    from transformers import TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path / "elsewhere"), report_to="none", save_total_limit=1, **QUICK)
    for name in ("a", "b"):
        result = pretrain(
            PretrainSettings(output=str(tmp_path / name), base=str(tiny_xlmr_dir)), args, store=small_store
        )
        assert [path.name for path in checkpoints.checkpoints(result.folder)] == ["checkpoint-4"]
    assert args.save_total_limit == 1
    assert not (tmp_path / "elsewhere").exists()


def test_steps_follow_from_epochs(go, small_store):
    total = sum(small_store.counts.values())
    result = go(training={"max_steps": -1, "num_train_epochs": 0.5, "per_device_train_batch_size": 8})
    assert result.facts.steps == -(-total // 16)


def test_command_line_over_recipe(tmp_path):
    import argparse

    from langsamp.train.cli import COMMANDS

    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump({"output": "a", "learning_rate": 1e-3, "lang": True, "max_steps": 5})
    )
    parser = argparse.ArgumentParser()
    COMMANDS["train"][1](parser)
    given = ["--learning-rate", "2e-3", "--no-lang", "--output", "b", "--lang_dropout", "0.1"]
    values, source = train_values(parser.parse_args([str(tmp_path / "r.yaml"), *given]))
    assert values == {"output": "b", "learning_rate": 2e-3, "lang": False, "max_steps": 5, "lang_dropout": 0.1}
    assert "r.yaml" in source


def test_options_that_take_away_say_so(capsys):
    import argparse

    from langsamp.train.settings import option_groups

    actions = {name: action for group in option_groups() for action in group._actions for name in action.option_strings}
    assert isinstance(actions["--no-lang"], argparse.Action)
    assert actions["--no-lang"].help == f"not: {actions['--lang'].help}"


def test_unknown_option_names_the_nearest(capsys):
    import argparse

    from langsamp.train.cli import COMMANDS

    parser = argparse.ArgumentParser(prog="langsamp train")
    COMMANDS["train"][1](parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--lerning-rate=1"])
    assert stop.value.code == 2
    assert "there is no option --lerning-rate; nearest: --learning-rate" in capsys.readouterr().err
