"""The model card: config, training facts, records and plots of a checkpoint folder become README.md.

Imports ``eval.results`` and core.
"""
