"""What the quickstart tells at its end: the missing words that the models guess, whether both doors open, a summary."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Cell
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report.report import verdict
from langsamp.eval.results.stats import bootstrap_mean
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.text.cldr_masks import Question, guessed, questions

# fill-mask in six scripts: the first held-out phrase of the kind that there are most of, whatever the models make of it
EXAMPLES, KIND = ("eng_Latn", "rus_Cyrl", "ell_Grek", "hin_Deva", "kor_Hang", "hye_Armn"), "zone"
GUESSES = 3
ASKED = 10  # held-out phrases of each language with a word masked

_RELOAD = """
import json, sys
sys.modules["langsamp"] = None  # the folder must be complete by itself
import torch, transformers
from transformers import AutoModel, AutoTokenizer, pipeline
transformers.logging.set_verbosity_error()
folder, tags, phrases, guesses = json.loads(sys.argv[1])
hidden = []
for trust in (True, False):
    tok = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    model = AutoModel.from_pretrained(folder, trust_remote_code=trust).eval()
    batch = tok(["LangSAMP", *phrases], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden.append(model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state)
fill = pipeline("fill-mask", model=folder, trust_remote_code=True, top_k=guesses)
told = [fill(text, tokenizer_kwargs={"lang": tag}) for tag, text in zip(tags, phrases)]
words = [[[x["token_str"].strip() for x in top] for top in found] for found in (told, map(fill, phrases))]
print(json.dumps([torch.equal(*hidden), *words]))
"""


def fill(model: Path, shown: list[Question]) -> tuple[str, list[str]]:
    """Load the checkpoint as a stranger would, through both doors: how that went, and two lines for each mask."""
    tags, phrases = [question.language for question in shown], [question.text for question in shown]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RELOAD, json.dumps([str(model.resolve()), tags, phrases, GUESSES])],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the checkpoint {model} does not load in a fresh process: {done.stderr.strip()[-500:]}")
    equal, *words = json.loads(done.stdout.splitlines()[-1])
    lines = []
    for question, *both in zip(shown, *words):
        told, untold = (", ".join(f"*{word}*" if word == question.word else word for word in top) for top in both)
        lines.append(f"{question.language}: {question.text}  ({question.word})")
        lines.append(f"  told {told}; not told {untold}")
    return "bit-identical hidden states." if equal else "DIFFERENT hidden states; please report this.", lines


def ask(folder: Path, languages: list[str]) -> tuple[list[Question], list[str]]:
    """The examples to show, and sentences with the share of masked words among the first guesses over all languages."""
    tokenizer = LangSAMPTokenizer.from_pretrained(folder / "langsamp")
    every = {language: questions(language, tokenizer) for language in languages}
    shown = [next((q for q in every[tag] if q.kind == KIND), None) for tag in EXAMPLES if tag in every]
    drawn = [random.Random(tag).sample(own, min(ASKED, len(own))) for tag, own in every.items() if own]
    asked = [question for own in drawn for question in own]
    if not asked:
        return [], ["no word of any is a single piece of this vocabulary"]
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


SUMMARY = """
Made in {minutes:.1f} minutes:
  {model}      the checkpoint: weights, code, tokenizer, model card, records, plots
  {report}   tables and plots of everything below, one page, works offline
  {comparison}    each language, both models, differences

Measured (LangSAMP minus baseline; same start, data, order and seed; 95 % interval over languages):
  {measured}
  LangSAMP's masked-LM loss with {losses}.

Both doors: the encoder loaded with and without remote code gives {doors}
Held-out phrases with a common word masked: is it among the first {guesses} guesses?
  {asked}
The first that names a time zone, as most of them do, through the pipeline of transformers; * the word:
  {filled}

What this does not show: one seed and a {size} on short phrases, both models far from converged
and the baseline never told which language it reads. The intervals tell how far the result holds for other
languages, not for other seeds, sizes, text or longer training.

Next: train on your own text with `langsamp prepare` and `langsamp train` (README, section Train).
"""


def summary(
    folder: Path, measured: Results, base: str | None, asked: list[str], doors: str, filled: list[str], seconds: float
) -> str:
    """What was made, what was measured with which n, what it does not show, and what to do next.

    Args:
        folder: of the quickstart.
        measured: both models, the baseline first.
        base: the encoder it started from, None for a new one.
        asked: lines of :func:`ask`.
        doors, filled: of :func:`fill`.
        seconds: it took.
    """
    return SUMMARY.format(
        minutes=seconds / 60,
        model=folder / "langsamp",
        report=folder / "report.html",
        comparison=folder / "comparison",
        measured="\n  ".join(verdict(measured)[1:]),
        losses=_losses(measured),
        doors=doors,
        guesses=GUESSES,
        asked="\n  ".join(asked),
        filled="\n  ".join(filled),
        size="short run" if base else "very small encoder",
    )


def _losses(measured: Results) -> str:
    """What the ids are worth to LangSAMP's masked-LM loss."""
    told = []
    for metric, name in (("loss", "right"), ("loss_missing", "missing"), ("loss_wrong", "wrong")):
        _, mean = measured.means(Cell("lm", metric))[-1]
        told.append(f"{name} ids {catalog.metric(metric).text(mean.mean)}")
    return f"{', '.join(told)} (nats, mean over {mean.n} languages)"
