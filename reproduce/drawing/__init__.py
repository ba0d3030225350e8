"""Skeletons, belief maps and curves as pictures."""
