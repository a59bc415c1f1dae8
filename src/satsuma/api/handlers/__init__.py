"""One module per kind of object; a handler parses, calls the engine's facade, and answers."""
