"""A Gradio Space for a LangSAMP checkpoint: fill-mask told and not told the language, a map of the languages, donors.

Stands alone: copy this folder to a Space and set the variable MODEL_ID (and REVISION, a commit whose code you have
read) in its settings. Nothing here needs the package langsamp.
"""

from __future__ import annotations

import os
from functools import cached_property
from html import escape

import pandas as pd
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

UNKNOWN = "unknown"
# Languages with much labelled data, the usual candidates to train a task on.
# fmt: off
SOURCES = [
    "ara", "ces", "cmn", "deu", "ell", "eng", "fas", "fin", "fra", "hin", "ind", "ita", "jpn", "kor", "nld", "pol",
    "por", "rus", "spa", "swa", "swh", "tha", "tur", "ukr", "vie", "zho",
]
# fmt: on
COLOURS = 9
NAMED = 24
EXAMPLES = [
    ["The capital of France is <mask>.", "eng"],
    ["Das Haus steht am <mask>.", "deu"],
    ["Москва — столица <mask>.", "rus"],
    ["नई दिल्ली <mask> की राजधानी है।", "hin"],
    ["Η Αθήνα είναι η πρωτεύουσα της <mask>.", "ell"],
    ["東京は<mask>の首都です。", "jpn"],
]


class Explorer:
    """What the three tabs show, computed from one checkpoint; knows nothing of Gradio."""

    def __init__(self, model_id: str, revision: str | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model_id, revision=revision, trust_remote_code=True)
        self.model = AutoModelForMaskedLM.from_pretrained(model_id, revision=revision, trust_remote_code=True).eval()
        self.languages: list[str] = list(self.model.config.languages[1:])
        if not self.languages:
            raise ValueError(f"{model_id} has no language vectors; give a LangSAMP checkpoint in MODEL_ID.")
        rows = self.model.lang_embeddings.weight.detach().float()[1:]
        self.rows = rows - rows[rows.norm(dim=1) > 0].mean(dim=0)  # what all languages share tells none apart

    @torch.inference_mode()
    def fill(self, text: str, language: str, top_k: int = 8) -> tuple[dict[str, float], dict[str, float]]:
        """Probabilities of the best pieces at the first mask: told the language, and with the language unknown."""
        mask = self.tokenizer.mask_token
        if mask not in (text or ""):
            raise ValueError(f"Write {mask} where a word is to be guessed.")
        told = {} if language == UNKNOWN else {"lang": language}
        return self._best(text, told, top_k), self._best(text, {}, top_k)

    def _best(self, text: str, told: dict[str, str], top_k: int) -> dict[str, float]:
        batch = self.tokenizer(text, return_tensors="pt", truncation=True, **told)
        if not told:
            batch = {name: batch[name] for name in ("input_ids", "attention_mask")}  # no script either
        at = (batch["input_ids"][0] == self.tokenizer.mask_token_id).nonzero()
        if not len(at):
            raise ValueError("The mask lies beyond the first 512 pieces.")
        best = self.model(**batch).logits[0, at[0, 0]].softmax(-1).topk(top_k)
        pieces = [str(self.tokenizer.decode([token])).strip() or "␣" for token in best.indices.tolist()]
        found: dict[str, float] = {}
        for piece, share in zip(pieces, best.values.tolist()):
            found[piece] = found.get(piece, 0.0) + share
        return found

    @cached_property
    def positions(self) -> pd.DataFrame:
        """The languages in the plane of the two largest principal components of their vectors."""
        u, s, _ = torch.linalg.svd(self.rows, full_matrices=False)
        plane = (u * s)[:, :2]
        share = (s**2 / (s**2).sum()).tolist()
        table = pd.DataFrame({"component 1": plane[:, 0].tolist(), "component 2": plane[:, 1].tolist()})
        table["language"] = [name_of(code) for code in self.languages]
        scripts = pd.Series([usual_script(code) for code in self.languages])
        table["script"] = scripts.where(scripts.isin(scripts.value_counts().index[:COLOURS]), "other")
        gaps = torch.cdist(plane, plane).fill_diagonal_(torch.inf).amin(dim=1)
        apart = set(gaps.argsort(descending=True)[:NAMED].tolist())  # those with room for a name beside them
        table["name"] = [name.partition(" (")[0] if i in apart else "" for i, name in enumerate(table["language"])]
        table.attrs["share"] = sum(share[:2])
        return table

    def relatives(self, language: str, among: list[str] | None = None, n: int = 10) -> pd.DataFrame:
        """The languages whose vectors point the same way, nearest first; ``among`` limits the candidates."""
        row = self.languages.index(language)
        units = torch.nn.functional.normalize(self.rows, dim=1)
        cosines = (units @ units[row]).tolist()
        allowed = set(self.languages if among is None else among) - {language}
        order = sorted((i for i, code in enumerate(self.languages) if code in allowed), key=lambda i: -cosines[i])[:n]
        columns = {
            "language": [name_of(self.languages[i]) for i in order],
            "cosine": [round(cosines[i], 3) for i in order],
        }
        return pd.DataFrame(columns)


