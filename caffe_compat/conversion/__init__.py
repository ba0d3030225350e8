"""From one model file to a checked network, and on to other formats."""
