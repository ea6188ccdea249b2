"""Go's text/template, case by case: template, data, and what Go's documentation promises."""

from __future__ import annotations

import pytest

from ollamad.errors import TemplateBroken
from ollamad.http.prompt.gotemplate.template import parse
from ollamad.http.prompt.gotemplate.values import JsonList, JsonMap, Record, TypeNames

DATA = {
    "Name": "Ada",
    "Empty": "",
    "Zero": 0,
    "Seven": 7,
    "Half": 0.5,
    "Yes": True,
    "No": False,
    "Nil": None,
    "List": ["a", "b", "c"],
    "None": [],
    "Map": {"b": 2, "a": 1},
    "Nested": {"Inner": {"Deep": "x"}},
    "Arguments": JsonMap({"z": "<1>", "a": [1, None]}),
    "Tools": JsonList([{"name": "one"}, {"name": "two"}]),
    "Record": Record("Thing", {"Name": "inside"}, {"name": "inside"}),
    "OneType": TypeNames(("string",)),
    "TwoTypes": TypeNames(("string", "null")),
}


def rendered(template: str) -> str:
    return parse(template).render(DATA)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("}} ' \" `", "}} ' \" `"),
        ("{{.Name}}", "Ada"),
        ("{{ .Nested.Inner.Deep }}", "x"),
        ("{{ $.Name }}", "Ada"),
        ("{{ (.Nested).Inner.Deep }}", "x"),
        ("{{ (index .List 1) }}", "b"),
        ("{{ .Record.Name }}", "inside"),
        ("{{ .Missing }}", "<no value>"),
        ("{{ (.Missing).Field }}", "<no value>"),
        ('{{ define "x" }}{{ .Field }}{{ end }}{{ template "x" }}', "<no value>"),
        ("{{ .Nil }}", "<no value>"),
        ("{{ .Yes }} {{ .No }} {{ .Seven }} {{ .Half }}", "true false 7 0.5"),
        ("{{ true }} {{ false }}", "true false"),
        ("{{\n.Name\n}}", "Ada"),
    ],
)
def test_text_and_values_print(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {{- 1 -}} b", "a1b"),
        ("a\n\t {{- 1}} b", "a1 b"),
        ("a {{1 -}} \r\n b", "a 1b"),
        ("{{- 3 -}}", "3"),
        ("{{-3}}", "-3"),
        ("{{ .Seven -}} x", "7x"),
        ("a {{/* gone */}} b", "a  b"),
        ("a {{- /* gone\n }} */ -}} b", "ab"),
        ("{{/**/}}", ""),
        ("a {{- if true -}} b {{- end -}} c", "abc"),
        ("{{ \"-}}\" }}", "-}}"),
    ],
)  # fmt: skip
def test_trim_markers_and_comments(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (r'{{ "a\tb\"\\\x41\101é\U0001F600" }}', 'a\tb"\\AAé😀'),
        ("{{ `raw \\n \"x\"` }}", 'raw \\n "x"'),
        (r"{{ 'a' }} {{ '\n' }} {{ '\'' }} {{ 'é' }}", "97 10 39 233"),
        ("{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }}", "31 5 15 15 1000"),
        ("{{ 1.5 }} {{ .5 }} {{ 1e3 }} {{ -2 }} {{ +2 }} {{ 0x1p4 }}", "1.5 0.5 1000 -2 2 16"),
        ("{{ 1e6 }} {{ 1e-5 }} {{ 123456.0 }} {{ 1e21 }}", "1e+06 1e-05 123456 1e+21"),
        (r'{{ "\xff" }}', "\ufffd"),
    ],
)  # fmt: skip
def test_constants_are_gos(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("value", "is_true"),
    [
        (".Name", True),
        (".Empty", False),
        (".Zero", False),
        (".Seven", True),
        (".Half", True),
        ("0.0", False),
        (".Yes", True),
        (".No", False),
        (".Nil", False),
        (".Missing", False),
        (".List", True),
        (".None", False),
        (".Map", True),
        (".Record", True),
    ],
)
def test_truth_is_gos(value: str, is_true: bool) -> None:
    assert rendered(f"{{{{ if {value} }}}}T{{{{ else }}}}F{{{{ end }}}}") == "FT"[is_true]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ if .No }}a{{ else if .Yes }}b{{ else }}c{{ end }}", "b"),
        ("{{ if .No }}a{{ else if .No }}b{{ else }}c{{ end }}", "c"),
        ("{{ if .No }}a{{ end }}", ""),
        ("{{ with .Nested.Inner }}{{ .Deep }}{{ $.Name }}{{ end }}", "xAda"),
        ("{{ with .Empty }}a{{ else }}{{ .Name }}{{ end }}", "Ada"),
        ("{{ with .Empty }}a{{ else with .Name }}{{ . }}{{ end }}", "Ada"),
        ("{{ with $x := .Seven }}{{ $x }}{{ end }}", "7"),
        ("{{ if $x := .Seven }}{{ $x }}{{ end }}", "7"),
    ],
)
def test_conditions(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ range .List }}{{ . }},{{ end }}", "a,b,c,"),
        ("{{ range $e := .List }}{{ $e }}{{ . }}{{ end }}", "aabbcc"),
        ("{{ range $i, $e := .List }}{{ $i }}{{ $e }} {{ end }}", "0a 1b 2c "),
        ("{{ range $k, $v := .Map }}{{ $k }}={{ $v }} {{ end }}", "a=1 b=2 "),
        ("{{ range .Map }}{{ . }}{{ end }}", "12"),
        ("{{ range .None }}x{{ else }}none{{ end }}", "none"),
        ("{{ range $i, $e := .None }}x{{ else }}{{ $e }}{{ end }}", "[]"),
        ("{{ range .Missing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ range $i := .Zero }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .List }}{{ if eq . `b` }}{{ break }}{{ end }}{{ . }}{{ end }}", "a"),
        ("{{ range .List }}{{ if eq . `b` }}{{ continue }}{{ end }}{{ . }}{{ end }}", "ac"),
        ("{{ range .List }}{{ range 3 }}{{ break }}{{ end }}{{ . }}{{ end }}", "abc"),
        ("{{ range .List }}{{ $.Name }}{{ end }}", "AdaAdaAda"),
        ("{{ $last := `` }}{{ range .List }}{{ $last = . }}{{ end }}{{ $last }}", "c"),
        ("{{ $e := `` }}{{ range $e = .List }}{{ end }}{{ $e }}", "c"),
    ],
)
def test_range(template: str, expected: str) -> None:
    assert rendered(template) == expected


