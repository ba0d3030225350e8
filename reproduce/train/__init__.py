"""A solver run on records: progress, snapshots, resuming, several processes."""
