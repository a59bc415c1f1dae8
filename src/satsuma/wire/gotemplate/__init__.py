"""Go's text/template, the language of `--format`: text in, text out.

Owns lexing, parsing, evaluation and Go's way of printing values, with Go's error texts.  Must not know where the data
comes from, nor what a command line is.

    parse('{{range .Mounts}}{{.Source}} {{end}}').execute({"Mounts": [{"Source": "/data"}]})

Data are plain JSON values (dict = map, list = slice, None = nil interface) and, for what JSON cannot tell, the classes
of `values`: `Struct` (fields and methods, a missing one is an error), `GoMap` (a missing key is `<no value>`), `GoNil`.

Source: pkg.go.dev/text/template, pkg.go.dev/fmt; compared with Go 1.26 by the tests' table.
"""

from __future__ import annotations

from satsuma.wire.gotemplate.evaluate import Template, parse
from satsuma.wire.gotemplate.functions import encode_json, header_functions
from satsuma.wire.gotemplate.values import GoMap, GoNil, GoStruct, Record, Struct, TemplateError

__all__ = [
    "GoMap",
    "GoNil",
    "GoStruct",
    "Record",
    "Struct",
    "Template",
    "TemplateError",
    "encode_json",
    "header_functions",
    "parse",
]
