"""The laboratory: asynchronous training taken apart, one update at a time."""
