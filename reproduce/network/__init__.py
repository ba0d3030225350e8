"""Pose machines: generating them, recognising them, their receptive fields."""
