"""Surgery on checkpoints.

Convert, export, average, add a language. A checkpoint comes in, another one goes out, whole or not at all.

Imports core, the flat files, ``eval.results`` (the card), ``train.text`` and ``train.blocks``.
"""
