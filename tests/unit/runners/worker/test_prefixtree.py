from __future__ import annotations

from ollamad.runners.worker.prefixtree import Node, PrefixTree, SequenceId
from ollamad.runners.worker.tokens import Tokens, tokens_of


def text(*ids: int) -> Tokens:
    return tokens_of(ids)


def held(tree: PrefixTree, tokens: Tokens, holder: int, partition: str = "") -> Node:
    node, _ = tree.add(partition, tokens)
    node.holder = SequenceId(holder)
    return node


def test_an_empty_tree_has_nothing() -> None:
    match = PrefixTree().match("", text(1, 2))

    assert match.n_tokens == 0


def test_the_longest_beginning_is_found_also_inside_a_node() -> None:
    tree = PrefixTree()
    held(tree, text(1, 2, 3, 4), 0)

    assert tree.match("", text(1, 2, 3, 4, 5)).n_tokens == 4
    assert tree.match("", text(1, 2, 9)).n_tokens == 2
    assert tree.match("", text(9)).n_tokens == 0


def test_a_node_is_split_where_texts_part() -> None:
    tree = PrefixTree()
    first = held(tree, text(1, 2, 3, 4), 0)
    second = held(tree, text(1, 2, 8, 9), 1)

    assert first.parent is second.parent
    assert first.parent is not None
    assert first.parent.depth == 2
    assert first.tokens.tolist() == [3, 4]
    assert tree.n_tokens == 6


def test_adding_says_what_was_there() -> None:
    tree = PrefixTree()
    held(tree, text(1, 2, 3), 0)

    _, n_had = tree.add("", text(1, 2, 3, 4))
    _, n_all = tree.add("", text(1, 2))

    assert (n_had, n_all) == (3, 2)


def test_a_beginning_is_held_by_whoever_goes_on_from_it() -> None:
    tree = PrefixTree()
    leaf = held(tree, text(1, 2, 3, 4), 7)
    inner = tree.end_at(tree.match("", text(1, 2)))

    assert inner.holder is None
    assert tree.holder_below(inner) is leaf


def test_partitions_do_not_meet() -> None:
    tree = PrefixTree()
    held(tree, text(1, 2, 3), 0, partition="a")

    assert tree.match("b", text(1, 2, 3)).n_tokens == 0
    assert tree.match("a", text(1, 2, 3)).n_tokens == 3


def test_what_is_pinned_is_not_let_go_of() -> None:
    tree = PrefixTree()
    leaf = held(tree, text(1, 2), 0)
    tree.pin(leaf)
    assert tree.least_valuable_leaf() is None

    tree.unpin(leaf)
    assert tree.least_valuable_leaf() is leaf


def test_the_leaf_of_least_value_goes_first() -> None:
    tree = PrefixTree()
    precious, cheap = held(tree, text(1, 2), 0), held(tree, text(3, 4), 1)
    precious.value, cheap.value = 9, 3

    assert tree.least_valuable_leaf() is cheap


def test_unpinning_takes_out_what_nobody_needs() -> None:
    tree = PrefixTree()
    node, _ = tree.add("", text(1, 2, 3))
    tree.pin(node)
    tree.unpin(node)

    assert tree.n_tokens == 0
    assert tree.match("", text(1, 2, 3)).n_tokens == 0
