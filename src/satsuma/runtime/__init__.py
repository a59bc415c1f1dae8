"""The OCI runtime: a config.json becomes a plan (data), the plan becomes a running process.

Owns the reading of the runtime-spec, the order of operations inside a new container, `exec` into one, and the
program `satsuma-oci`.  Must not know images, the database, the daemon or the Docker API.  Its modules are
imported directly (`from satsuma.runtime import create`): the launcher, the monitor and `satsuma-oci` have an
import budget.
"""
