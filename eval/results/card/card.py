"""The model card: config, training facts, records and plots of a checkpoint folder, rendered to README.md.

Everything it states is read from the folder: config.json, the tokenizer, training.json (written by training),
results.jsonl (written by evaluation) and plots/*.png; each is optional. Text that a person writes between the
``write here`` markers survives every regeneration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from langsamp.core.facts import CARD, TrainingFacts
from langsamp.core.files import atomic_write
from langsamp.core.record import Record, protocol_layer
from langsamp.core.typed import from_json
from langsamp.eval.results import catalog, escape
from langsamp.eval.results.card import tables
from langsamp.eval.results.card.leaderboard import write_eval_results
from langsamp.eval.results.card.metadata import example, hub_language, metadata, task_of
from langsamp.eval.results.gather import Results
from langsamp.eval.results.records import RESULTS
from langsamp.eval.results.records import read as read_records
from langsamp.eval.results.rundir import Run
from langsamp.language_codes import UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT
from langsamp.safe_files import read_json

GENERATED = "<!-- card made by `langsamp`; only text between the markers below is kept when it is made again -->"
SLOTS = ("about", "limits", "notes")

_MARKER = re.compile(r"<!-- (begin|end) (\w+)(?:: write here)? -->")
# An absolute path of a Unix or Windows machine, or one below a home folder; not the path part of an URL.
_LOCAL_PATH = re.compile(r"(?<![\w/:.<])(?:~?/[\w.@+-]+(?:/[\w.@+-]+)+/?|~/[\w.@+-]+|[A-Za-z]:\\[\w.@+\\-]+)")
_FRONT = re.compile(r"\A\s*---\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_TRAINER_CARD = "This model card has been generated automatically according to the information the Trainer"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a card tells of config.json."""

    model_type: str | None = None
    architectures: list[str] | None = None
    languages: list[str] | None = None
    scripts: list[str] | None = None
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder says about itself."""

    folder: Path
    config: Config = field(default_factory=Config)
    training: TrainingFacts = field(default_factory=TrainingFacts)
    mask: str = "<mask>"
    records: Sequence[Record] = ()
    plots: Sequence[str] = ()

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read the folder.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a file is not what it should be.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no checkpoint folder {str(folder)!r} to write a card for.")
        tokenizer = _object(folder / "tokenizer_config.json")
        mask = tokenizer.get("mask_token") or "<mask>"
        drawn = {path.stem for path in (folder / "plots").glob("*.png")}
        order = [name for name in catalog.PICTURES if name in drawn]
        return cls(
            folder=folder,
            config=from_json(Config, _object(folder / "config.json"), folder / "config.json"),
            training=TrainingFacts.read(folder),
            mask=str(mask.get("content") if isinstance(mask, dict) else mask),
            records=read_records(folder) if (folder / RESULTS).is_file() else [],
            plots=[*order, *sorted(drawn - set(order))],
        )

    def names(self, kind: str) -> list[str]:
        """The config's languages or scripts without row 0."""
        return [name for name in getattr(self.config, kind) or () if name not in (UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT)]


def write_card(
    folder: str | Path,
    *,
    repo: str | None = None,
    license: str | None = None,  # the Hub's own name for it
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    model: str | None = None,
) -> Path:
    """Write README.md and ``.eval_results/*.yaml`` of a checkpoint folder, and return the path of README.md.

    Args:
        folder: the checkpoint.
        repo: ``user/name`` for the loading examples; without it they use the folder's name.
        license: a licence id of the Hub (``apache-2.0``); by default what an existing card says, else the base model's.
        base_model: Hub id of the model training started from; by default from training.json. Local paths are not shown.
        datasets: Hub ids of the training data, besides those in training.json.
        model: which ``model`` of the records this checkpoint is, where results.jsonl compares several.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an existing card is not UTF-8 or has a broken marker or head, or a file of the folder is malformed.
    """
    checkpoint = Checkpoint.read(Path(folder))
    path = checkpoint.folder / CARD
    before = _text(path)
    crlf = "\r\n" in before
    head, slots = read_written(before.replace("\r\n", "\n"), str(path))
    sampled = [row.language for row in checkpoint.training.sampling]
    meta = metadata(
        task=task_of(checkpoint.config.architectures),
        languages=dict.fromkeys([*checkpoint.names("languages"), *sampled]),
        scripts=checkpoint.names("scripts"),
        mask=checkpoint.mask,
        license_name=license,
        base_license=checkpoint.training.license,
        base_model=base_model or checkpoint.training.base_model,
        datasets=[*checkpoint.training.datasets, *datasets],
        model_type=checkpoint.config.model_type,
        written=head,
    )
    text = render(checkpoint, meta, slots, repo or Path(folder).resolve().name)
    ModelCard(text)  # raises ValueError where the head is not what the Hub's client reads
    atomic_write(path, text.replace("\n", "\r\n") if crlf else text)
    write_eval_results(checkpoint.folder, checkpoint.records, model)
    return path


