"""The tiny world every test lives in: a real small tokenizer, a small model."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from pathlib import Path

import pytest

pytest_plugins = ["support.fresh", "support.hub", "support.runs", "support.stores"]

_HOME = tempfile.TemporaryDirectory(prefix="langsamp-tests-")  # of this run: the user's caches are not touched
os.environ["HF_HOME"] = _HOME.name
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

LANGUAGES = ["deu", "ell", "eng", "hin", "jpn", "rus"]
SCRIPTS = ["Cyrl", "Deva", "Grek", "Jpan", "Latn"]

TEXTS = {
    "eng_Latn": ["The house stands by the river.", "In January the days are short.", "She reads a book about birds."],
    "deu_Latn": ["Das Haus steht am Fluss.", "Im Januar sind die Tage kurz.", "Sie liest ein Buch über Vögel."],
    "rus_Cyrl": ["Дом стоит у реки.", "В январе дни короткие.", "Она читает книгу о птицах."],
    "ell_Grek": ["Το σπίτι είναι δίπλα στο ποτάμι.", "Τον Ιανουάριο οι μέρες είναι μικρές."],
    "hin_Deva": ["घर नदी के किनारे है।", "जनवरी में दिन छोटे होते हैं।"],
    "jpn_Jpan": ["家は川のそばにあります。", "一月の日は短いです。"],
}


def pytest_configure(config):
    """The suite is about a CPU and says so here, once: GPUs are out of its sight unless the marker asks for them."""
    if "gpu" not in (config.option.markexpr or ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish(session):
    """What is imported by now stays: no collection of garbage need look at it again, and each training asks for one."""
    gc.freeze()


def pytest_runtest_setup(item):
    """Tests that need a GPU say so where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU (make test-gpu)")


@pytest.fixture(autouse=True)
def _precision_of_this_test(monkeypatch):
    """TrainingArguments of transformers 4 leave their precision in the environment; it ends with the test."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    return TEXTS


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the checkout; users do not have it."""
    path = Path(os.environ.get("LANGSAMP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "parity").is_dir():
        pytest.skip("the shared development data is not here (set LANGSAMP_SHARED to its folder)")
    return path


@pytest.fixture
def ray_cluster():
    """A head that does no work, and a function that adds nodes."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra langsamp[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    import ray

    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory) -> Path:
    """A stock XLM-R tokenizer folder: Unigram, Metaspace, <s> </s>, and <mask> as the last id."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([text for texts in TEXTS.values() for text in texts for _ in range(4)], trainer)
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    config = {
        **names,
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": {**mask, "single_word": False, "special": True},
        "model_max_length": 512,
        "tokenizer_class": "XLMRobertaTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _xlmr_config(vocab_size: int):
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_tokenizer_dir):
    """A LangSAMP tokenizer made from the stock one."""
    from langsamp import LangSAMPTokenizer

    return LangSAMPTokenizer.from_pretrained(tiny_tokenizer_dir, languages=LANGUAGES, scripts=SCRIPTS)


@pytest.fixture
def tiny_config(tiny_tokenizer):
    """A fresh three-layer configuration with six languages and five scripts."""
    from langsamp import LangSAMPConfig

    return LangSAMPConfig.from_backbone(_xlmr_config(len(tiny_tokenizer)), languages=LANGUAGES, scripts=SCRIPTS)


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer, tmp_path_factory) -> Path:
    """A saved LangSAMPForMaskedLM with its tokenizer; the tables hold numbers, as after training."""
    import torch

    from langsamp import LangSAMPConfig, LangSAMPForMaskedLM

    torch.manual_seed(0)
    config = LangSAMPConfig.from_backbone(
        _xlmr_config(len(tiny_tokenizer)), languages=LANGUAGES, scripts=SCRIPTS, table_initializer_range=0.5
    )
    folder = tmp_path_factory.mktemp("langsamp-model")
    LangSAMPForMaskedLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_xlmr_dir(tiny_tokenizer_dir, tiny_tokenizer, tmp_path_factory) -> Path:
    """A saved stock XLMRobertaForMaskedLM with the stock tokenizer."""
    import shutil

    import torch
    from transformers import XLMRobertaForMaskedLM

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("xlmr-model")
    XLMRobertaForMaskedLM(_xlmr_config(len(tiny_tokenizer))).save_pretrained(folder)
    for file in tiny_tokenizer_dir.iterdir():
        shutil.copy(file, folder)
    return folder
