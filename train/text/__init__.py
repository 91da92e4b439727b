"""Where text is: a folder, a Hub data set, the built-in CLDR. A name comes in, documents by language go out.

Imports core and the flat files only; preparing, vocabularies and exports read text through ``open.open_corpus``.
"""
