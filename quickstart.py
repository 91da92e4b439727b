"""The main job from beginning to end on the embedded corpus: text, tokenizer, two models, evaluation, report, card.

``langsamp quickstart`` composes what train, eval and hub offer, at a size that two CPU cores finish in minutes, or with
``--base`` from an encoder that there is. Every number it shows is measured on the spot; called again on the same
folder, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from langsamp.core.compute.crew import Crew, Job, Machine, visible_cards
from langsamp.core.compute.kernels import usable_cpus
from langsamp.core.facts import FACTS
from langsamp.core.files import atomic_write
from langsamp.core.model.config import read_config
from langsamp.core.model.masking import IGNORED, Masking
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.runtime import pick_device, resolve_model
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import rundir
from langsamp.eval.results.compare_runs import write_comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.plots import draw
from langsamp.eval.results.records import RESULTS
from langsamp.eval.results.report.report import render
from langsamp.eval.run import run
from langsamp.eval.task import Context, TaskOptions
from langsamp.hub.documents import complete
from langsamp.quickstart_summary import ask, fill, summary
from langsamp.train.blocks.prepare import open_tokenizer, prepare
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.start import starting_model
from langsamp.train.text import cldr
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


@dataclass(frozen=True)
class Size:
    """How large the small models are and how long they train; the defaults fit into four minutes on two cores.

    With a ``base`` the models are as large as that, and the first three are not used.
    """

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
    base: str | None = None  # folder or Hub id of the encoder to start from; None: a new one

    @classmethod
    def from_base(cls, base: str) -> Size:
        """What suits an encoder that knows much already: the rate of ``langsamp train``, few steps of longer blocks."""
        return cls(base=base, block=32, batch=32, steps=400, learning_rate=5e-5)


def quickstart(
    output: str | os.PathLike[str], push_to_hub: str | None = None, size: Size | None = None, progress: bool = True
) -> Path:
    """Make, measure and show a small LangSAMP beside its baseline.

    Args:
        output: folder for everything; ``output/langsamp`` is the checkpoint, ``output/report.html`` the report.
        push_to_hub: ``user/name`` to push the checkpoint to at the end.
        size: how large and how long; by default four minutes on two CPU cores, from another ``base`` what that takes.
        progress: show a progress bar for the stages.

    Returns:
        The path of the report.

    Raises:
        ValueError: the folder holds a quickstart of another size, or the base is of no family that LangSAMP knows or
            has no mask token.
        FileNotFoundError: there is no such base, or it has no tokenizer that can be read.
    """
    folder, size = Path(output), size or Size()
    start = _find_start(folder, size)
    _check_size(folder, size)
    stages = _Stages(progress)
    languages = list(size.languages)
    with stages("corpus: phrases of the Unicode CLDR"):
        if not (folder / "data" / "done").exists():  # those that no model sees in training
            cldr.write_phrases(folder / "data" / "cldr", "test", languages)
            atomic_write(folder / "data" / "done", "")
    with stages("start: " + (size.base or "a Unigram vocabulary and a small encoder")):
        if size.base is None:
            _make_start(Path(start), size, languages)
        elif not (folder / "langsamp" / FACTS).exists():
            stages.say(_how_long(start, size))
    with stages("store: blocks of tokens"):
        corpus = open_corpus("cldr", languages)
        prepare(corpus, open_tokenizer(start), folder / "store", size.block, num_proc=1, progress=False)
    # small products gain little from more cores: two processes with half of them each get nearly twice as much done
    machine = Machine(min(len(MODELS), len(visible_cards()) or usable_cpus()))
    with closing(Crew(machine, partial(_Work, folder, size, start, progress))) as crew:
        with stages(f"training both: {size.steps} steps each"):
            _both(crew, "train")
        with stages("evaluating both"):
            _both(crew, "measure")
    with stages("report, plots and model card"):
        measured = _publish(folder, push_to_hub, None if size.base else "apache-2.0")
    with stages("held-out phrases with a word masked"):
        shown, asked = ask(folder, languages)
    with stages("reload in a fresh process through both doors"):
        doors, filled = fill(folder / "langsamp", shown)
    if push_to_hub:
        from langsamp.hub.push import push

        with stages(f"pushing to {push_to_hub}"):
            push(folder / "langsamp", push_to_hub)
    text = summary(folder, measured, size.base, asked, doors, filled, stages.seconds)
    text += f"Pushed to {push_to_hub}." if push_to_hub else f"Publish: `langsamp push {folder / 'langsamp'} USER/NAME`."
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
        self.say(f"{name} ({time.monotonic() - start:.0f} s)")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self.bar.disable:
            tqdm.write(f"  {text}", file=sys.stderr)

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


def _find_start(folder: Path, size: Size) -> str:
    """What both trainings start from, as ``langsamp train --base`` takes it."""
    if size.base is None:
        return str(folder / "start")
    source = resolve_model(size.base)
    read_config(source.path)
    Masking(load_tokenizer(source.path))  # what cannot be trained is refused before anything is written
    return f"{source.name}@{source.revision}" if source.revision else str(source.path)


def _make_start(start: Path, size: Size, languages: list[str]) -> None:
    """A stock XLM-R with random weights and a vocabulary of its own."""
    if (start / "model.safetensors").exists():
        return
    new_tokenizer({language: cldr.documents(language) for language in languages}, size.vocabulary, start)
    new_model(start, size.hidden, size.layers, size.seed)


def _how_long(start: str, size: Size) -> str:
    """What the trainings will take on this machine, by a step of one of them; the fast step is left out of it."""
    model, _ = starting_model(start, size.languages)
    optimizer = torch.optim.AdamW(model.to(pick_device()).parameters())  # type: ignore[arg-type]
    ids = torch.randint(model.config.vocab_size, (size.batch, size.block), device=model.device)
    labels = ids.where(torch.rand(ids.shape, device=ids.device) < size.masked, IGNORED)
    for _ in range(2):  # the first one is slow
        begun = time.monotonic()
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        model.head_dense.weight.detach().sum().item()  # waits for a GPU
    seconds = time.monotonic() - begun
    return f"a step takes {seconds:.1f} s here, both trainings up to {2 * size.steps * seconds / 60:.0f} minutes"


def _both(crew: Crew, step: str) -> None:
    """Have a step of the work done for all models."""
    for _ in crew.results(Job(f"{step} {name}", name, step, (name,)) for name in MODELS):
        pass


@dataclass(frozen=True)
class _Work:
    """What is done for each model, in whatever process."""

    folder: Path
    size: Size
    start: str
    progress: bool

    def train(self, name: str) -> None:
        """Train one model: same start, same blocks, same masks in the same order; only the tables differ."""
        folder, size, tables = self.folder, self.size, MODELS[name]
        if (folder / name / FACTS).exists():
            return
        settings = PretrainSettings(
            output=str(folder / name),
            base=self.start,
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
            layers=None if self.size.base else "last",  # of so few
            options=TaskOptions(parallel="cldr", text="cldr", sentences=SENTENCES),
        )
        run(context, [*TASKS, *(["embedding-map"] if MODELS[name] else [])])
        shutil.copy(self.folder / name / FACTS, context.output)


def _publish(folder: Path, repo: str | None, license_name: str | None) -> Results:
    """Compare, draw, report, and complete the checkpoint: records of both, report, plots, card, handler, manifest."""
    results = folder / "results"
    measured = Results.of(rundir.load(results), "baseline")
    [found] = measured.comparisons
    write_comparison(found, folder / "comparison")
    atomic_write(folder / "report.html", render(measured, "LangSAMP quickstart"))
    both = (results / name / RESULTS for name in MODELS)  # the card shows the baseline beside it
    atomic_write(folder / RESULTS, "".join(path.read_text(encoding="utf-8") for path in both))
    draw(measured, folder / "plots")
    complete(folder / "langsamp", repo, folder, license_name)
    return measured
