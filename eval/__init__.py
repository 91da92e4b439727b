"""Checkpoint in, records out, and from records pages: data -> task -> run, with ``engines``, ``tasks``, ``metrics``.

``results`` turns records into tables, reports, plots and cards, without torch. Imports core and the flat files; never
train, checkpoints or hub.
"""
