"""Room container."""
