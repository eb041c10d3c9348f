"""What `calibrate_nulls.py` draws, which rules it applies, and how it writes rates."""
