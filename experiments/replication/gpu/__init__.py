"""The replication at a size that one GPU trains in minutes: a bundle made at home, a run on a machine without network.

`bundle.py` packs everything that a run needs, with weights as `weights.py` makes them small; `unpack.py` opens it.
`run.py` does what the recipe says in its order, `search.py` chooses learning rates first; one process trains and makes
the sentence vectors of every model (`vectors.py`), others measure meanwhile (`measuring.py`). What comes back are
packed records, for `experiments.replication.findings` as from any other machine.
"""
