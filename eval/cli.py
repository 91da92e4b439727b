"""The commands `eval`, `compare` and `report` of the command line; heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from langsamp.core.loading import loading
from langsamp.eval.results.catalog import TASKS

FIRST_SEED = 42  # the official code's seeds are 42, 43, ... (paper notes, section 3.2)


def add_eval_arguments(parser: ArgumentParser) -> None:
    """Arguments of `langsamp eval`."""
    parser.add_argument("--model", required=True, help="folder or Hub id, with an optional @revision")
    parser.add_argument(
        "--tasks",
        required=True,
        help=f"comma-separated: {', '.join(name for name, task in TASKS.items() if task.run)}",
    )
    parser.add_argument("--output", required=True, help="run directory; a second run there computes what is missing")
    parser.add_argument("--data", help="folder with a sub-folder a task, or 'hub' (default: the Hub data sets)")
    parser.add_argument("--languages", nargs="+", metavar="LANG", help="only these (deu_Latn, deu, de)")
    parser.add_argument(
        "--layer",
        help="8, last, all, or several like 4,8 (default: the task's own; for retrieval the paper's, two thirds of the "
        "depth: 8 of 12, 15 of 22)",
    )
    parser.add_argument("--prefix", default="", help="text before each sentence in frozen tasks ('query: ' for e5)")
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help=f"fine-tuned tasks: N seeds from {FIRST_SEED} on (default: the paper's, 1 to 5 a task)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "tf32", "bfloat16"),
        default="float32",
        help="tf32 (CUDA cards) and bfloat16 are faster, not exact",
    )
    parser.add_argument(
        "--no-special-tokens",
        dest="special_tokens",
        action="store_false",
        help="leave <s> and </s> out of the mean (the paper's protocol has them in)",
    )
    _add_frozen_arguments(parser)
    add_training_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--devices", type=_positive, metavar="N", help="share the work among N CUDA cards (without a card: N processes)"
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="share the work among the nodes of a Ray cluster: auto (default), local, or ray://host:port",
    )
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars")


def _add_frozen_arguments(parser: ArgumentParser) -> None:
    """Arguments of the tasks that train nothing."""
    parser.add_argument("--csls", action="store_true", help="retrieval: also report CSLS-corrected accuracies")
    parser.add_argument(
        "--parallel",
        metavar="FOLDER",
        help="neutrality: sub-folder with sentences parallel by id (default: bible_retrieval, else sib200)",
    )
    parser.add_argument("--sentences", type=_positive, help="neutrality, lm: most sentences a language")
    parser.add_argument(
        "--text", metavar="FOLDER", help="lm: sub-folder with held-out text (default: lm, else mlm, else sib200)"
    )
    parser.add_argument(
        "--same-as",
        nargs="+",
        metavar="A=B",
        help="lm, donors: use the model's row of B for language A (arz=ara; swh and swa find each other without it)",
    )


def add_training_arguments(parser: ArgumentParser) -> None:
    """Arguments of the tasks that train something (taxi1500, sib200, ner, pos, donors)."""
    group = parser.add_argument_group("taxi1500, sib200, ner, pos, donors")
    group.add_argument("--train-language", default="eng_Latn", metavar="LANG", help="language to train on (eng_Latn)")
    group.add_argument(
        "--probe",
        action="store_true",
        help="taxi1500, sib200: logistic regression on frozen vectors, in seconds, instead of fine-tuning",
    )
    group.add_argument(
        "--max-steps",
        type=_positive,
        help="stop fine-tuning after so many updates; records are named like pos-200steps",
    )
    group.add_argument("--patience", type=_positive, help="stop after so many evaluations without a better dev score")
    group.add_argument("--target", metavar="LANG", help="donors: the language to find source languages for")
    group.add_argument("--sources", nargs="+", metavar="LANG", help="donors: candidate source languages (default: all)")
    group.add_argument(
        "--similarity",
        metavar="FILE",
        help="donors: a table of similarities between languages to "
        "rank by, too (.csv or .tsv, languages in the first row and column)",
    )


def run_eval(arguments: Namespace) -> int:
    """Run `langsamp eval`: prints one coverage line a task and where the records are."""
    from pathlib import Path

    with loading():
        from langsamp.core.language.languages import normalize_tag
        from langsamp.core.runtime import resolve_model
        from langsamp.eval.data.sets import EvalData
        from langsamp.eval.results.records import RESULTS
        from langsamp.eval.run import run
        from langsamp.eval.task import Context, TaskOptions
        from langsamp.eval.team import team

    context = Context(
        source=resolve_model(arguments.model),
        data=EvalData(arguments.data),
        output=Path(arguments.output),
        layers=arguments.layer,
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + arguments.seeds)) if arguments.seeds else None,
        train_language=normalize_tag(arguments.train_language),
        prefix=arguments.prefix,
        dtype=arguments.dtype,
        special_tokens=arguments.special_tokens,
        progress=arguments.progress,
        options=TaskOptions.of({name: value for name, value in vars(arguments).items() if name in TaskOptions.names()}),
    )
    tasks = [name.strip() for name in arguments.tasks.split(",") if name.strip()] or [arguments.tasks]
    with team(context, arguments.devices, arguments.ray) as crew:
        for coverage in run(context, tasks, arguments.languages, crew):
            print(coverage.line())
    if arguments.target and "donors" in tasks:
        from langsamp.eval.results.records import read
        from langsamp.eval.tasks.donors import ranking_table

        print("\n" + ranking_table(read(context.output), arguments.target) + "\n")
    print(f"records: {context.output / RESULTS}")
    return 0


def add_compare_arguments(parser: ArgumentParser) -> None:
    """Arguments of `langsamp compare`."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN_DIR",
        help="run directories; the first is the baseline, every other one is compared with it. "
        "RUN,RUN,RUN are replicates of one model (other training seeds)",
    )
    parser.add_argument("--output", required=True, help="folder for compare.md, compare.json, compare.tsv, compare.png")


