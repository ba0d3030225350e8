"""The commands: options in, one library call, a report out."""
