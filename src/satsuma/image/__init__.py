"""Room image."""
