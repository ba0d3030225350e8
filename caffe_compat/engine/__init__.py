"""How one convolution is computed. Knows no layer."""
