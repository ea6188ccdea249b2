from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamactl.errors import ModelfileError
from ollamactl.modelfile import KEYWORDS, MODELFILE_BYTES_MAX, decode, parse

COMMANDS = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)


def test_every_instruction_is_read() -> None:
    modelfile = parse("""\
# a comment
FROM llama3.2
from ./mmproj.gguf
ADAPTER lora.gguf
DRAFT small.gguf
TEMPLATE {{ .Prompt }}
SYSTEM You are  a pirate. # no comment
RENDERER r
PARSER p
REQUIRES v0.14.0
LICENSE one
LICENSE two
MESSAGE user Hello: you
MESSAGE assistant "Hi"
PARAMETER num_ctx 8192
PARAMETER temperature 0.7
PARAMETER use_mmap true
PARAMETER stop <|a|>
PARAMETER stop "b c"
PARAMETER temperature 0.9
""")

    assert modelfile.froms == ("llama3.2", "./mmproj.gguf")
    assert modelfile.adapters == ("lora.gguf",)
    assert modelfile.drafts == ("small.gguf",)
    assert modelfile.template == "{{ .Prompt }}"
    assert modelfile.system == "You are  a pirate. # no comment"
    assert (modelfile.renderer, modelfile.parser, modelfile.requires) == ("r", "p", "0.14.0")
    assert modelfile.licenses == ("one", "two")
    assert modelfile.messages == (("user", "Hello: you"), ("assistant", "Hi"))
    assert modelfile.parameters == {
        "num_ctx": 8192,
        "temperature": 0.9,
        "use_mmap": True,
        "stop": ["<|a|>", "b c"],
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("plain text", "plain text"),
        ("   blanks around \t", "blanks around"),
        ('"quoted"', "quoted"),
        ('"  kept  "', "  kept  "),
        ('"two\nlines"', "two\nlines"),
        ('"""triple"""', "triple"),
        ('"""\nfirst\n"second"\n"""', '\nfirst\n"second"\n'),
        ('"""one "quoted" word"""', 'one "quoted" word'),
        ('""', ""),
        ('""""""', ""),
        ("'single'", "'single'"),
        ('say "hi"', 'say "hi"'),
        (r"a\nb", r"a\nb"),
        ('"a" b\nc"', 'a" b\nc'),
        ('"""a\nb""" \t', "a\nb"),
        ("a\x00\x1bb", "ab"),
        ('"tab\tin"', "tab\tin"),
        ('"a\r\nb"', "a\r\nb"),
    ],
)
def test_values_end_and_lose_their_quotes_as_the_grammar_says(written: str, value: str) -> None:
    assert parse(f"FROM x\nSYSTEM {written}").system == value
    assert parse(f"SYSTEM {written}\nFROM x\n").system == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("# only\n\n", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM x\n\nFOO bar", f"(line 3): {COMMANDS}"),
        ("FROM x\r\n\r\nFOO bar", f"(line 3): {COMMANDS}"),
        ("FROM\nllama3", f"(line 1): {COMMANDS}"),
        ("FROM  \nSYSTEM x", "(line 1): FROM needs a value"),
        ("FROM", "unexpected EOF (FROM in line 1 has no value)"),
        ('FROM x\nSYSTEM "a\nb\n', 'unexpected EOF (the " opened in line 2 is never closed)'),
        ('FROM x\nSYSTEM """a"', 'unexpected EOF (the """ opened in line 2 is never closed)'),
        ('FROM x\nSYSTEM "', 'unexpected EOF (the " opened in line 2 is never closed)'),
        (
            "FROM x\nMESSAGE bot hi",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
        ("FROM x\nMESSAGE user", "(line 2): MESSAGE needs a role and a text"),
        ("FROM x\nPARAMETER top_k", "(line 2): PARAMETER needs a name and a value"),
        ("FROM x\nPARAMETER foo 1", "(line 2): unknown parameter 'foo'"),
        ("FROM x\nPARAMETER top_k x", "(line 2): invalid int value [x]"),
        ("FROM x\nPARAMETER top_k 99999999999999999999", "(line 2): invalid int value"),
        ("FROM x\nPARAMETER top_k 1_0", "(line 2): invalid int value [1_0]"),
        ("FROM x\nPARAMETER top_p nan", "(line 2): invalid float value [nan]"),
        ("FROM x\nPARAMETER top_p 1e50", "(line 2): invalid float value [1e50]"),
        ("FROM x\nPARAMETER use_mmap yes", "(line 2): invalid bool value [yes]"),
        ("FROM x\nREQUIRES soon", "(line 2): requires must be a valid semver (e.g. 0.14.0)"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse(text)

    assert str(caught.value).startswith(message)


def test_deprecated_parameters_are_skipped_with_a_warning() -> None:
    modelfile = parse("FROM x\nPARAMETER low_vram 1\nPARAMETER top_k 3")

    assert modelfile.warnings == ("warning: parameter low_vram is deprecated",)
    assert modelfile.parameters == {"top_k": 3}


def test_parameters_of_every_type_are_read() -> None:
    modelfile = parse(
        "FROM x\nPARAMETER mirostat 2\nPARAMETER dry_base 2\nPARAMETER ignore_eos true\n"
        "PARAMETER kv_cache_type q8_0\nPARAMETER dry_sequence_breakers :\n"
        "PARAMETER dry_sequence_breakers *"
    )

    assert modelfile.parameters == {
        "mirostat": 2,
        "dry_base": 2.0,
        "ignore_eos": True,
        "kv_cache_type": "q8_0",
        "dry_sequence_breakers": [":", "*"],
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_honoured(encoding: str) -> None:
    assert parse(decode("FROM é\n".encode(encoding))).froms == ("é",)


def test_a_model_named_as_modelfile_is_told_apart() -> None:
    with pytest.raises(ModelfileError, match="not UTF-8 text"):
        decode(b"GGUF\x03\x00\x00\x00\xff")
    with pytest.raises(ModelfileError, match="larger than 16 MiB"):
        decode(b" " * (MODELFILE_BYTES_MAX + 1))


_FRAGMENTS = st.sampled_from(
    [*(f"{word} " for word in KEYWORDS), "FROM x\n", '"', '"""', "\n", "\r", "#", "stop ", "user "]
)


@given(st.lists(_FRAGMENTS | st.text(max_size=10), max_size=30).map("".join))
def test_any_text_is_a_modelfile_or_its_error(text: str) -> None:
    try:
        modelfile = parse(text)
    except ModelfileError:
        return
    assert modelfile.froms


@given(st.binary())
def test_any_bytes_are_text_or_the_error(content: bytes) -> None:
    try:
        text = decode(content)
    except ModelfileError:
        return
    assert isinstance(text, str)
