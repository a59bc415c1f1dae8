"""A parsed template over data: control structures, pipelines, fields and calls.

Source: golang text/template (behaviour and error texts), measured with Go 1.26.
"""

from __future__ import annotations

from satsuma.wire.goquote import quote
from satsuma.wire.gotemplate.functions import BUILTINS, Function
from satsuma.wire.gotemplate.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Field,
    Identifier,
    Literal,
    Mark,
    Node,
    Pipe,
    Text,
    Variable,
)
from satsuma.wire.gotemplate.parse import Parser
from satsuma.wire.gotemplate.printing import sort_keys, sprint, sprint_value
from satsuma.wire.gotemplate.values import (
    MISSING,
    GoMap,
    GoNil,
    GoStruct,
    Rune,
    Struct,
    TemplateError,
    truth,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

_NONE: Any = object()
"""No value comes from the stage before."""
_MAX_DEPTH = 200


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


def parse(text: str, *, name: str = "", functions: Mapping[str, Function] | None = None) -> Template:
    """Parse a template.

    Args:
        text: the template.
        name: what error texts call it; docker gives it no name.
        functions: functions beside the built-in ones, or instead of them.
    Raises:
        TemplateError: in Go's words, with the line.
    """
    table = {**BUILTINS, **functions} if functions else BUILTINS
    parser = Parser(name, text, table)
    try:
        body = parser.parse()
    except RecursionError:
        raise TemplateError(f"template: {name}:1: max nesting depth exceeded") from None
    return Template(name, text, body, parser.templates, table)


class Template:
    """A template that can be executed many times."""

    def __init__(
        self,
        name: str,
        text: str,
        body: list[Node],
        templates: dict[str, list[Node]],
        functions: Mapping[str, Function],
    ) -> None:
        self.name = name
        self.text = text
        self.body = body
        self.templates = templates
        self.functions = functions

    def execute(self, data: Any, *, missing_is_error: bool = False) -> str:
        """Return the text for *data*.

        Args:
            data: the cursor at the start.
            missing_is_error: an absent key of a map is an error, not `<no value>`.
        Raises:
            TemplateError: in Go's words.
        """
        return _Run(self, missing_is_error).run(data)


class _Run:
    """One execution."""

    def __init__(self, template: Template, missing_is_error: bool) -> None:
        self.template = template
        self.strict = missing_is_error
        self.out: list[str] = []
        self.variables: list[list[Any]] = []
        self.node: Node | None = None
        self.depth = 0
        self.current = template.name

    def run(self, data: Any) -> str:
        self.variables = [["$", data]]
        try:
            self._walk_all(data, self.template.body)
        except RecursionError:
            self._fail(f"exceeded maximum template depth ({_MAX_DEPTH})")
        return "".join(self.out)

    def _fail(self, message: str) -> NoReturn:
        node = self.node
        if node is None:
            raise TemplateError(f"template: {self.template.name}: {message}")
        head = self.template.text[: node.position]
        line = head.count("\n") + 1
        column = node.position - (head.rfind("\n") + 1)
        # Go counts bytes, not characters.
        column = len(head[len(head) - column :].encode("utf-8", "surrogateescape"))
        where = f"{self.template.name}:{line}:{column}"
        raise TemplateError(f"template: {where}: executing {quote(self.current)} at <{node}>: {message}")

    # -- structure --------------------------------------------------------------------------------------------------

    def _walk_all(self, dot: Any, body: Sequence[Node]) -> None:
        for node in body:
            if isinstance(node, Text):
                self.out.append(node.text)
                continue
            self.node = node
            if isinstance(node, Action):
                value = self._pipeline(dot, node.pipe)
                if not node.pipe.declared:
                    self.node = node
                    self.out.append(sprint_value(value))
            elif isinstance(node, Branch):
                if node.kind == "range":
                    self._range(dot, node)
                else:
                    self._if_or_with(dot, node)
            elif isinstance(node, Call):
                self._call_template(dot, node)
            elif isinstance(node, Mark):
                raise _Break if node.kind == "break" else _Continue

    def _if_or_with(self, dot: Any, node: Branch) -> None:
        known = len(self.variables)
        value = self._pipeline(dot, node.pipe)
        if truth(value):
            self._walk_all(value if node.kind == "with" else dot, node.body)
        elif node.otherwise is not None:
            self._walk_all(dot, node.otherwise)
        del self.variables[known:]

    def _range(self, dot: Any, node: Branch) -> None:
        known = len(self.variables)
        value = self._pipeline(dot, node.pipe)
        pairs = self._pairs(value, node)
        inner = len(self.variables)
        try:
            for index, element in pairs:
                self._bind(node.pipe, index, element)
                try:
                    self._walk_all(element, node.body)
                except _Continue:
                    pass
                del self.variables[inner:]
            if not pairs and node.otherwise is not None:
                self._walk_all(dot, node.otherwise)
        except _Break:
            pass
        del self.variables[known:]

    def _pairs(self, value: Any, node: Branch) -> list[tuple[Any, Any]]:
        if isinstance(value, dict):
            return [(key, value[key]) for key in sort_keys(value)]
        if isinstance(value, list | tuple):
            return list(enumerate(value))
        if value is None or value is MISSING or isinstance(value, GoNil):
            return []
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.declared) > 1:
                self._fail(f"can't use {value} to iterate over more than one variable")
            return [(MISSING, number) for number in range(value)]
        self._fail(f"range can't iterate over {sprint_value(value)}")

    def _bind(self, pipe: Pipe, index: Any, element: Any) -> None:
        names = [variable.names[0] for variable in pipe.declared]
        if not names:
            return
        if pipe.assign:
            if len(names) > 1:
                self._set(names[0], index)
            self._set(names[-1], element)
            return
        self.variables[-1][1] = element
        if len(names) > 1:
            self.variables[-2][1] = index

    def _call_template(self, dot: Any, node: Call) -> None:
        body = self.template.templates.get(node.name)
        if body is None:
            if node.name != self.template.name:
                self._fail(f"template {quote(node.name)} not defined")
            body = self.template.body
        if self.depth >= _MAX_DEPTH:
            self._fail(f"exceeded maximum template depth ({_MAX_DEPTH})")
        value = self._pipeline(dot, node.pipe) if node.pipe else MISSING
        outer, self.variables = self.variables, [["$", value]]
        name, self.current = self.current, node.name
        self.depth += 1
        self._walk_all(value, body)
        self.depth -= 1
        self.variables, self.current = outer, name

    # -- pipelines --------------------------------------------------------------------------------------------------

    def _set(self, name: str, value: Any) -> None:
        for slot in reversed(self.variables):
            if slot[0] == name:
                slot[1] = value
                return
        self._fail(f"undefined variable: {name}")

    def _pipeline(self, dot: Any, pipe: Pipe) -> Any:
        self.node = pipe
        value = _NONE
        for command in pipe.commands:
            value = self._command(dot, command, value)
            if value is None:
                value = MISSING
        for variable in pipe.declared:
            if pipe.assign:
                self._set(variable.names[0], value)
            else:
                self.variables.append([variable.names[0], value])
        return value

    def _not_a_function(self, args: list[Node], final: Any) -> None:
        if len(args) > 1 or final is not _NONE:
            self._fail(f"can't give argument to non-function {args[0]}")

    def _command(self, dot: Any, command: Command, final: Any) -> Any:
        first, args = command.args[0], command.args
        if isinstance(first, Field):
            self.node = first
            return self._chain(dot, dot, first, first.names, args, final)
        if isinstance(first, Chain):
            return self._chain_node(dot, first, args, final)
        if isinstance(first, Identifier):
            self.node = first
            return self._function(dot, first.name, command, args, final)
        if isinstance(first, Pipe):
            self._not_a_function(args, final)
            return self._pipeline(dot, first)
        if isinstance(first, Variable):
            return self._variable(dot, first, args, final)
        self.node = first
        self._not_a_function(args, final)
        if isinstance(first, Literal):
            if first.kind == "nil":
                self._fail("nil is not a command")
            return self._constant(first)
        return dot

    def _constant(self, node: Literal) -> Any:
        value = node.value
        if isinstance(value, Rune):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
            self._fail(f"{node.source} overflows int")
        return value

    def _variable(self, dot: Any, node: Variable, args: list[Node], final: Any) -> Any:
        self.node = node
        value = next((slot[1] for slot in reversed(self.variables) if slot[0] == node.names[0]), _NONE)
        if value is _NONE:
            self._fail(f"undefined variable: {node.names[0]}")
        if len(node.names) == 1:
            self._not_a_function(args, final)
            return value
        return self._chain(dot, value, node, node.names[1:], args, final)

    def _chain_node(self, dot: Any, node: Chain, args: list[Node], final: Any) -> Any:
        self.node = node
        if node.node.kind == "nil":
            self._fail(f"indirection through explicit nil in {node}")
        value = self._argument(dot, node.node)
        return self._chain(dot, value, node, node.names, args, final)

    # -- fields and calls -------------------------------------------------------------------------------------------

    def _chain(self, dot: Any, value: Any, node: Node, names: list[str], args: list[Node], final: Any) -> Any:
        for step, name in enumerate(names[:-1], 1):
            # What a map[string]interface{} holds is an interface to Go's error texts, whatever is in it.
            inside = type(value) is dict
            value = self._field(dot, name, node, [], _NONE, value)
            if inside and (value is None or isinstance(value, str | int | float | list)):
                self._reject(names[step], value)
        return self._field(dot, names[-1], node, args, final, value)

    def _reject(self, name: str, value: Any) -> NoReturn:
        if value is None:
            self._fail(f"nil pointer evaluating interface {{}}.{name}")
        self._fail(f"can't evaluate field {name} in type interface {{}}")

    def _field(self, dot: Any, name: str, node: Node, args: list[Node], final: Any, value: Any) -> Any:
        if value is MISSING:
            if self.strict:
                self._fail(f"nil data; no entry for key {quote(name)}")
            return MISSING
        if value is None:
            self._fail(f"nil pointer evaluating interface {{}}.{name}")
        has_arguments = len(args) > 1 or final is not _NONE
        if isinstance(value, Struct):
            return self._struct_field(dot, name, node, args, final, value)
        if isinstance(value, dict):
            if has_arguments:
                self._fail(f"{name} is not a method but has arguments")
            return self._key(name, value)
        if isinstance(value, GoNil):
            if value.kind == "map":
                return MISSING
            if value.kind == "pointer":
                self._fail(f"nil pointer evaluating {type_name(value)}.{name}")
        self._fail(f"can't evaluate field {name} in type {type_name(value)}")

    def _key(self, name: str, value: dict[str, Any]) -> Any:
        if isinstance(value, GoStruct):
            try:
                return value.find(name)
            except KeyError:
                self._fail(f"can't evaluate field {name} in type {value.go_type}")
        if name in value:
            return value[name]
        if self.strict and not isinstance(value, GoMap):
            self._fail(f"map has no entry for key {quote(name)}")
        return MISSING

    def _struct_field(
        self, dot: Any, name: str, node: Node, args: list[Node], final: Any, value: Struct
    ) -> Any:
        if name not in value.fields:
            self._fail(f"can't evaluate field {name} in type {value.go_type}")
        field = value.fields[name]
        if callable(field):
            given = [self._argument(dot, arg) for arg in args[1:]]
            if final is not _NONE:
                given.append(final)
            wanted = field.__code__.co_argcount - len(field.__defaults__ or ())
            if len(given) != wanted:
                self._fail(f"wrong number of args for {name}: want {wanted} got {len(given)}")
            return field(*given)
        if len(args) > 1 or final is not _NONE:
            self._fail(f"{name} has arguments but cannot be invoked as function")
        return field

    def _function(self, dot: Any, name: str, node: Node, args: list[Node], final: Any) -> Any:
        function = self.template.functions[name]
        given = args[1:]
        count = len(given) + (final is not _NONE)
        fixed = len(function.kinds)
        if function.rest:
            if count < fixed:
                self._fail(f"wrong number of args for {name}: want at least {fixed} got {len(given)}")
        elif count != fixed:
            self._fail(f"wrong number of args for {name}: want {fixed} got {count}")
        if name in ("and", "or"):
            return self._and_or(dot, name, given, final)
        values = [self._typed(self._kind(function, index), dot, arg) for index, arg in enumerate(given)]
        if final is not _NONE:
            values.append(self._check(self._kind(function, len(given)), final))
        try:
            return function.call(*values)
        except TemplateError as error:
            self.node = node
            self._fail(f"error calling {name}: {error}")

    def _and_or(self, dot: Any, name: str, given: list[Node], final: Any) -> Any:
        value: Any = MISSING
        for arg in given:
            value = self._argument(dot, arg)
            if truth(value) == (name == "or"):
                return value
        return value if final is _NONE else final

    @staticmethod
    def _kind(function: Function, index: int) -> str:
        return function.kinds[index] if index < len(function.kinds) else function.rest

    def _typed(self, kind: str, dot: Any, node: Node) -> Any:
        if kind != "any" and isinstance(node, Literal):
            self.node = node
            if node.kind == "nil":
                if kind == "[]string":
                    return []
                self._fail(f"cannot assign nil to {kind}")
            fits = {"string": str, "int": int}.get(kind)
            if fits is None or not isinstance(node.value, fits) or isinstance(node.value, bool):
                if kind == "[]string":
                    self._fail(f"can't handle {node} for arg of type []string")
                self._fail(f"expected {'integer' if kind == 'int' else kind}; found {node}")
            return node.value
        return self._check(kind, self._argument(dot, node))

    def _check(self, kind: str, value: Any) -> Any:
        if kind == "any":
            return value
        if value is MISSING or value is None:
            if kind == "[]string":
                return []
            self._fail(f"invalid value; expected {kind}")
        if kind == "string" and isinstance(value, str):
            return value
        if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind == "[]string":
            if isinstance(value, GoNil) and value.kind == "slice":
                return []
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                return value
        self._fail(f"wrong type for value; expected {kind}; got {type_name(value)}")

    def _argument(self, dot: Any, node: Node) -> Any:
        self.node = node
        if isinstance(node, Field):
            return self._chain(dot, dot, node, node.names, [node], _NONE)
        if isinstance(node, Variable):
            return self._variable(dot, node, [], _NONE)
        if isinstance(node, Pipe):
            return self._pipeline(dot, node)
        if isinstance(node, Identifier):
            return self._function(dot, node.name, node, [node], _NONE)
        if isinstance(node, Chain):
            return self._chain_node(dot, node, [node], _NONE)
        if isinstance(node, Literal):
            return None if node.kind == "nil" else self._constant(node)
        return dot


__all__ = ["Template", "parse", "sprint"]
