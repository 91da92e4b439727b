"""Text to token blocks on disk: prepare -> pipeline -> segment (in workers), ledger -> store.

A corpus and a tokenizer come in, a store goes out, which training maps into memory. Imports ``train.text`` and core.
"""
