"""A vocabulary for a corpus: new pieces for an old tokenizer, or a small tokenizer from nothing.

Texts come in, a tokenizer (and a model whose rows follow its pieces) goes out. Imports ``train.text``, ``train.start``
and core.
"""
