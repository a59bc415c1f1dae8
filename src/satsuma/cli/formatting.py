"""Lists of things in the formats that `--format` names: table, JSON, a Go template.

The table without a template of its own is made without the template engine, because `ps` must be quick.

Source: docker documentation "Format command and log output"; measured on docker 28.2.
"""

from __future__ import annotations

import sys

from satsuma.cli.errors import CliError
from satsuma.cli.tables import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any | Callable[..., Any]]


class Listing:
    """How the rows of one command look."""

    __slots__ = ("columns", "go_type", "headers", "raw")

    def __init__(self, go_type: str, columns: str, headers: Mapping[str, str], raw: str = "") -> None:
        self.go_type = go_type
        """What Go calls a row, for error texts."""
        self.columns = columns.split()
        """Fields of the default table."""
        self.headers = headers
        """Field → heading."""
        self.raw = raw
        """Template that `--format raw` stands for; empty where there is none."""

    def write(
        self, source: str, rows: Sequence[Row], *, extra_columns: Sequence[str] = (), quiet: str = ""
    ) -> None:
        """Write *rows* in the format *source* to standard output.

        Args:
            source: `""` or `table`, `table TEMPLATE`, `json`, or a template.
            rows: field → value or function without arguments; functions with arguments are methods.
            extra_columns: further columns of the default table.
            quiet: the one field to show; counts unless there is a template.
        Raises:
            CliError: the template does not parse or fit.
        """
        text = self.text(source, rows, extra_columns=extra_columns, quiet=quiet)
        sys.stdout.write(text)

    def text(
        self, source: str, rows: Sequence[Row], *, extra_columns: Sequence[str] = (), quiet: str = ""
    ) -> str:
        """Return what `write` writes."""
        if source in ("", "table", "raw") and quiet:
            return "".join(f"{_value(row[quiet])}\n" for row in rows)
        if source in ("", "table"):
            return self._table([*self.columns, *extra_columns], rows)
        if source == "raw" and self.raw:
            return _execute(self.raw, self.go_type, rows)
        if source == "json":
            from satsuma.wire.gotemplate import Struct, encode_json

            return "".join(encode_json(Struct(self.go_type, row), escape_html=True) + "\n" for row in rows)
        if source.startswith("table"):
            return self._template_table(clean(source.removeprefix("table")), rows)
        return _execute(clean(source), self.go_type, rows)

    def _table(self, columns: Sequence[str], rows: Sequence[Row]) -> str:
        lines = ["\t".join(self.headers[column] for column in columns)]
        lines += ["\t".join(_value(row[column]) for column in columns) for row in rows]
        return align("\n".join(lines)) + "\n"

    def _template_table(self, template: str, rows: Sequence[Row]) -> str:
        from satsuma.wire.gotemplate import TemplateError, header_functions, parse

        try:
            head = parse(template, functions=header_functions()).execute(dict(self.headers))
        except TemplateError:
            head = ""
        body = _execute(template, self.go_type, rows)
        return align(f"{head}\n{body}".removesuffix("\n")) + "\n"


def clean(template: str) -> str:
    """Return a template with the escapes `\\t` and `\\n` that shells do not turn to characters."""
    return template.strip(" ").replace("\\t", "\t").replace("\\n", "\n")


def _value(field: Any) -> str:
    return str(field() if callable(field) else field)


def _execute(template: str, go_type: str, rows: Sequence[Row]) -> str:
    from satsuma.wire.gotemplate import Struct, TemplateError, parse

    try:
        parsed = parse(template)
        return "".join(parsed.execute(Struct(go_type, row)) + "\n" for row in rows)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


def ellipsis(text: str, limit: int) -> str:
    """Shorten *text* to *limit* characters, the last of them an ellipsis."""
    if len(text) <= limit:
        return text
    if limit < 2:
        return text[:limit]
    return text[: limit - 1] + "…"


def short_id(identifier: str) -> str:
    """Return the twelve digits that tables show."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]


def local_time(seconds: float) -> str:
    """Return a point in time as Go's Time.String prints it: `2026-11-25 02:45:12 +0000 UTC`."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def age(seconds: float) -> str:
    """Return how long ago a point in time was, in docker's words, with `ago`."""
    import time

    from satsuma.base.sizes import human_duration

    return human_duration(max(0.0, time.time() - seconds)) + " ago"


def join_labels(labels: Mapping[str, str] | None) -> str:
    """Return labels as `a=b,c=d`."""
    return ",".join(sorted(f"{key}={value}" for key, value in (labels or {}).items()))
