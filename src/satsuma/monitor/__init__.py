"""The launcher and the monitors: the processes that stand between the daemon and the containers.

This room owns the life of a container's first process from fork to exit record, its stdin, stdout and
stderr, the clients attached to them, the files of its log, and the sessions of `exec` inside it.  It must
not know images, networks, volumes, the database or HTTP: it gets an OCI config, descriptors and paths, and
gives back events.

Import the submodules directly.  Everything but `client` and `logread` runs in programs with an import
budget; `client` is the daemon's side and needs asyncio.
"""
