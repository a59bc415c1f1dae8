"""What every command gets: the global flags, the client's configuration and, when first used, the engine."""

from __future__ import annotations

import sys

from satsuma.cli.errors import CliError, ExitStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from satsuma.cli.client import Engine
    from satsuma.cli.flags import Flags


class Session:
    """One run of the program."""

    def __init__(self, options: Flags, program: str) -> None:
        self.options = options
        self.program = program
        self._config: dict[str, Any] | None = None
        self._engine: Engine | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The client's configuration file, read when first asked for."""
        if self._config is None:
            from satsuma.cli.config import load

            self._config = load(self.config_dir)
        return self._config

    @property
    def config_dir(self) -> str:
        """The directory of the client's configuration, shared with docker."""
        from satsuma.cli.config import directory

        return directory(self.options["config"] if "config" in self.options.changed else "")

    @property
    def engine(self) -> Engine:
        """The engine that flags, environment or context name; connected to when first used."""
        if self._engine is None:
            from satsuma.cli.client import Engine
            from satsuma.cli.endpoint import find

            try:
                endpoint = find(self)
            except CliError as error:
                if str(error).startswith(("context ", "invalid bind")):
                    raise CliError(
                        f"Failed to initialize: unable to resolve docker endpoint: {error}"
                    ) from None
                raise
            self._engine = Engine(endpoint, self.config.get("HttpHeaders") or {})
            self._engine.debug = self.options["debug"] or self.options["log-level"] == "debug"
        return self._engine

    def close(self) -> None:
        """Give back what the command held."""
        if self._engine is not None:
            self._engine.close()

    def out(self, text: str) -> None:
        """Write to standard output."""
        sys.stdout.write(text)

    def line(self, text: str) -> None:
        """Write a line to standard output."""
        sys.stdout.write(text + "\n")

    def warn(self, text: str) -> None:
        """Write a line to standard error."""
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question on the terminal; anything but `y` is no.

        Raises:
            ExitStatus: 130, the user pressed Ctrl-C.
        """
        sys.stdout.write(question + " [y/N] ")
        sys.stdout.flush()
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            raise ExitStatus(130) from None
        return answer.strip().lower() == "y"
