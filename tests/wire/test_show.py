"""/api/show: what is laid over a model, and what is told of it."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from ollamad.names import ModelName
from ollamad.registry.create import CreateSpec
from tests.builders import a_gguf_blob, created
from tests.wire.site import a_site


async def test_a_system_prompt_and_options_can_be_laid_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    body = {"model": "tiny", "system": "Be brief.", "options": {"seed": 7, "stop": ["a", "b"]}}
    async with a_site(tmp_path) as site:
        shown = (await site.ask("POST", "/api/show", body)).json
        after = (await site.ask("POST", "/api/show", {"model": "tiny"})).json

    assert shown["system"] == "Be brief."
    lines = shown["modelfile"].splitlines()
    assert "SYSTEM Be brief." in lines
    assert {"PARAMETER seed 7", "PARAMETER stop a", "PARAMETER stop b"} <= set(lines)
    assert "parameters" not in shown
    assert "system" not in after


async def test_the_modelfile_names_what_ollama_would_read_answers_with(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        name = ModelName.parse("mine")
        created(site.store, CreateSpec(name=name, from_="tiny", renderer="qwen3", parser="qwen3"))
        shown = (await site.ask("POST", "/api/show", {"model": "mine"})).json

    assert "RENDERER qwen3\nPARSER qwen3\n" in shown["modelfile"]


async def test_a_projector_is_described_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        model = a_gguf_blob(site.store, tmp_path)
        projector = a_gguf_blob(
            site.store, tmp_path, architecture="clip", kind="projector", tokenizer=""
        )
        files = {"model.gguf": str(model), "projector.gguf": str(projector)}
        created(site.store, CreateSpec(name=ModelName.parse("seeing"), files=files))
        shown = (await site.ask("POST", "/api/show", {"model": "seeing"})).json

    assert shown["projector_info"]["general.architecture"] == "clip"
    assert list(shown).index("projector_info") == list(shown).index("model_info") + 1


async def test_copilot_is_told_the_name_it_asked_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        body = {"model": "tiny:latest"}
        shown = await site.ask("POST", "/api/show", body, **{"user-agent": "GitHubCopilotChat/1.0"})

    assert shown.json["model_info"]["general.basename"] == "tiny:latest"


async def test_the_keys_stand_in_ollamas_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        spec = CreateSpec(
            name=ModelName.parse("mine"),
            from_="tiny",
            system="s",
            licenses=("MIT",),
            parameters={"seed": 1},
            requires="0.1.0",
        )
        created(site.store, spec)
        shown = (await site.ask("POST", "/api/show", {"model": "mine"})).json

    assert list(shown) == [
        "license", "modelfile", "parameters", "template", "system", "details", "model_info",
        "tensors", "capabilities", "modified_at", "requires",
    ]  # fmt: skip
