"""What many tests share: a loopback Hub and its faults, small stores; on the path by ``pythonpath = tests``."""
