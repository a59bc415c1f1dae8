"""Room linux."""
