"""Go templates: text by text as Go 1.26 gives them, and the data that only we have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from satsuma.wire.gotemplate import (
    GoMap,
    GoNil,
    GoStruct,
    Record,
    Struct,
    TemplateError,
    encode_json,
    header_functions,
    parse,
)

# What Go's text/template, with docker's functions, made of each template on the same data.  The few cases that differ
# by design are not in it: `join` takes any list of strings, and a JSON object keeps its order.
_STORED = json.loads((Path(__file__).parent / "gotemplate_cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", _STORED["cases"], ids=lambda case: case["template"][:40])
def test_as_go(case: dict[str, object]) -> None:
    template = str(case["template"])
    if "error" in case:
        with pytest.raises(TemplateError) as caught:
            parse(template).execute(_STORED["data"], missing_is_error=bool(case.get("strict")))
        assert str(caught.value) == case["error"]
    else:
        assert (
            parse(template).execute(_STORED["data"], missing_is_error=bool(case.get("strict")))
            == case["text"]
        )


def test_methods_take_arguments_and_are_called_when_asked_for() -> None:
    asked: list[str] = []

    def label(name: str) -> str:
        asked.append(name)
        return name.upper()

    row = Struct("*row", {"ID": "x", "Label": label, "Lazy": lambda: 1 / 0})
    assert parse('{{.ID}} {{.Label "a"}} {{"b" | .Label}}').execute(row) == "x A B"
    assert asked == ["a", "b"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nope}}", "can't evaluate field Nope in type *row"),
        ("{{.Label}}", "wrong number of args for Label: want 1 got 0"),
        ('{{.ID "a"}}', "ID has arguments but cannot be invoked as function"),
    ],
)
def test_what_a_struct_refuses(template: str, message: str) -> None:
    row = Struct("*row", {"ID": "x", "Label": lambda name: name})
    with pytest.raises(TemplateError, match=message.replace("*", r"\*")):
        parse(template).execute(row)


def test_a_missing_label_is_no_error_but_a_missing_field_is() -> None:
    data = GoStruct({"Labels": GoMap({"a": "b"})})
    assert parse("{{.Labels.a}} {{.Labels.zz}}").execute(data, missing_is_error=True) == "b <no value>"
    assert parse('{{index .Labels "zz"}}|').execute(data) == "|"
    with pytest.raises(TemplateError, match="can't evaluate field Nope in type struct"):
        parse("{{.Nope}}").execute(data)


def test_structs_print_as_structs_and_know_their_go_names() -> None:
    data = GoStruct(
        {"Id": "1", "Log": GoStruct({"Type": "json-file", "Config": GoMap({})})},
        names={"ID": "Id"},
        omitted={"Mounts": GoNil("slice")},
    )
    assert parse("{{.ID}} {{.Log}} {{.Mounts}} {{len .Mounts}}").execute(data) == "1 {json-file map[]} [] 0"
    with pytest.raises(TemplateError):
        parse("{{.Id}}").execute(data)  # that is the JSON name: docker falls back to the raw document


@pytest.mark.parametrize(("kind", "text"), [("pointer", "<nil>"), ("slice", "[]"), ("map", "map[]")])
def test_nils_of_a_type(kind: str, text: str) -> None:
    assert parse("{{.}}|{{json .}}|{{if .}}x{{end}}").execute(GoNil(kind)) == f"{text}|null|"


def test_json_of_rows_is_sorted_and_escaped() -> None:
    row = Struct("*row", {"Ports": "1->2", "ID": lambda: "<x>", "Label": lambda name: name})
    assert encode_json(row) == '{"ID":"\\u003cx\\u003e","Ports":"1-\\u003e2"}'
    assert parse("{{json .Ports}}").execute(row) == '"1->2"'


def test_records_keep_their_order_and_json_names() -> None:
    record = Record(
        "r", {"Version": "1", "APIVersion": "2", "Empty": ""}, {"APIVersion": "ApiVersion", "Empty": ""}
    )
    assert encode_json(record) == '{"Version":"1","ApiVersion":"2"}'
    assert parse("{{.APIVersion}}").execute(record) == "2"


def test_headings_pass_through_dockers_functions() -> None:
    template = parse('{{upper .Name}}\t{{join .Names ","}}\t{{truncate .ID 3}}', functions=header_functions())
    assert template.execute({"Name": "Name", "Names": "Names", "ID": "Ident"}) == "Name\tNames\tIdent"


def test_the_name_of_a_template_is_in_its_errors() -> None:
    with pytest.raises(TemplateError, match=r'template: version:1:2: executing "version" at <\.A>'):
        parse("{{.A}}", name="version").execute(Struct("T", {}))


def test_deep_nesting_is_refused_not_a_crash() -> None:
    with pytest.raises(TemplateError, match="max expression depth exceeded"):
        parse("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}")
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        parse('{{define "a"}}{{template "a"}}{{end}}{{template "a"}}').execute({})
