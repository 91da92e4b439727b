"""Checkpoints of a run: saved in the background (saving), whole or invisible (checkpoints), found again (resume), sent
to the Hub (publisher).

Imports core only.
"""
