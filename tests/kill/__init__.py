"""Long commands, killed at random moments."""
