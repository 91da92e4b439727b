"""The main job from beginning to end on the embedded corpus: text, tokenizer, two models, evaluation, report, card.

``langsamp quickstart`` composes what train, eval and hub offer, at a size that two CPU cores finish in minutes. Every
number it shows is measured on the spot; called again on the same folder, it goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from langsamp.core.facts import FACTS
from langsamp.core.files import atomic_write
from langsamp.core.manifest import write_manifest
from langsamp.core.outputs import add_handler
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import catalog, rundir
from langsamp.eval.results.aggregate import Cell
from langsamp.eval.results.card.card import write_card
from langsamp.eval.results.compare_runs import write_comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.plots import draw
from langsamp.eval.results.report.report import render, verdict
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.train.blocks.prepare import open_tokenizer, prepare
from langsamp.train.blocks.store import BlockStore
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.text import cldr
from langsamp.train.text.open import open_corpus
from langsamp.train.vocab.new import new_tokenizer

logger = logging.getLogger(__name__)

MODELS = {"baseline": False, "langsamp": True}  # name -> with the two tables
TASKS = ("sr-cldr", "lm", "neutrality")
SENTENCES = 50  # phrases a language for the loss and for neutrality, whose cost grows with the square
EXAMPLES = ("eng_Latn", "rus_Cyrl", "hin_Deva", "ell_Grek", "kor_Hang", "hye_Armn")  # fill-mask in six scripts


@dataclass(frozen=True)
class Size:
    """How large the small models are and how long they train; the defaults fit into four minutes on two cores."""

    vocabulary: int = 12_000
    hidden: int = 128
    layers: int = 4
    block: int = 32  # tokens
    batch: int = 64  # blocks a step
    steps: int = 400
    learning_rate: float = 2e-3
    table_learning_rate: float = 2e-2  # a row is touched by its own language only: it needs larger steps
    seed: int = 42
    languages: tuple[str, ...] = ()  # empty: all


def quickstart(
    output: str | os.PathLike[str], push_to_hub: str | None = None, size: Size | None = None, progress: bool = True
) -> Path:
    """Make, measure and show a small LangSAMP beside its baseline.

    Args:
        output: folder for everything; ``output/langsamp`` is the checkpoint, ``output/report.html`` the report.
        push_to_hub: ``user/name`` to push the checkpoint to at the end.
        size: how large and how long; by default four minutes on two CPU cores.
        progress: show a progress bar for the stages.

    Returns:
        The path of the report.

    Raises:
        ValueError: the folder holds a quickstart of another size.
    """
    folder, size = Path(output), size or Size()
    _check_size(folder, size)
    stages = _Stages(progress)
    languages = list(size.languages) or cldr.languages()
    with stages("corpus: phrases of the Unicode CLDR"):
        _write_test_data(folder / "data", languages)
    with stages("tokenizer: a Unigram vocabulary"):
        _make_start(folder, size, languages)
    with stages("store: blocks of tokens"):
        tokenizer = open_tokenizer(folder / "start")
        corpus = open_corpus("cldr", languages)
        store = prepare(corpus, tokenizer, folder / "store", size.block, num_proc=1, progress=False)
    for name, tables in MODELS.items():
        with stages(f"training {name}: {size.steps} steps"):
            _train(folder, name, tables, store, size, progress)
    for name in MODELS:
        with stages(f"evaluating {name}"):
            _evaluate(folder, name)
    with stages("report, plots and model card"):
        measured = _publish(folder, push_to_hub)
    with stages("reload in a fresh process through both doors"):
        doors = _reload(folder / "langsamp")
    if push_to_hub:
        from langsamp.hub.push import push

        with stages(f"pushing to {push_to_hub}"):
            push(folder / "langsamp", push_to_hub)
    text = summary(folder, measured, doors, stages.seconds, push_to_hub)
    atomic_write(folder / "summary.txt", text + "\n")
    tqdm.write(text)
    return folder / "report.html"


class _Stages:
    """A bar over the stages; each says its name, and how long it took."""

    COUNT = 9

    def __init__(self, progress: bool) -> None:
        self.bar = tqdm(total=self.COUNT, desc="quickstart", unit="stage", disable=not progress)
        self.start = time.monotonic()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.bar.set_postfix_str(name)
        start = time.monotonic()
        yield
        self.bar.update()
        if not self.bar.disable:
            tqdm.write(f"  {name} ({time.monotonic() - start:.0f} s)", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """Wall-clock time so far."""
        self.bar.close()
        return time.monotonic() - self.start


def _check_size(folder: Path, size: Size) -> None:
    """Remember the size of the run; going on with another one would mix two runs."""
    path, wanted = folder / "size.json", json.dumps(size.__dict__, indent=1) + "\n"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(wanted):
        raise ValueError(f"{folder} holds a quickstart of another size; choose another --output or remove it.")
    atomic_write(path, wanted)


def _write_test_data(folder: Path, languages: list[str]) -> None:
    """The phrases of the test split, which no model sees in training, in the format of evaluation data."""
    if (folder / "done").exists():
        return
    cldr.write_phrases(folder / "cldr", "test", languages)
    atomic_write(folder / "done", "")


def _make_start(folder: Path, size: Size, languages: list[str]) -> None:
    """The model both trainings start from: a stock XLM-R with random weights and a vocabulary of its own."""
    start = folder / "start"
    if (start / "model.safetensors").exists():
        return
    new_tokenizer({language: cldr.documents(language) for language in languages}, size.vocabulary, start)
    config = XLMRobertaConfig(
        vocab_size=open_tokenizer(start).facts.vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 32,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    torch.manual_seed(size.seed)
    XLMRobertaForMaskedLM(config).save_pretrained(start)


def _train(folder: Path, name: str, tables: bool, store: BlockStore, size: Size, progress: bool) -> None:
    """Train one model: same start, same blocks, same masks in the same order; only the tables differ."""
    if (folder / name / FACTS).exists():
        return
    settings = PretrainSettings(
        output=str(folder / name),
        base=str(folder / "start"),
        lang=tables,
        script=tables,
        table_lr=size.table_learning_rate,
    )
    pretrain(
        settings,
        {
            "max_steps": size.steps,
            "per_device_train_batch_size": size.batch,
            "learning_rate": size.learning_rate,
            "warmup_steps": size.steps // 10,
            "weight_decay": 0.01,
            "lr_scheduler_type": "linear",
            "save_steps": max(1, size.steps // 2),
            "save_total_limit": 1,
            "logging_steps": max(1, size.steps // 20),
            "seed": size.seed,
            "disable_tqdm": not progress,
        },
        store=store,
    )


def _evaluate(folder: Path, name: str) -> None:
    """Retrieval, masked-LM loss, neutrality and (with tables) the map of the rows; records into results/<name>."""
    context = Context(
        source=resolve_model(folder / name),
        data=EvalData(folder / "data"),
        output=folder / "results" / name,
        progress=False,
        options={"parallel": "cldr", "text": "cldr", "sentences": SENTENCES},
    )
    run(replace(context, layers="last"), TASKS[:1])  # of so few layers the last
    run(context, TASKS[1:])
    if MODELS[name]:
        run(context, ["embedding-map"])
    shutil.copy(folder / name / FACTS, context.output)


def _publish(folder: Path, repo: str | None) -> Results:
    """Compare, draw, report, and complete the checkpoint: records, plots, card, handler, manifest."""
    results = folder / "results"
    measured = Results.of(rundir.load(results), "baseline")
    [found] = measured.comparisons
    write_comparison(found, folder / "comparison")
    atomic_write(folder / "report.html", render(measured, "LangSAMP quickstart"))
    model = folder / "langsamp"
    both = (results / name / "results.jsonl" for name in MODELS)  # the card shows the baseline beside it
    atomic_write(model / "results.jsonl", "".join(path.read_text(encoding="utf-8") for path in both))
    draw(measured, model / "plots")
    add_handler(model)
    write_card(model, repo=repo, license="apache-2.0", model="langsamp")
    write_manifest(model, [str(path.relative_to(model)) for path in _checkpoint_files(model)])
    return measured


def _checkpoint_files(model: Path) -> list[Path]:
    """The files of the finished checkpoint, without trainer state and hidden files."""
    inside = (path for path in model.rglob("*") if path.is_file())
    return [
        path for path in inside if not any(p.startswith((".", "checkpoint-")) for p in path.relative_to(model).parts)
    ]


_RELOAD = """
import json, sys
sys.modules["langsamp"] = None  # the folder must be complete by itself
import torch, transformers
from transformers import AutoModel, AutoTokenizer, pipeline
transformers.logging.set_verbosity_error()
folder, tags, phrases = json.loads(sys.argv[1])
hidden = []
for trust in (True, False):
    tok = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    model = AutoModel.from_pretrained(folder, trust_remote_code=trust).eval()
    batch = tok(phrases, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden.append(model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state)
fill = pipeline("fill-mask", model=folder, trust_remote_code=True, top_k=3)
examples = [[x["token_str"] for x in fill(text, tokenizer_kwargs={"lang": tag})] for tag, text in zip(tags, phrases)]
print(json.dumps({"equal": bool(torch.equal(*hidden)), "examples": examples}))
"""


def _reload(model: Path) -> dict[str, Any]:
    """Load the checkpoint as a stranger would, with and without its code, and fill a mask in six scripts."""
    tags, phrases, answers = zip(*_masked_phrases())
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RELOAD, json.dumps([str(model.resolve()), tags, phrases])],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the checkpoint {model} does not load in a fresh process: {done.stderr.strip()[-500:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    return {**told, "rows": list(zip(tags, phrases, answers, told["examples"]))}


def _masked_phrases() -> list[tuple[str, str, str]]:
    """(language, phrase with one word masked, the word) from the held-out dates of six languages in six scripts."""
    found = []
    for language in EXAMPLES:
        texts = cldr.texts(language)
        date = next(key for key in texts if key.startswith("date/") and cldr.split_of(key) == "test")
        word = max(texts[date].split(), key=lambda word: (word.isalpha(), len(word)))
        found.append((language, texts[date].replace(word, "<mask>", 1), word))
    return found


def summary(folder: Path, measured: Results, doors: dict[str, Any], seconds: float, pushed: str | None = None) -> str:
    """What was made, what was measured with which n, what it does not show, and what to do next."""
    lines = [
        "",
        f"Made in {seconds / 60:.1f} minutes:",
        f"  {folder / 'langsamp'}      the checkpoint: weights, code, tokenizer, model card, records, plots",
        f"  {folder / 'report.html'}   tables and plots of everything below, one page, works offline",
        f"  {folder / 'comparison'}    each language, both models, differences",
        "",
        "Measured (LangSAMP minus baseline; same start, data, order and seed; 95 % interval over languages):",
        *(f"  {sentence}" for sentence in verdict(measured)[1:]),
        f"  LangSAMP's masked-LM loss with {_losses(measured)}.",
        "",
        "Both doors: the encoder loaded with and without remote code gives "
        + ("bit-identical hidden states." if doors["equal"] else "DIFFERENT hidden states; please report this."),
        "Held-out dates with a word masked, and what the model puts there:",
        *(f"  {tag}: {text}  ({answer}) -> {', '.join(top)}" for tag, text, answer, top in doors["rows"]),
        "",
        "What this does not show: one seed and a very small encoder on short phrases, both models far from converged",
        "and the baseline never told which language it reads. The intervals tell how far the result holds for other",
        "languages, not for other seeds, sizes, text or longer training.",
        "",
        "Next: train on your own text with `langsamp prepare` and `langsamp train` (README, section Train).",
        *(
            [f"Pushed to {pushed}."]
            if pushed
            else ["Publish: `langsamp push " + str(folder / "langsamp") + " USER/NAME`."]
        ),
    ]
    return "\n".join(lines)


def _losses(measured: Results) -> str:
    """What the ids are worth to LangSAMP's masked-LM loss: means over languages."""
    told = []
    for metric, name in (("loss", "right"), ("loss_missing", "missing"), ("loss_wrong", "wrong")):
        _, mean = measured.means(Cell("lm", metric))[-1]
        told.append(f"{name} ids {catalog.metric(metric).text(mean.mean)}")
    return f"{', '.join(told)} (nats, mean over {mean.n} languages)"