def run_compare(arguments: Namespace) -> int:
    """Run `langsamp compare`: prints a sentence for each task."""
    from pathlib import Path

    from langsamp.eval.results.compare import contrary
    from langsamp.eval.results.compare_runs import compare_runs, left_out, write_comparison
    from langsamp.eval.results.plots import plot_comparison

    for folder, found in compare_runs(arguments.runs, Path(arguments.output)):
        path = write_comparison(found, folder)
        plot_comparison(found, folder / "compare.png")
        print(*(entry.sentence for entry in found if entry.headline), sep="\n")
        if against := contrary(found):
            print("What speaks against:", *(f"  {entry.sentence}" for entry in against), sep="\n")
        print(*left_out([entry for entry in found if entry.headline]), f"written: {path}", sep="\n")
    return 0


def add_report_arguments(parser: ArgumentParser) -> None:
    """Arguments of `langsamp report`."""
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directories, shown together")
    parser.add_argument("--output", required=True, metavar="FILE", help="the HTML page to write")
    parser.add_argument("--title", help="heading of the page (default: the models' names)")
    parser.add_argument("--baseline", metavar="MODEL", help="model the others are compared with (default: the first)")
    parser.add_argument("--plots", metavar="DIR", help="also write the plots for a model card as PNG files")


def run_report(arguments: Namespace) -> int:
    """Run `langsamp report`: prints the verdict and where the page is."""
    from langsamp.core.files import atomic_write
    from langsamp.eval.results import rundir
    from langsamp.eval.results.report.report import Results, render, verdict

    results = Results.of(rundir.load(arguments.runs), arguments.baseline)
    path = atomic_write(arguments.output, render(results, arguments.title))
    print(*verdict(results), f"report: {path}", sep="\n")
    if arguments.plots:
        from langsamp.eval.results.plots import draw

        for plot in draw(results, arguments.plots):
            print(f"plot: {plot}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


Command = tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]

COMMANDS: dict[str, Command] = {
    "eval": ("measure a model on tasks; records go to a run directory", add_eval_arguments, run_eval),
    "compare": ("compare models language by language, with intervals", add_compare_arguments, run_compare),
    "report": ("make one HTML page of a run directory", add_report_arguments, run_report),
}
