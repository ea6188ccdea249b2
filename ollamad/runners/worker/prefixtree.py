"""The prefix tree: which beginnings of texts are in the KV cache, and who holds them. Pure.

A radix tree over token ids. Each node is a run of tokens; a text in the cache is a path from the
root. A *holder* is a sequence of the KV cache whose tokens end exactly at its node: it keeps the
cells of its path. A *pin* is a running request that goes on from a node: pinned nodes stay.

Every partition has a root of its own, so that requests of one never meet what another computed.
The tree only remembers; what it tells to let go of, its caller removes from the KV cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NewType

from ollamad.runners.worker.tokens import Tokens, common_prefix, tokens_of

SequenceId = NewType("SequenceId", int)
"""A sequence of the KV cache."""


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """A run of tokens that follows its parent's."""

    tokens: Tokens
    parent: Node | None
    depth: int
    """Tokens from the root to this node's end."""
    children: dict[int, Node] = dataclasses.field(default_factory=dict)
    """By first token."""
    holder: SequenceId | None = None
    pins: int = 0
    value: float = 0.0
    """What it is worth to keep: larger leaves later."""

    @property
    def begins_at(self) -> int:
        """Tokens from the root to this node's begin."""
        return self.depth - len(self.tokens)

    @property
    def is_evictable(self) -> bool:
        """It is a leaf that nobody uses now."""
        return self.parent is not None and not self.children and not self.pins


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """The longest beginning of a text that the tree has."""

    node: Node
    """The node in which it ends."""
    n_tokens: int
    """Its length; may end inside the node."""


class PrefixTree:
    """See the module."""

    def __init__(self) -> None:
        self._roots: dict[str, Node] = {}
        self.n_tokens = 0
        """Tokens of all nodes: the cells they occupy."""

    # Looking

    def match(self, partition: str, tokens: Tokens) -> Match:
        """Return the longest beginning of *tokens* that *partition* has."""
        node = self._root(partition)
        while node.depth < len(tokens):
            child = node.children.get(int(tokens[node.depth]))
            if child is None:
                break
            common = common_prefix(child.tokens, tokens[node.depth :])
            if common < len(child.tokens):
                return Match(child, node.depth + common)
            node = child
        return Match(node, node.depth)

    def path(self, node: Node) -> Iterator[Node]:
        """Yield *node* and its ancestors, but the root."""
        while node.parent is not None:
            yield node
            node = node.parent

    def holder_below(self, node: Node) -> Node | None:
        """Return a node at or below *node* that has a holder: that holder has *node*'s cells."""
        while node.holder is None:
            if not node.children:
                return None
            node = next(iter(node.children.values()))
        return node

    def holders(self) -> Iterator[Node]:
        """Yield every node that has a holder."""
        return (node for node in self._nodes() if node.holder is not None)

    def least_valuable_leaf(self) -> Node | None:
        """Return the leaf to let go of first, or `None` if all are in use."""
        leaves = [node for node in self._nodes() if node.is_evictable]
        return min(leaves, key=lambda node: node.value, default=None)

    def _nodes(self) -> Iterator[Node]:
        pending = list(self._roots.values())
        while pending:
            node = pending.pop()
            pending.extend(node.children.values())
            if node.parent is not None:
                yield node

    def _root(self, partition: str) -> Node:
        if partition not in self._roots:
            self._roots[partition] = Node(tokens_of(()), None, 0)
        return self._roots[partition]

    # Changing

    def end_at(self, match: Match) -> Node:
        """Return a node that ends exactly where *match* does, splitting one if need be."""
        node = match.node
        at = match.n_tokens - node.begins_at
        if at == len(node.tokens):
            return node
        parent = node.parent
        assert parent is not None  # noqa: S101 - a root is empty: nothing ends inside it
        if at == 0:
            return parent
        upper = Node(
            node.tokens[:at],
            parent,
            match.n_tokens,
            children={int(node.tokens[at]): node},
            value=node.value,
        )
        parent.children[int(node.tokens[0])] = upper
        node.tokens, node.parent = node.tokens[at:], upper
        return upper

    def add(self, partition: str, tokens: Tokens) -> tuple[Node, int]:
        """Return the node at which *tokens* end, and how many of them the tree had before."""
        match = self.match(partition, tokens)
        node = self.end_at(match)
        if match.n_tokens < len(tokens):
            rest = tokens[match.n_tokens :].copy()
            child = Node(rest, node, len(tokens))
            node.children[int(rest[0])] = child
            self.n_tokens += len(rest)
            node = child
        return node, match.n_tokens

    def remove(self, leaf: Node) -> Node:
        """Take out a leaf that nobody uses, and return its parent."""
        parent = leaf.parent
        assert parent is not None and leaf.is_evictable  # noqa: S101, PT018 - the caller looked
        del parent.children[int(leaf.tokens[0])]
        self.n_tokens -= len(leaf.tokens)
        self._forget_if_empty(parent)
        return parent

    def pin(self, node: Node) -> Node:
        """Keep *node* and its ancestors until `unpin`, and return it."""
        node.pins += 1
        return node

    def unpin(self, node: Node) -> None:
        """Take back one `pin`; then take out what no holder, no child and no pin needs."""
        node.pins -= 1
        self.prune(node)

    def prune(self, node: Node) -> None:
        """Take out *node* and its ancestors as far as no holder, no child and no pin needs them."""
        while node.is_evictable and node.holder is None:
            node = self.remove(node)
        self._forget_if_empty(node)

    def _forget_if_empty(self, root: Node) -> None:
        if root.parent is None and not root.children and not root.pins:
            self._roots = {name: own for name, own in self._roots.items() if own is not root}
