"""One run directory in, one self-contained HTML page out, computed from records and nothing else.

Imports ``eval.results`` and core.
"""
