"""The program `satsumad`: dockerd's flags and daemon.json, one lock, one engine, one server, signals.

Owns how a daemon is configured, started, reloaded and stopped.  Must not know what an engine does with its settings.
"""
