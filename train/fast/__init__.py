"""The fastest step that is equal to the stock one, on the device there is.

Hand-written passes live here and nowhere else.

A model comes in and is left as it was after the block. Imports core and the flat files only.
"""