def render(checkpoint: Checkpoint, meta: Mapping[str, Any], slots: Mapping[str, str], name: str) -> str:
    """The whole text of a card, from what was read; pure, so that tests can compare it with a golden file."""
    results = Results.of(Run(list(checkpoint.records))) if checkpoint.records else None
    measured, hidden = tables.measures(results) if results else ([], 0)
    columns, cells = tables.by_language(results) if results else ([], {})
    facts, layers = checkpoint.training, checkpoint.config.num_hidden_layers
    languages = tables.languages(facts.sampling, checkpoint.names("languages"))
    head = yaml.safe_dump(ModelCardData(**meta).to_dict(), sort_keys=False, allow_unicode=True, width=1000)
    body = _environment().get_template("card.md.jinja").render(
        name=name,
        title=name.rpartition("/")[2],
        rows=bool(checkpoint.names("languages") or checkpoint.names("scripts")),
        meta=meta,
        encoder=_encoder(checkpoint.config.architectures),
        size=[layers, checkpoint.config.hidden_size, checkpoint.config.vocab_size],
        layer=_layer(results, layers or 12),
        scripts=checkpoint.names("scripts"),
        languages=languages,
        count=len({row.code.partition("_")[0] for row in languages}),
        trained=len({row.language.partition("_")[0] for row in facts.sampling}),
        unlisted=sorted({row.code for row in languages if hub_language(row.code) is None}),
        facts=facts_table(facts),
        settings=settings_table(facts.settings),
        headlines=tables.headlines(results) if results else [],
        measures=measured,
        hidden=hidden,
        several=bool(results and len(results.systems) > 1),
        columns=columns,
        cells=cells,
        plots=[(plot, catalog.PICTURES.get(plot, plot.replace("_", " "))) for plot in checkpoint.plots],
        example=example((row.code for row in languages), checkpoint.mask),
        slots={slot: Markup(text) for slot, text in slots.items()},
        more=[slot for slot in slots if slot not in SLOTS],
        generated=Markup(GENERATED),
    )  # fmt: skip
    return f"---\n{head}---\n\n{body.strip()}\n"


def _layer(results: Results | None, depth: int) -> int:
    """Whose vectors the card tells people to take: the layer of its retrieval scores, else the protocol's."""
    headlines = [results.headline(task) for task in results.tasks] if results else []
    measured = [cell.layer for cell in headlines if cell.layer and cell.metric.startswith("acc@")]
    return int(measured[0]) if measured else protocol_layer(depth)


def _encoder(architectures: Sequence[str] | None) -> str:
    """What people call the encoder whose stock class a config names: XLM-R, XLM-R XL, BERT, ModernBERT, EuroBERT."""
    name = re.match("(.*?)(Model|For[A-Z]|$)", (architectures or ["XLMRoberta"])[0])[1]  # type: ignore[index]
    return name.replace("XLMRoberta", "XLM-R ").replace("Bert", "BERT").strip()


