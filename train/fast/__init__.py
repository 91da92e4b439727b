"""The fastest step that is equal to the stock one, on the device there is: ``step.accelerate``.

Hand-written passes live here and nowhere else. ``cpu*.py`` and ``gpu*.py`` are for one kind of device each; ``ends.py``
(what both write into the gradient of the vocabulary matrix) and ``optimizer.py`` (clipping inside AdamW) are for both.

A model comes in and is left as it was after the block. Imports core and the flat files only.
"""
