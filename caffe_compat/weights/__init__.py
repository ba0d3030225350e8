"""Weight files, both ways."""
