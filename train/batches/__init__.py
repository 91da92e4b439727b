"""Blocks to batches: which block comes at which step (sampling), and what it becomes (stream).

Pure functions of a seed and an index, without iterator state; hence resume is exact. Imports ``train.blocks`` and core.
"""
