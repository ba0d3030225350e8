"""People and images as training records, and back."""
