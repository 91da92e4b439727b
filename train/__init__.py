"""Text in, checkpoint out: settings -> start -> batches -> pretrain -> saves.

The rooms below: ``text`` (where text is), ``vocab`` (pieces for it), ``blocks`` (text to token blocks), ``fast`` (the
same step, faster). Imports core and the flat files; never eval, checkpoints or hub.
"""
