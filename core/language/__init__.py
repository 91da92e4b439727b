"""Languages: which there are, how people write them, their families, and what names of files tell.

Codes and names come in, `lang_Script` tags go out. Imports the flat files only.
"""
