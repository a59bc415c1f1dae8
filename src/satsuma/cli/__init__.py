"""The docker-compatible command line, program `satsuma`.

Owns words, flags, help texts, output formats and exit statuses; the terminal (raw mode, window size, detach keys,
signals); contexts and the client's configuration; what a client does before it asks (mini languages, build contexts,
copies).  It speaks HTTP to an engine and must not know how one works: nothing above `wire` is imported, and any engine
with Docker's API will do.

`catalog` and `flagtable` are the data: every command with its usage and code, every flag with its type and help.
`main` parses the global flags, finds the command and imports the one module that runs it; so `satsuma ps` loads a
dozen small modules and no more (`tests/unit/cli/test_start.py` holds the list).
"""
