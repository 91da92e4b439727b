"""The main job from beginning to end on the embedded corpus: text, tokenizer, two models, evaluation, report, card.

``langsamp quickstart`` composes what train, eval and hub offer, at a size that two CPU cores finish in minutes. Every
number it shows is measured on the spot; called again on the same folder, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from langsamp.core.compute.crew import Crew, Job, Machine, visible_cards
from langsamp.core.compute.kernels import usable_cpus
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
from langsamp.eval.results.stats import bootstrap_mean
from langsamp.eval.run import run
from langsamp.eval.task import Context, TaskOptions
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.blocks.prepare import open_tokenizer, prepare
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.text import cldr
from langsamp.train.text.cldr_masks import Question, guessed, questions
from langsamp.train.text.open import open_corpus
from langsamp.train.vocab.new import new_model, new_tokenizer

MODELS = {"baseline": False, "langsamp": True}  # name -> with the two tables
LANGUAGES = (  # large and small ones in 19 scripts: so few that all of their text comes within minutes
    "amh_Ethi ara_Arab ben_Beng bul_Cyrl ces_Latn cym_Latn deu_Latn ell_Grek eng_Latn est_Latn eus_Latn fas_Arab "
    "fin_Latn fra_Latn guj_Gujr heb_Hebr hin_Deva hun_Latn hye_Armn ind_Latn ita_Latn jpn_Jpan kan_Knda kat_Geor "
    "kaz_Cyrl kor_Hang lit_Latn mal_Mlym mar_Deva nep_Deva nld_Latn pol_Latn por_Latn ron_Latn rus_Cyrl spa_Latn "
    "srp_Cyrl swa_Latn swe_Latn tam_Taml tel_Telu tha_Thai tur_Latn ukr_Cyrl urd_Arab vie_Latn yor_Latn zho_Hans "
    "zul_Latn"
)
TASKS = ("sr-cldr", "lm", "neutrality")
SENTENCES = 50  # phrases a language for the loss and for neutrality, whose cost grows with the square
# fill-mask in six scripts: the first held-out phrase of the kind that there are most of, whatever the models make of it
EXAMPLES, KIND = ("eng_Latn", "rus_Cyrl", "ell_Grek", "hin_Deva", "kor_Hang", "hye_Armn"), "zone"
GUESSES = 3
ASKED = 10  # held-out phrases of each language with a word masked


@dataclass(frozen=True)
class Size:
    """How large the small models are and how long they train; the defaults fit into four minutes on two cores."""

    vocabulary: int = 8_000
    hidden: int = 128
    layers: int = 2
    block: int = 16  # tokens, a phrase or two
    batch: int = 64  # blocks a step
    steps: int = 4_500
    masked: float = 0.3  # of the tokens: so short a run learns most from many predictions
    learning_rate: float = 3e-3
    table_learning_rate: float = 2e-2  # a row is touched by its own language only: it needs larger steps
    seed: int = 42
    languages: tuple[str, ...] = tuple(LANGUAGES.split())


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
    languages = list(size.languages)
    with stages("corpus: phrases of the Unicode CLDR"):
        _write_test_data(folder / "data", languages)
    with stages("tokenizer: a Unigram vocabulary"):
        _make_start(folder, size, languages)
    with stages("store: blocks of tokens"):
        tokenizer, corpus = open_tokenizer(folder / "start"), open_corpus("cldr", languages)
        prepare(corpus, tokenizer, folder / "store", size.block, num_proc=1, progress=False)
    with _workers(folder, size, progress) as both:
        with stages(f"training both: {size.steps} steps each"):
            both("train")
        with stages("evaluating both"):
            both("measure")
    with stages("report, plots and model card"):
        measured = _publish(folder, push_to_hub)
    with stages("held-out phrases with a word masked"):
        shown, asked = _ask(folder, languages)
    with stages("reload in a fresh process through both doors"):
        doors = _reload(folder / "langsamp", shown)
    if push_to_hub:
        from langsamp.hub.push import push

        with stages(f"pushing to {push_to_hub}"):
            push(folder / "langsamp", push_to_hub)
    text = summary(folder, measured, shown, asked, doors, stages.seconds, push_to_hub)
    atomic_write(folder / "summary.txt", text + "\n")
    tqdm.write(text)
    return folder / "report.html"


class _Stages:
    """A bar over the stages; each says its name, and how long it took."""

    COUNT = 8

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
    new_model(start, size.hidden, size.layers, size.seed)


@contextmanager
def _workers(folder: Path, size: Size, progress: bool) -> Iterator[Callable[[str], None]]:
    """Yields what does a step of the work for all models: on a CPU side by side with half of the cores each.

    Products as small as these gain little from more cores: two processes get nearly twice as much done.
    """
    alone = bool(visible_cards()) or usable_cpus() < len(MODELS)
    work = partial(_Work, folder, size, progress)
    crew = None if alone else Crew(Machine(len(MODELS)), work)

    def both(step: str) -> None:
        if crew is None:
            for name in MODELS:
                getattr(work(), step)(name)
        else:
            list(crew.results(Job(f"{step} {name}", name, step, (name,)) for name in MODELS))

    with closing(crew) if crew else nullcontext():
        yield both


@dataclass(frozen=True)
class _Work:
    """What is done for each model, in whatever process."""

    folder: Path
    size: Size
    progress: bool

    def train(self, name: str) -> None:
        """Train one model: same start, same blocks, same masks in the same order; only the tables differ."""
        folder, size, tables = self.folder, self.size, MODELS[name]
        if (folder / name / FACTS).exists():
            return
        settings = PretrainSettings(
            output=str(folder / name),
            base=str(folder / "start"),
            store=str(folder / "store"),
            lang=tables,
            script=tables,
            table_lr=size.table_learning_rate,
            mlm_probability=size.masked,
        )
        pretrain(
            settings,
            {
                "max_steps": size.steps,
                "per_device_train_batch_size": size.batch,
                "learning_rate": size.learning_rate,
                "adam_beta2": 0.99,  # a short run: the mean over the last 1,000 steps would be too old
                "warmup_steps": size.steps // 10,
                "weight_decay": 0.01,
                "lr_scheduler_type": "linear",
                "save_steps": max(1, size.steps // 2),
                "save_total_limit": 1,
                "logging_steps": max(1, size.steps // 20),
                "seed": size.seed,
                "disable_tqdm": not (self.progress and tables),  # one bar; the other model is beside it
            },
        )

    def measure(self, name: str) -> None:
        """Retrieval, masked-LM loss, neutrality and (with tables) the map of the rows; records into results/<name>."""
        context = Context(
            source=resolve_model(self.folder / name),
            data=EvalData(self.folder / "data"),
            output=self.folder / "results" / name,
            progress=False,
            layers="last",  # of so few
            options=TaskOptions(parallel="cldr", text="cldr", sentences=SENTENCES),
        )
        run(context, [*TASKS, *(["embedding-map"] if MODELS[name] else [])])
        shutil.copy(self.folder / name / FACTS, context.output)


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
told = [fill(text, tokenizer_kwargs={"lang": tag}) for tag, text in zip(tags, phrases)]
words = [[[x["token_str"].strip() for x in top] for top in found] for found in (told, map(fill, phrases))]
print(json.dumps({"equal": bool(torch.equal(*hidden)), "told": words[0], "untold": words[1]}))
"""


