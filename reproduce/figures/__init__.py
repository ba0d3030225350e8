"""One module per figure: data to numbers (JSON, CSV) to picture (PNG, PDF)."""
