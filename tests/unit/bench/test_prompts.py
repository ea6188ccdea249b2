from __future__ import annotations

import pytest

from bench.peers.prompts import WORDS, prompts_for


def split(text: str) -> list[str]:
    return ["<s>", *(f" {word}" for word in text.split())]


def test_a_text_has_the_tokens_that_were_asked_for() -> None:
    prompts = prompts_for(split).seeded("a")

    assert len(split(prompts.text(32))) == 32
    assert len(split(prompts.text(512) + prompts.words(32, "end"))) == 544


def test_texts_are_alike_for_both_sides_and_new_for_each_round() -> None:
    prompts = prompts_for(split)

    assert prompts.seeded("1").text(32) == prompts.seeded("1").text(32)
    assert prompts.seeded("1").text(32)[:20] != prompts.seeded("2").text(32)[:20]
    assert prompts.seeded("1").text(32, 0)[:20] != prompts.seeded("1").text(32, 1)[:20]


def test_words_of_several_tokens_are_not_used() -> None:
    def pieces(text: str) -> list[str]:
        return [token for token in split(text) if len(token) > 4]

    assert all(len(word) > 3 for word in prompts_for(pieces).words(500).split())


def test_a_vocabulary_without_our_words_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        prompts_for(lambda _text: [f" {word}" for word in WORDS[:5]])
