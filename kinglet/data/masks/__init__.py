"""Data sets whose images have masks: a class for every pixel. `formats.py` opens them."""
