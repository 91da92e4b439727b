"""What all rooms stand on.

Files and manifests, the Hub's answers, devices, names of models, vocabularies, language lists.

In come paths, names and tokenizers; out go folders, devices and facts. Imports the flat files only.
"""
