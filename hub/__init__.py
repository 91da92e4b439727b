"""The life of a checkpoint on the Hub: manifest, push and pull, model card, convert, export."""