def test_many_breaks_inside_blocks_do_not_use_up_the_depth() -> None:
    template = "{{ range 500 }}{{ range 2 }}{{ if true }}{{ break }}{{ end }}{{ end }}{{ end }}ok"
    assert rendered(template) == "ok"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ $x := 1 }}{{ $x }}", "1"),
        ("{{ $x := 1 }}{{ $x = 2 }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if .Yes }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ $x := 1 }}{{ if .Yes }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $m := .Nested }}{{ $m.Inner.Deep }}", "x"),
        ("{{ $x := .Name | len }}{{ $x }}", "3"),
    ],
)
def test_variables(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{define "x"}}[{{.}}]{{end}}{{template "x" .Name}}', "[Ada]"),
        ('{{template "x"}}{{define "x"}}[{{.}}]{{end}}', "[<no value>]"),
        ('{{block "x" .Seven}}<{{.}}{{$}}>{{end}}', "<77>"),
        (
            '{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{.}}{{end}}{{template "a" 1}}',
            "1",
        ),
        ('{{define "x"}} {{end}}{{define "x"}}y{{end}}{{template "x"}}', "y"),
        (
            '{{define "n"}}{{.}}{{if lt . 1}}{{template "n" 1}}{{end}}{{end}}{{template "n" 0}}',
            "01",
        ),
    ],
)
def test_named_templates(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ "abc" | len }}', "3"),
        ('{{ .Name | printf "%s-%s" "x" }}', "x-Ada"),
        ('{{ "x" | print "y" | len }}', "2"),
        ("{{ len (print 1 2) }}", "3"),
        ('{{ eq (len .List) 3 | not }}', "false"),
        ("{{ 1 | eq 1 }}", "true"),
    ],
)  # fmt: skip
def test_a_pipe_gives_its_value_as_the_last_argument(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ and .Name .Empty .Missing.Field }}", ""),
        ("{{ or .Empty .Name .Missing.Field }}", "Ada"),
        ("{{ and 1 2 }} {{ or 0 `` }}|", "2 |"),
        ("{{ 3 | and 1 }} {{ 3 | or 0 }} {{ 3 | or 1 }}", "3 3 1"),
        ("{{ not .Empty }} {{ not 1 }}", "true false"),
    ],
)
def test_and_and_or_look_no_further_than_they_must(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ eq 1 1 }} {{ eq 1 2 }} {{ eq 1 2 1 }}", "true false true"),
        ('{{ eq .Name "Ada" }} {{ ne .Name "Ada" }}', "true false"),
        ("{{ eq .Nil nil }} {{ eq .Name nil }} {{ eq .List nil }}", "true false false"),
        ("{{ eq true .Yes }}", "true"),
        ("{{ lt 1 2 }} {{ le 2 2 }} {{ gt 1 2 }} {{ ge 2 2 }}", "true true false true"),
        ('{{ lt "a" "b" }} {{ gt 1.5 0.5 }}', "true true"),
    ],
)
def test_comparisons(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ len "é" }} {{ len .List }} {{ len .Map }}', "2 3 2"),
        ("{{ index .List 2 }} {{ index .Map `a` }} {{ index .Map `q` }}", "c 1 <no value>"),
        ('{{ index "abc" 1 }} {{ index .Nested "Inner" "Deep" }}', "98 x"),
        ("{{ index .List }}", "[a b c]"),
        ("{{ slice .List 1 }} {{ slice .List 1 2 }} {{ slice .List 0 1 2 }}", "[b c] [b] [a]"),
        ('{{ slice "hello" 1 3 }}{{ slice "hello" 4 }}', "elo"),
        ('{{ slice .Tools 1 }}', '[{"name":"two"}]'),
        ('{{ html "<a href=\'x\'>&\\"" }}', "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
        ('{{ js "it\'s <b> = \\n" }}', "it\\'s \\u003Cb\\u003E \\u003D \\u000A"),
        ('{{ html nil }} {{ urlquery "x" nil }}', "&lt;no value&gt; x%3Cno+value%3E"),
        ('{{ urlquery "a b&c/é~" }}', "a+b%26c%2F%C3%A9~"),
    ],
)  # fmt: skip
def test_functions(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .List }} {{ .None }}", "[a b c] []"),
        ("{{ .Map }} {{ .Nested }}", "map[a:1 b:2] map[Inner:map[Deep:x]]"),
        ("{{ .Arguments }}", r'{"a":[1,null],"z":"\u003c1\u003e"}'),
        ("{{ json .Arguments }}", r'{"a":[1,null],"z":"\u003c1\u003e"}'),
        ('{{ json "a<b>&\\u2028\\n" }}', r'"a\u003cb\u003e\u0026\u2028\n"'),
        ("{{ json .Nil }} {{ json 1.0 }} {{ json 1e21 }} {{ json 1e-7 }}", "null 1 1e+21 1e-7"),
        ("{{ json 123456789.5 }} {{ json .List }}", '123456789.5 ["a","b","c"]'),
        ("{{ .Record }}", '{"name":"inside"}'),
        ("{{ .Tools }}", '[{"name":"one"},{"name":"two"}]'),
        ("{{ .OneType }} {{ .TwoTypes }}", "string [string null]"),
        ("{{ json .OneType }} {{ json .TwoTypes }}", '"string" ["string","null"]'),
    ],
)
def test_values_print_as_go_prints_them(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ print 1 2 "a" 3 nil }}', "1 2a3 <nil>"),
        ('{{ println 1 "a" }}', "1 a\n"),
        ('{{ printf "%d|%5d|%-5d|%05d|%+d|% d" 4 4 4 4 4 4 }}', "4|    4|4    |00004|+4| 4"),
        ('{{ printf "%x %X %#x %o %b %O %c %U" 255 255 255 8 5 8 65 65 }}',
         "ff FF 0xff 10 101 0o10 A U+0041"),
        ('{{ printf "%.3d|%08.3f|%.2f|%e|%g|%G" 5 3.14159 2.0 1500.0 0.1 1e-9 }}',
         "005|0003.142|2.00|1.500000e+03|0.1|1E-09"),
        ('{{ printf "%s|%8s|%-8s|%.2s|%q|%x" "abc" "abc" "abc" "abc" "a\\n" "hi" }}',
         'abc|     abc|abc     |ab|"a\\n"|6869'),
        ('{{ printf "%q %#q" \'x\' `a"b` }}', "'x' `a\"b`"),
        ('{{ printf "%v %v %v %t" .List .Map nil true }}', "[a b c] map[a:1 b:2] <nil> true"),
        ('{{ printf "%q %5d" .List 1 }}', '["a" "b" "c"]     1'),
        ('{{ printf "%T %T %T %T" 1 "s" .List nil }}', "int string []interface {} nil"),
        ('{{ printf "%*d|%-*d|%.*f" 4 1 4 1 1 2.55 }}', "   1|1   |2.5"),
        ('{{ printf "%[2]s %[1]s" "a" "b" }}', "b a"),
        ('{{ printf "100%% %s" .Arguments }}', r'100% {"a":[1,null],"z":"\u003c1\u003e"}'),
        ('{{ printf "%d" "x" }}', "%!d(string=x)"),
        ('{{ printf "%s" 5 }} {{ printf "%s" nil }}', "%!s(int=5) %!s(<nil>)"),
        ('{{ printf "%s %s" "x" }}', "x %!s(MISSING)"),
        ('{{ printf "x" 1 "y" }}', "x%!(EXTRA int=1, string=y)"),
        ('{{ printf "%[5]d %z %" 1 2 }}', "%!d(BADINDEX) %!z(int=1) %!(NOVERB)"),
        ('{{ printf "%3d|%+d" "x" 2.5 }}', "%!d(string=  x)|%!d(float64=+2.5)"),
        ('{{ printf "%d %+v" .Arguments 3 }}',
         "map[%!d(string=a):[1 <nil>] %!d(string=z):%!d(string=<1>)] 3"),
        ('{{ printf "%z %" 1 }}', "%!z(int=1) %!(NOVERB)"),
        ('{{ printf "%999999999999d" 1 }}', "%!(BADWIDTH)1"),
    ],
)  # fmt: skip
def test_formatting_is_gos(template: str, expected: str) -> None:
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{{ .X", "line 2: unclosed action"),
        ("{{ /* x", "unexpected \"/\" in action"),
        ("{{/* x", "unclosed comment"),
        ("{{/* x */ }}", "comment ends before closing delimiter"),
        ("{{ }}", "missing value for command"),
        ("{{ if }}a{{ end }}", "missing value for if"),
        ("{{ if .X }}a", "{{end}} is missing"),
        ("\n\n{{ end }}", "line 3: unexpected {{end}} in input"),
        ("{{ else }}", "unexpected {{else}}"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", "unexpected {{else}} in else clause"),
        ("{{ range .X }}{{ else if .Y }}{{ end }}", "unexpected {{if}} in else"),
        ("{{ nope 1 }}", 'function "nope" not defined'),
        ("{{ $x }}", 'undefined variable "$x"'),
        ("{{ if 1 }}{{ $x := 1 }}{{ end }}{{ $x }}", 'undefined variable "$x"'),
        ('{{ define "t" }}{{ $x }}{{ end }}', 'undefined variable "$x"'),
        ("{{ $x, $y := 1 }}", "too many declarations in command"),
        ("{{ range $a, $b, $c := .X }}{{ end }}", "too many declarations in range"),
        ("{{ break }}", "{{break}} outside {{range}}"),
        ("{{ continue }}", "{{continue}} outside {{range}}"),
        ('{{ define "t" }}x{{ end }}{{ define "t" }}y{{ end }}', "multiple definition"),
        ('{{ define "" }}x{{ end }}', "multiple definition"),
        ('{{ if 1 }}{{ define "t" }}{{ end }}{{ end }}', "unexpected {{define}}"),
        ("{{ (1 }}", "unclosed left paren"),
        ("{{ 1) }}", "unexpected right paren"),
        ("{{ print(1) }}", 'unexpected "(" in operand'),
        ("{{ .X | 5 }}", "non executable command in pipeline stage 2"),
        ("{{ 12a }}", 'bad number syntax: "12a"'),
        ("{{ 08 }}", "bad number syntax"),
        ("{{ - }}", "bad number syntax"),
        ("{{ 99999999999999999999 }}", "integer overflow"),
        ('{{ "abc }}', "unterminated quoted string"),
        ("{{ `abc }}", "unterminated raw quoted string"),
        ('{{ "\\q" }}', "invalid escape"),
        ('{{ "\\ud800" }}', "invalid escape"),
        ("{{ 'ab' }}", "malformed character constant"),
        ("{{ .X! }}", 'bad character "!"'),
        ("{{ : }}", "expected :="),
        ("{{ 'a'.X }}", "unexpected . after a constant"),
        ("{{ template x }}", 'unexpected "x" in template clause'),
        ("{{ | }}", 'unexpected "|" in command'),
    ],
)  # fmt: skip
def test_a_template_that_does_not_parse_is_refused_with_its_line(
    template: str, message: str
) -> None:
    with pytest.raises(TemplateBroken) as caught:
        parse(template)
    assert str(caught.value).startswith("template error: line ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("\n{{ .Missing.Field }}", "line 2: nil pointer evaluating interface {}.Field"),
        ("{{ .Name.Field }}", "can't evaluate field Field in type string"),
        ("{{ .Record.Other }}", "can't evaluate field Other in type Thing"),
        ("{{ .Name 1 }}", "can't give argument to non-function"),
        ("{{ 1 2 }}", "can't give argument to non-function"),
        ("{{ nil }}", "nil is not a command"),
        ("{{ range .Name }}{{ end }}", "range can't iterate over a value of type string"),
        ("{{ range $i, $e := 3 }}{{ end }}", "can't use 3 to iterate over more than one variable"),
        ("{{ range .Record }}{{ end }}", "range can't iterate over a value of type Thing"),
        ('{{ template "nope" }}', 'template "nope" not defined'),
        ("{{ eq 1 1.0 }}", "incompatible types for comparison"),
        ("{{ eq .List .List }}", "non-comparable type"),
        ("{{ eq 1 }}", "missing argument for comparison"),
        ("{{ lt 1 `a` }}", "incompatible types for comparison"),
        ("{{ lt true false }}", "invalid type for comparison"),
        ("{{ len 3 }}", "error calling len: len of type int"),
        ("{{ len nil }}", "len of nil pointer"),
        ("{{ len }}", "wrong number of args for len: want 1 got 0"),
        ("{{ and }}", "want at least 1 got 0"),
        ("{{ not 1 2 }}", "wrong number of args for not: want 1 got 2"),
        ("{{ index .List 9 }}", "index out of range: 9"),
        ("{{ index .List `a` }}", "cannot index slice/array with type string"),
        ("{{ index .Map 1 }}", "should be string"),
        ("{{ index nil 1 }}", "index of untyped nil"),
        ("{{ index 5 1 }}", "can't index item of type int"),
        ("{{ slice .List 2 1 }}", "invalid slice index: 2 > 1"),
        ("{{ slice `abc` 9 }}", "index out of range: 9"),
        ("{{ slice `abc` 0 1 2 }}", "cannot 3-index slice a string"),
        ("{{ slice nil }}", "slice of untyped nil"),
        ("{{ printf 1 }}", "expected string; got int"),
        ("{{ call .Name }}", "call of non-function of type string"),
        ("{{ $x = 1 }}", 'undefined variable "$x"'),
    ],
)
def test_a_template_that_fails_says_where_and_why(template: str, message: str) -> None:
    with pytest.raises(TemplateBroken) as caught:
        parse(template).render(DATA)
    assert str(caught.value).startswith("template error: line ")
    assert message in str(caught.value)


def test_identifiers_are_the_fields_of_all_texts_in_lower_case() -> None:
    template = parse(
        '{{define "x"}}{{ .ToolCalls }}{{end}}{{ if .System }}{{ $.Think }}{{ end }}'
        "{{ range $i, $m := (slice .Messages 1) }}{{ (index $m.Images 0).Size }}{{ end }}"
    )
    assert template.identifiers == {"toolcalls", "system", "think", "messages", "images", "size"}
