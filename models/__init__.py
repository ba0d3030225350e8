"""Data only: one folder per network; facts about the released models. Installed as
``reproduce._models``."""
