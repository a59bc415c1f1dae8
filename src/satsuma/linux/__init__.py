"""The one door to the kernel: system calls, mounts, namespaces, cgroups, capabilities, seccomp, terminals.

This room must not know what a container, an image or a specification is; errors stay `OSError`.  It has no
face of its own: its modules are imported directly (`from satsuma.linux import mount`), because the programs
with an import budget must not pull in what they do not use.
"""