def name_of(code: str) -> str:
    """``deu`` -> ``German (deu)``."""
    try:
        import langcodes

        name = langcodes.Language.get(code).display_name()
    except (ImportError, LookupError, ValueError):
        return code
    return code if name.startswith("Unknown language") else f"{name} ({code})"


def usual_script(code: str) -> str:
    """The script a language is usually written in, by CLDR."""
    try:
        import langcodes

        return langcodes.Language.get(code).maximize().script or "?"
    except (ImportError, LookupError, ValueError):
        return "?"


def build(explorer: Explorer):  # noqa: ANN201  (a gradio.Blocks, and gradio is the Space's dependency, not ours)
    """The page."""
    import gradio as gr
    import plotly.express as px

    choices = sorted((name_of(code), code) for code in explorer.languages)
    first = "deu" if "deu" in explorer.languages else explorer.languages[0]
    mask = explorer.tokenizer.mask_token
    examples = [[text.replace("<mask>", mask), code] for text, code in EXAMPLES if code in explorer.languages]

    def fill(text: str, language: str):
        try:
            told, unknown = explorer.fill(text, language)
        except ValueError as error:
            raise gr.Error(escape(str(error))) from None  # it is shown as HTML, in which <mask> would vanish
        return gr.Label(told, label=f"Told: {name_of(language)}", visible=language != UNKNOWN), unknown

    def near(language: str):
        return explorer.relatives(language), explorer.relatives(language, SOURCES)

    with gr.Blocks(title="LangSAMP") as page:
        gr.Markdown(
            f"# LangSAMP\n{len(explorer.languages)} languages, one encoder. Each language has one vector, added just "
            "before the prediction head: here you can see what it does and which languages lie near each other."
        )
        with gr.Tab("Fill the mask"):
            with gr.Row():
                start = examples[0][0] if examples else f"{mask}"
                text = gr.Textbox(start, label=f"Text with {mask}", scale=3)
                language = gr.Dropdown(
                    [("not told", UNKNOWN), *choices], value=examples[0][1] if examples else first, label="Language"
                )
            button = gr.Button("Guess", variant="primary")
            with gr.Row():
                told, untold = gr.Label(label="Told the language"), gr.Label(label="Not told the language")
            if examples:
                gr.Examples(examples, [text, language])
            gr.on([button.click, text.submit, page.load], fill, [text, language], [told, untold], api_name="fill")
        with gr.Tab("Map of languages"):
            gr.Markdown(
                "The language vectors on their two largest principal components "
                f"({explorer.positions.attrs['share']:.0%} of the variance). Colour: the usual script. The languages "
                "that stand apart are named; point at a mark for its name, drag to look closer."
            )
            axes = {"x": "component 1", "y": "component 2"}
            plot = px.scatter(
                explorer.positions, **axes, color="script", text="name", hover_name="language", height=620
            )
            plot.update_traces(textposition="top center").update_xaxes(visible=False).update_yaxes(visible=False)
            below = {"orientation": "h", "yanchor": "top", "y": 0}
            gr.Plot(plot.update_layout(legend=below, margin={"l": 0, "r": 0, "t": 40, "b": 0}), show_label=False)
        with gr.Tab("Relatives and donors"):
            gr.Markdown(
                "Cosines of the language vectors. Donors are languages with much labelled data: a task trained on a "
                "near one may transfer better than from English. It is a hint to test, not a promise."
            )
            wanted = gr.Dropdown(choices, value=first, label="Language")
            with gr.Row():
                nearest = gr.Dataframe(label="Nearest languages", interactive=False)
                donors = gr.Dataframe(label="Donors to try", interactive=False)
            gr.on([wanted.change, page.load], near, wanted, [nearest, donors], api_name="relatives")
    return page


if __name__ == "__main__":
    if not os.environ.get("MODEL_ID"):
        raise SystemExit("set the variable MODEL_ID to a LangSAMP checkpoint, for example user/langsamp-base")
    build(Explorer(os.environ["MODEL_ID"], os.environ.get("REVISION"))).launch()
