"""One page with every figure and every claim."""
