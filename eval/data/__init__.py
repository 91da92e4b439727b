"""Evaluation data as it is handed out, in one form: a folder or the Hub (sets, hub), its files (layouts, formats).

Names of tasks come in, columns by language and split go out. Imports core only.
"""
