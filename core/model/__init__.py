"""What training, evaluation and surgery do to models and tokenizers alike.

Finding a tokenizer, masking tokens, carrying rows to another vocabulary, fitting rows to text. Imports core and the
flat files.
"""
