"""From text to frozen data: what a network and a solver are. No torch."""