def _reload(model: Path, shown: list[Question]) -> dict[str, Any]:
    """Load the checkpoint as a stranger would, with and without its code, and fill a mask in six scripts."""
    tags, phrases = [question.language for question in shown], [question.text for question in shown]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RELOAD, json.dumps([str(model.resolve()), tags, phrases])],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the checkpoint {model} does not load in a fresh process: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ask(folder: Path, languages: list[str]) -> tuple[list[Question], list[str]]:
    """The examples to show, and sentences with the share of masked words among the first guesses over all languages."""
    tokenizer = LangSAMPTokenizer.from_pretrained(folder / "langsamp")
    every = {language: questions(language, tokenizer.get_vocab()) for language in languages}
    shown = [next((q for q in every[tag] if q.kind == KIND), None) for tag in EXAMPLES if tag in every]
    drawn = [random.Random(tag).sample(own, min(ASKED, len(own))) for tag, own in every.items() if own]
    asked = [question for own in drawn for question in own]
    ways = {"baseline": ("baseline", False), "LangSAMP not told": ("langsamp", False), "told": ("langsamp", True)}
    right = {way: guessed(folder / name, asked, told, GUESSES) for way, (name, told) in ways.items()}
    ends = np.cumsum([len(own) for own in drawn])[:-1]
    means = {way: np.array([part.mean() for part in np.split(values, ends)]) for way, values in right.items()}
    lines = [f"{len(asked):,} phrases in {len(drawn)} languages: " + ", ".join(
        f"{way} {100 * values.mean():.1f} %" for way, values in means.items()
    )]  # fmt: skip
    for other in ("baseline", "LangSAMP not told"):
        gain = bootstrap_mean(100 * (means["told"] - means[other]))
        bounds = "" if gain.low is None else f" [{gain.low:+.1f}, {gain.high:+.1f}]"
        lines.append(f"told minus {other}: {gain.value:+.1f}{bounds} points")
    return [question for question in shown if question], lines


def summary(
    folder: Path, measured: Results, shown: list[Question], asked: list[str], doors: dict[str, Any], seconds: float,
    pushed: str | None = None,
) -> str:  # fmt: skip
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
        f"Held-out phrases with a common word masked: is it among the first {GUESSES} guesses?",
        *(f"  {line}" for line in asked),
        "The first that names a time zone, as most of them do, through the pipeline of transformers; * the word:",
        *(line for question, *tops in zip(shown, doors["told"], doors["untold"]) for line in _shown(question, *tops)),
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


def _shown(question: Question, told: list[str], untold: list[str]) -> list[str]:
    """An example in two lines: the phrase, and the guesses with the language told and not told."""
    marked = [", ".join(f"*{w}*" if w == question.word else w for w in top) for top in (told, untold)]
    return [f"  {question.language}: {question.text}  ({question.word})", f"    told {marked[0]}; not told {marked[1]}"]


def _losses(measured: Results) -> str:
    """What the ids are worth to LangSAMP's masked-LM loss: means over languages."""
    told = []
    for metric, name in (("loss", "right"), ("loss_missing", "missing"), ("loss_wrong", "wrong")):
        _, mean = measured.means(Cell("lm", metric))[-1]
        told.append(f"{name} ids {catalog.metric(metric).text(mean.mean)}")
    return f"{', '.join(told)} (nats, mean over {mean.n} languages)"
