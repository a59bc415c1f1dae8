"""The tree of a parsed template.  Every node can say how it was written, for error texts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    """A place in the template text."""

    __slots__ = ("position",)
    kind = ""

    def __init__(self, position: int) -> None:
        self.position = position


class Text(Node):
    """Text outside of actions."""

    __slots__ = ("text",)
    kind = "text"

    def __init__(self, position: int, text: str) -> None:
        super().__init__(position)
        self.text = text


class Literal(Node):
    """A string, number, character, boolean or nil; `source` is how it was written."""

    __slots__ = ("kind", "source", "value")

    def __init__(self, position: int, kind: str, source: str, value: Any) -> None:
        super().__init__(position)
        self.kind = kind
        self.source = source
        self.value = value

    def __str__(self) -> str:
        return self.source


class Dot(Node):
    """The cursor."""

    __slots__ = ()
    kind = "dot"

    def __str__(self) -> str:
        return "."


class Field(Node):
    """`.A.B`."""

    __slots__ = ("names",)
    kind = "field"

    def __init__(self, position: int, names: list[str]) -> None:
        super().__init__(position)
        self.names = names

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


class Variable(Node):
    """`$x.A.B`; the first name keeps its dollar sign."""

    __slots__ = ("names",)
    kind = "variable"

    def __init__(self, position: int, names: list[str]) -> None:
        super().__init__(position)
        self.names = names

    def __str__(self) -> str:
        return ".".join(self.names)


class Identifier(Node):
    """The name of a function."""

    __slots__ = ("name",)
    kind = "identifier"

    def __init__(self, position: int, name: str) -> None:
        super().__init__(position)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Chain(Node):
    """`(pipeline).A.B`."""

    __slots__ = ("names", "node")
    kind = "chain"

    def __init__(self, position: int, node: Node, names: list[str]) -> None:
        super().__init__(position)
        self.node = node
        self.names = names

    def __str__(self) -> str:
        inner = f"({self.node})" if self.node.kind == "pipe" else str(self.node)
        return inner + "".join("." + name for name in self.names)


class Command(Node):
    """Operands side by side: a function or field with its arguments."""

    __slots__ = ("args",)
    kind = "command"

    def __init__(self, position: int, args: list[Node]) -> None:
        super().__init__(position)
        self.args = args

    def __str__(self) -> str:
        return " ".join(f"({arg})" if arg.kind == "pipe" else str(arg) for arg in self.args)


class Pipe(Node):
    """Commands joined by `|`, with the variables that take the result."""

    __slots__ = ("assign", "commands", "declared")
    kind = "pipe"

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.assign = False
        self.declared: list[Variable] = []
        self.commands: list[Command] = []

    def __str__(self) -> str:
        left = ", ".join(map(str, self.declared))
        left = f"{left} {'=' if self.assign else ':='} " if left else ""
        return left + " | ".join(map(str, self.commands))


class Action(Node):
    """`{{pipeline}}`."""

    __slots__ = ("pipe",)
    kind = "action"

    def __init__(self, position: int, pipe: Pipe) -> None:
        super().__init__(position)
        self.pipe = pipe

    def __str__(self) -> str:
        return "{{" + str(self.pipe) + "}}"


class Branch(Node):
    """`if`, `range` or `with`."""

    __slots__ = ("body", "kind", "otherwise", "pipe")

    def __init__(
        self, position: int, kind: str, pipe: Pipe, body: list[Node], otherwise: list[Node] | None
    ) -> None:
        super().__init__(position)
        self.kind = kind
        self.pipe = pipe
        self.body = body
        self.otherwise = otherwise

    def __str__(self) -> str:
        middle = "".join(_show(node) for node in self.body)
        last = (
            "{{else}}" + "".join(_show(node) for node in self.otherwise) if self.otherwise is not None else ""
        )
        return "{{" + f"{self.kind} {self.pipe}" + "}}" + middle + last + "{{end}}"


class Call(Node):
    """`{{template "name" pipeline}}`."""

    __slots__ = ("name", "pipe", "quoted")
    kind = "template"

    def __init__(self, position: int, name: str, quoted: str, pipe: Pipe | None) -> None:
        super().__init__(position)
        self.name = name
        self.quoted = quoted
        self.pipe = pipe

    def __str__(self) -> str:
        return "{{template " + self.quoted + (f" {self.pipe}" if self.pipe else "") + "}}"


class Mark(Node):
    """`end`, `else`, `break` or `continue`."""

    __slots__ = ("kind",)

    def __init__(self, position: int, kind: str) -> None:
        super().__init__(position)
        self.kind = kind

    def __str__(self) -> str:
        return "{{" + self.kind + "}}"


def _show(node: Node) -> str:
    return node.text if isinstance(node, Text) else str(node)
