"""Experiments: questions about the method, asked with the package; not part of it."""
