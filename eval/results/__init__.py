"""Records in, pages out: records -> aggregate, stats, catalog -> compare, report, plots, card.

A number, its title, unit and interval are made here and nowhere else. Imports core only, and no torch.
"""
