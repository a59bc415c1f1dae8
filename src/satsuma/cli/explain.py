"""`run --explain` and `exec --explain`: the steps of the start, as the engine noted them, on standard error."""

from __future__ import annotations

import os

from satsuma.cli.errors import ApiError, CliError
from satsuma.wire.steps import Drawer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from satsuma.cli.session import Session

_TITLES = {
    "engine": "the engine: satsumad",
    "runtime": "the container's monitor, on the host",
    "init": "the new process, on its way to be the container's program",
}
_PATIENCE = 10.0


class Explanation:
    """The question, asked before the start, and the answer."""

    def __init__(self, session: Session, path: str) -> None:
        """
        Args:
            path: of what is going to start, as in the API: /containers/ID or /exec/ID.
        Raises:
            CliError: the engine has no such answer; a container is removed again.
        """
        self._session = session
        try:
            self._answer = session.engine.request("GET", f"/satsuma{path}/explain")
        except ApiError as error:
            if path.startswith("/containers/"):
                session.engine.request("DELETE", path, {"v": True}).read()
            raise CliError(f"--explain: this engine cannot explain a start: {error}", 125) from None

    def show(self) -> None:
        """Print the steps; after the start, or when it has failed."""
        self._answer.connection.settimeout(_PATIENCE)
        try:
            document = self._answer.json()
        except TimeoutError:
            self._answer.close()
            self._session.warn("--explain: the engine did not answer")
            return
        finally:
            self._answer.connection.settimeout(None)
        steps = document["Steps"]
        drawer = self._drawer()
        self._session.warn("\n".join([*drawer.heading(), *drawer.draw(steps), drawer.total(steps)]))

    @staticmethod
    def _drawer() -> Drawer:
        terminal = os.isatty(2)
        try:
            width = os.get_terminal_size(2).columns if terminal else 100
        except OSError:
            width = 100
        return Drawer(_TITLES, width or 100, colour=terminal and not os.environ.get("NO_COLOR"))
