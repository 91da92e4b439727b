"""What runs a model: sentence vectors (padded or packed), fine-tuning, prediction, probes.

Texts and a checkpoint come in, vectors, predictions and scores go out. Imports core, ``eval.data`` and the flat files.
"""