def read_written(card: str, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a person wrote in an existing card: (YAML head, slot -> text between its markers).

    A card that we did not make has no markers: its whole text becomes the slot ``notes``.

    Raises:
        ValueError: a marker without its partner, or a slot twice: guessing would lose somebody's text.
    """
    match = _FRONT.match(card)
    try:
        head = yaml.safe_load(match.group(1)) if match else {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(
            f"the head of {where} is not YAML ({str(error).splitlines()[0]}); mend or remove it."
        ) from None
    if not isinstance(head or {}, dict):
        raise ValueError(f"the head of {where} is not a list of `key: value`; mend or remove it.")
    body = card[match.end() :] if match else card
    slots = dict.fromkeys(SLOTS, "")
    if GENERATED not in card and not _MARKER.search(body):
        slots["notes"] = "" if _TRAINER_CARD in body else body.strip()
        return head or {}, slots
    slots.update(_between_markers(body, where))
    return head or {}, slots


def facts_table(facts: TrainingFacts) -> list[tuple[str, str]]:
    """The cost of a run as (what, how much), of what is known."""
    known = [(title, getattr(facts, name), unit) for name, title, unit in _FACTS]
    rows = [(title, _show(value, unit)) for title, value, unit in known if value is not None]
    losses = [(title, facts.losses.get(name)) for name, title in _LOSSES]
    return rows + [(title, f"{loss:.4f}") for title, loss in losses if loss is not None]


def settings_table(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings of a run that have a simple value, sorted by name; folders and other places are left out."""
    simple = {key: value for key, value in settings.items() if isinstance(value, (str, int, float, bool))}
    return [(key, _show(value, "")) for key, value in sorted(simple.items()) if not key.endswith(("_dir", "path"))]


_FACTS = (
    ("steps", "steps", ""),
    ("tokens", "tokens seen", ""),
    ("seconds", "wall-clock time", "s"),
    ("tokens_per_second", "tokens a second", ""),
    ("parameters", "parameters", ""),
    ("device", "device", ""),
    ("processes", "processes", ""),
    ("seed", "seed", ""),
    ("started", "started", ""),
    ("finished", "finished", ""),
)


_LOSSES = (
    ("first", "training loss, first"),
    ("last", "training loss, last"),
    ("heldout_loss", "held-out loss"),
    ("heldout_loss_missing", "held-out loss, not told the language"),
    ("heldout_loss_wrong", "held-out loss, told a wrong language"),
)


def _show(value: Any, unit: str) -> str:
    if unit == "s":
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if 1000 <= value < 1e15 else f"{value:g}"


def _between_markers(body: str, where: str) -> dict[str, str]:
    slots: dict[str, str] = {}
    open_slot, start = None, 0
    for marker in _MARKER.finditer(body):
        kind, slot = marker.groups()
        if (kind == "begin") == (open_slot is not None) or (kind == "end" and slot != open_slot) or slot in slots:
            raise ValueError(f"{where}: marker '{kind} {slot}' has no partner or comes twice; mend it, then try again.")
        if kind == "begin":
            open_slot, start = slot, marker.end()
        else:
            slots[slot], open_slot = body[start : marker.start()].strip("\n"), None
    if open_slot is not None:
        raise ValueError(f"{where}: marker 'begin {open_slot}' has no end; mend it, then try again.")
    return slots


def _environment() -> Environment:
    """Templates in which every value is escaped for Markdown and HTML and stripped of local paths, unless marked."""
    environment = Environment(
        loader=PackageLoader("langsamp.eval.results.card", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape.markdown(_no_path(str(value)))),
    )
    environment.filters["code"] = lambda value: Markup(escape.code(_no_path(str(value))))
    environment.filters["python"] = lambda value: Markup(escape.python(_no_path(str(value))))
    return environment


def _no_path(text: str) -> str:
    """Absolute local paths shortened to their last part: a card must not tell how somebody's disk is laid out."""

    def last(match: re.Match[str]) -> str:
        parts = [part for part in re.split(r"[/\\]", match.group(0)) if part]
        return parts[-1] if len(parts) > 2 else "local folder"  # /home/jane names nothing but a person

    return _LOCAL_PATH.sub(last, text)


def _text(path: Path) -> str:
    """The text of a card that is there, nothing without one; a ValueError if it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.object[error.start]:#04x} at position {error.start}); "
            "save it as UTF-8, so that nothing of it is lost."
        ) from None


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
