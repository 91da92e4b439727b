"""Inference Endpoints: fill-mask with a language. The file lies beside the weights and needs no langsamp installed.

    {"inputs": "Paris ist die Hauptstadt von <mask>.", "parameters": {"lang": "deu_Latn", "top_k": 3}}

``inputs`` is a text or a list of texts; ``lang`` and ``script`` are one for all texts or a list with one for each.
Without them the language is unknown. The answer has the form of the Hub's fill-mask pipeline: a list of candidates for
a text with one mask, a list of such lists for several masks, and a list of those for a list of texts. Invalid requests
get ``{"error": ..., "status": 400}``.
"""

from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

MAX_TEXTS, MAX_CHARACTERS, MAX_TOP_K = 64, 20_000, 100
PARAMETERS = ("lang", "script", "top_k")


class BadRequest(ValueError):
    """What the caller can mend; everything else is our fault and stays an exception."""


class EndpointHandler:
    """Loaded once by the endpoint with the path of the repository, then called with every request."""

    def __init__(self, path: str = "") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForMaskedLM.from_pretrained(path, trust_remote_code=True)
        self.model = model.to(self.device).eval()

    def __call__(self, data: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """Answer one request; see the top of the file."""
        try:
            texts, options = self._read(data)
            answers = self._fill(texts, **options)
        except BadRequest as error:
            return {"error": str(error), "status": 400}
        return answers[0] if isinstance(data["inputs"], str) else answers

    def _read(self, data: Any) -> tuple[list[str], dict[str, Any]]:
        """The texts and the options of a request, checked."""
        if not isinstance(data, dict) or "inputs" not in data:
            raise BadRequest('a request is {"inputs": text or [texts], "parameters": {...}}.')
        texts = [data["inputs"]] if isinstance(data["inputs"], str) else data["inputs"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadRequest("inputs must be a text or a list of texts that is not empty.")
        if len(texts) > MAX_TEXTS or sum(map(len, texts)) > MAX_CHARACTERS:
            raise BadRequest(f"a request may hold {MAX_TEXTS} texts and {MAX_CHARACTERS:,} characters in all.")
        options = data.get("parameters") or {}
        unknown = sorted(set(options) - set(PARAMETERS)) if isinstance(options, dict) else [options]
        if unknown:
            raise BadRequest(f"unknown parameters {unknown}; there are {', '.join(PARAMETERS)}.")
        top_k = options.get("top_k", 5)
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise BadRequest(f"top_k must be a whole number from 1 to {MAX_TOP_K}, not {top_k!r}.")
        for name in ("lang", "script"):
            self._check_tags(name, options.get(name), len(texts))
        return texts, {"lang": options.get("lang"), "script": options.get("script"), "top_k": top_k}

    @staticmethod
    def _check_tags(name: str, value: Any, texts: int) -> None:
        if value is None or isinstance(value, str):
            return
        if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
            raise BadRequest(f"{name} must be one tag like 'deu_Latn', or a list with one for each text.")
        if len(value) != texts:
            raise BadRequest(f"{name} has {len(value)} entries for {texts} texts; give one for all, or one for each.")

    @torch.inference_mode()
    def _fill(self, texts: list[str], lang: Any, script: Any, top_k: int) -> list[list[Any]]:
        """Candidates for every mask of every text."""
        try:
            ids = {} if lang is None and script is None else {"lang": lang, "script": script}
            batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt", **ids)
        except ValueError as error:  # a language or script that this model has no row for; the nearest are named
            raise BadRequest(str(error)) from None
        masks = batch["input_ids"] == self.tokenizer.mask_token_id
        for number, row in enumerate(masks, 1):
            if not row.any():
                raise BadRequest(f"text {number} has no {self.tokenizer.mask_token} within its first 512 tokens.")
        logits = self.model(**batch.to(self.device)).logits.float().cpu()
        answers = []
        for sequence, row, scores in zip(batch["input_ids"].cpu(), masks, logits):
            filled = [self._candidates(sequence, int(at), scores[at], top_k) for at in row.nonzero()[:, 0]]
            answers.append(filled[0] if len(filled) == 1 else filled)
        return answers

    def _candidates(self, sequence: torch.Tensor, at: int, logits: torch.Tensor, top_k: int) -> list[dict[str, Any]]:
        """The best pieces for one mask, in the form of the Hub's pipeline."""
        best = logits.softmax(-1).topk(min(top_k, len(logits)))
        found = []
        for score, token in zip(best.values.tolist(), best.indices.tolist()):
            whole = sequence.clone()
            whole[at] = token
            whole = whole[whole != self.tokenizer.pad_token_id]
            text = self.tokenizer.decode(whole, skip_special_tokens=True)
            piece = str(self.tokenizer.decode([token])).strip()
            found.append({"score": score, "token": token, "token_str": piece, "sequence": text})
        return found
