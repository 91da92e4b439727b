"""Quick training runs on the small store."""

from __future__ import annotations

import pytest

QUICK = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "save_steps": 2,
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


@pytest.fixture
def go(tmp_path, small_store, tiny_xlmr_dir):
    """Run with small defaults; settings by keyword, TrainingArguments in ``training``."""

    from langsamp.train.pretrain import pretrain
    from langsamp.train.settings import PretrainSettings

    def run(name="run", training=None, store=small_store, publish=None, callbacks=None, fetch=None, **settings):
        settings = PretrainSettings(**{"output": str(tmp_path / name), "base": str(tiny_xlmr_dir), **settings})
        given = {**QUICK, **(training or {})}
        return pretrain(settings, given, store=store, publish=publish, callbacks=callbacks, fetch=fetch)

    return run
