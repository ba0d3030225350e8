"""The checked graph of a network, and running it."""
