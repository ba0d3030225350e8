"""Readers of the original downloads: annotation files to :class:`reproduce.annotations.Annotation`."""
