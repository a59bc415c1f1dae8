"""Room volume."""
