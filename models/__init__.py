"""Data only: one folder per network, and what is known about the released models. Installed as ``reproduce._models``."""
