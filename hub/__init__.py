"""Transfer and nothing else.

Folder to Hub, Hub to folder, verified; trainer state on its way; what a repository carries.

Imports core and ``eval.results``.
"""
