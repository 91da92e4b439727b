"""The Inference Endpoints handler, as the endpoint uses it: the file beside the weights, on its own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from transformers import pipeline

from langsamp.core.outputs import add_handler


@pytest.fixture(scope="module")
def folder(tiny_model_dir, tmp_path_factory):
    target = tmp_path_factory.mktemp("endpoint") / "repository"
    shutil.copytree(tiny_model_dir, target)
    add_handler(target)
    return target


@pytest.fixture(scope="module")
def handler(folder):
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def test_one_text_has_the_form_of_the_hub_pipeline(handler, folder):
    answer = handler({"inputs": "Das <mask> steht am Fluss.", "parameters": {"top_k": 3}})
    theirs = pipeline("fill-mask", model=str(folder), top_k=3)("Das <mask> steht am Fluss.")
    assert [sorted(found) for found in answer] == [sorted(found) for found in theirs]
    assert len(answer) == 3
    assert answer[0]["score"] >= answer[1]["score"]


def test_the_language_changes_the_answer(handler):
    request = {"inputs": "Das <mask> steht am Fluss."}
    unknown = handler(request)
    german = handler({**request, "parameters": {"lang": "deu_Latn"}})
    assert german == handler({**request, "parameters": {"lang": "de", "script": "Latn"}})
    assert german != unknown
    assert handler({**request, "parameters": {"lang": "rus"}}) != german


def test_a_batch_equals_its_texts(handler):
    texts = ["Das <mask> steht am Fluss.", "В <mask> дни короткие. <mask>"]
    both = handler({"inputs": texts, "parameters": {"lang": ["deu", "rus"], "top_k": 2}})
    one = handler({"inputs": texts[0], "parameters": {"lang": "deu", "top_k": 2}})
    assert [found["token"] for found in both[0]] == [found["token"] for found in one]
    assert [found["score"] for found in both[0]] == pytest.approx([found["score"] for found in one], abs=1e-5)
    assert len(both[1]) == 2  # two masks: a list for each
    assert len(both[1][0]) == 2
    assert json.loads(json.dumps(both)) == both


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "a request is"),
        ([], "a request is"),
        ({"inputs": []}, "must be a text or a list"),
        ({"inputs": 3}, "must be a text or a list"),
        ({"inputs": ["<mask>", None]}, "must be a text or a list"),
        ({"inputs": "no mask"}, "text 1 has no <mask>"),
        ({"inputs": ["<mask>", "none"]}, "text 2 has no <mask>"),
        ({"inputs": "word " * 700 + "<mask>"}, "within its first 512 tokens"),
        ({"inputs": ["<mask>"] * 65}, "64 texts"),
        ({"inputs": "x" * 20_001}, "20,000 characters"),
        ({"inputs": "<mask>", "parameters": {"top_k": 0}}, "top_k must be"),
        ({"inputs": "<mask>", "parameters": {"top_k": True}}, "top_k must be"),
        ({"inputs": "<mask>", "parameters": {"top_k": "5"}}, "top_k must be"),
        ({"inputs": "<mask>", "parameters": {"temperature": 1}}, "unknown parameters"),
        ({"inputs": "<mask>", "parameters": [1]}, "unknown parameters"),
        ({"inputs": "<mask>", "parameters": {"lang": "fra"}}, "nearest"),
        ({"inputs": "<mask>", "parameters": {"lang": "not a tag"}}, "not a language tag"),
        ({"inputs": "<mask>", "parameters": {"script": "Arab"}}, "nearest"),
        ({"inputs": "<mask>", "parameters": {"lang": 3}}, "lang must be one tag"),
        ({"inputs": "<mask>", "parameters": {"lang": ["deu", "rus"]}}, "2 entries for 1 texts"),
    ],
)
def test_bad_requests_are_answered_in_words(handler, request_, message):
    answer = handler(request_)
    assert answer["status"] == 400
    assert message in answer["error"]


def test_works_without_langsamp_installed(folder, run_fresh):
    printed = run_fresh(
        "import sys\n"
        "sys.modules['langsamp'] = None\n"  # importing it fails
        f"sys.path.insert(0, {str(folder)!r})\n"
        "from handler import EndpointHandler\n"
        f"answer = EndpointHandler({str(folder)!r})({{'inputs': 'Das <mask>', 'parameters': {{'lang': 'deu'}}}})\n"
        "print(len(answer), sorted(answer[0]))\n"
    )
    assert printed.strip() == "5 ['score', 'sequence', 'token', 'token_str']"


def test_stock_checkpoints_are_served_too(tiny_xlmr_dir, handler):
    other = type(handler)(str(tiny_xlmr_dir))
    assert len(other({"inputs": "Das <mask>"})) == 5


def test_handler_imports_nothing_from_beside_it():
    """Endpoints load the file as a module of its own."""
    import langsamp.hub.handler as module

    assert "from ." not in Path(module.__file__).read_text()
    assert module.__name__ in sys.modules
