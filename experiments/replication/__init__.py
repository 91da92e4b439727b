"""The small replication on real text; see run.py and docs/replication.md."""
