"""One file a task: what is measured, in which units of work; beside them what several tasks share.

A context (model, data, options) comes in, records go out. Imports engines, metrics, ``results.records`` and core.
"""
