"""What the KV cache holds: open sequences of running requests, and idle ones for later prompts.

One unified cache: a beginning that many texts share is there once, and each sequence that has it
is marked at its cells. The tree of beginnings is `prefixtree`; here its decisions meet the cache.

How much can be shared depends on the model's memory:
- WHOLE: any beginning of anything in the cache. Holders are at leaves only: an inner node's cells
  are its descendants' as well.
- RECURRENT: a running state cannot be cut, so only the very ends of holders can be gone on from.
  Requests leave such ends behind on purpose (`publish`).
- WINDOW: as RECURRENT, and also where a holder still has a whole window before the end in
  question: llama.cpp gives away cells that fell out of a sequence's window. Where the window
  layers are not roomy, a holder longer than a window is handed over rather than copied, because
  cells are given away only when one sequence alone has them.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Protocol

from ollamad.runners.protocol import MemoryKind
from ollamad.runners.worker.prefixtree import Match, Node, PrefixTree, SequenceId
from ollamad.runners.worker.tokens import Tokens, tokens_of

REUSE_BONUS: Final = 64
"""A text that others went on from counts as if it was used so many uses later than it was."""


class KvMemory(Protocol):
    """The part of llama.cpp's memory that sharing needs. Sequences are named by number."""

    kind: MemoryKind
    n_cells: int
    """Tokens it holds at most."""
    n_sequences: int
    window: int
    """Tokens that a WINDOW memory looks back."""
    is_roomy: bool
    """A WINDOW memory has as many cells for window layers as for the others."""

    def share(self, source: SequenceId, target: SequenceId, begin: int, end: int) -> None:
        """Give *target* the cells of *source*'s positions from *begin* to *end*, for its own."""
        ...

    def cut(self, sequence: SequenceId, n_tokens: int) -> bool:
        """Keep the first *n_tokens* only. False if this memory cannot; nothing changes then."""
        ...

    def first_kept(self, sequence: SequenceId) -> int:
        """Return the first position that *sequence* still has in every layer."""
        ...


@dataclasses.dataclass(slots=True, eq=False)
class OpenSequence:
    """A running request's sequence."""

    id: SequenceId
    partition: str
    pinned: Node
    """Where the shared beginning ends that it went on from."""
    n_tokens: int
    """Tokens it has in the cache."""
    n_duplicates: int = 0
    """Cells it shares that repeat what the tree has in other cells; counted with each user."""
    is_genuine: bool = True
    """Its cells are what computing its tokens gives; not so after a context shift."""

    @property
    def n_own(self) -> int:
        """Cells that no one else counts."""
        return self.n_tokens - self.pinned.depth + self.n_duplicates


class PrefixCache:
    """See the module."""

    def __init__(self, memory: KvMemory, *, keeps_idle: bool = True) -> None:
        self._memory = memory
        self._keeps_idle = keeps_idle
        self._tree = PrefixTree()
        self._free = [SequenceId(n) for n in reversed(range(memory.n_sequences))]
        self._open: list[OpenSequence] = []
        self._duplicates: dict[SequenceId, int] = {}
        """Cells of holders that repeat what the tree has in other cells already."""
        self._uses = 0

    # Numbers

    @property
    def n_used(self) -> int:
        """Cells in use."""
        return (
            self._tree.n_tokens
            + sum(sequence.n_own for sequence in self._open)
            + sum(self._duplicates.values())
        )

    @property
    def n_idle(self) -> int:
        """Ended texts, and beginnings, that are kept for later."""
        return sum(1 for _ in self._tree.holders())

    def count_shared(self) -> int:
        """Return how many cells more than one sequence uses."""
        users: dict[Node, int] = {}
        ends = [*self._tree.holders(), *(sequence.pinned for sequence in self._open)]
        for end in ends:
            for node in self._tree.path(end):
                users[node] = users.get(node, 0) + 1
        return sum(len(node.tokens) for node, n_users in users.items() if n_users > 1)

    # Opening and closing

    @property
    def kind(self) -> MemoryKind:
        """What the model's memory allows."""
        return self._memory.kind

    def known(self, partition: str, prompt: Tokens) -> int:
        """Return how many first tokens of *prompt* are those of a text in the cache."""
        return self._tree.match(partition, prompt).n_tokens

    def can_publish(self, n_tokens: int) -> bool:
        """Return whether a request that has computed just *n_tokens* can let others go on there."""
        return self._keeps_idle and not self._must_hand_over(n_tokens)

    def reusable(self, partition: str, prompt: Tokens) -> int:
        """Return how many first tokens of *prompt* need not be computed now."""
        return self._best(partition, prompt)[0] if self._keeps_idle else 0

    def open(self, partition: str, prompt: Tokens) -> OpenSequence | None:
        """Return a sequence for *prompt* that has what could be reused, or `None` without a place.

        The last token of a prompt is never reused, because its logits are needed.
        """
        n_tokens, source = self._best(partition, prompt) if self._keeps_idle else (0, None)
        match = self._tree.match(partition, prompt[:n_tokens])
        pinned = self._tree.pin(self._tree.end_at(match))
        if source is not None and self._must_hand_over(n_tokens):
            return self._handed_over(partition, pinned, source, n_tokens)
        sequence = self._free_sequence(spared=source)
        if sequence is None:
            self._tree.unpin(pinned)
            return None
        n_duplicates = 0
        if source is not None:
            assert source.holder is not None  # noqa: S101 - that is what makes it a source
            self._memory.share(source.holder, sequence, 0, n_tokens)
            n_duplicates = self._duplicates.get(source.holder, 0)
            self._note_use(source)
        return self._opened(OpenSequence(sequence, partition, pinned, n_tokens, n_duplicates))

    def close(self, sequence: OpenSequence, tokens: Tokens, *, keep: bool) -> None:
        """End a request's sequence; *keep* what it computed of *tokens* for later ones."""
        self._open.remove(sequence)
        tokens = tokens[: sequence.n_tokens]
        keep = keep and self._keeps_idle and sequence.is_genuine and len(tokens) > 0
        if keep and self._memory.kind is MemoryKind.WHOLE:
            keep = self._merge(sequence, tokens)
        if keep:
            self._hold(sequence, tokens, sequence.id)
        else:
            self._let_go(sequence.id)
        self._tree.unpin(sequence.pinned)

    def restart(self, sequence: OpenSequence) -> None:
        """Forget all that *sequence* has."""
        self._memory.cut(sequence.id, 0)
        self._pin(sequence, self._tree.match(sequence.partition, tokens_of(())).node)
        sequence.n_tokens = sequence.n_duplicates = 0
        sequence.is_genuine = True

    def publish(self, sequence: OpenSequence, tokens: Tokens, n_tokens: int) -> bool:
        """Let others go on from the first *n_tokens* of a running request. False if impossible."""
        if not self.can_publish(n_tokens) or not sequence.is_genuine:
            return False
        if n_tokens < sequence.pinned.depth:
            return False
        if not self._can_end(sequence.id, sequence.n_tokens, n_tokens):
            return False
        if self._memory.kind is MemoryKind.WHOLE and not self._merge(sequence, tokens):
            return False
        match = self._tree.match(sequence.partition, tokens[:n_tokens])
        if match.n_tokens == n_tokens and self._best_at(match, n_tokens)[0] == n_tokens:
            return True  # It is there already.
        held = self._free_sequence()
        if held is None:
            return False
        self._memory.share(sequence.id, held, 0, n_tokens)
        self._pin(sequence, self._hold(sequence, tokens[:n_tokens], held))
        sequence.n_duplicates = self._duplicates.get(held, sequence.n_duplicates)
        return True

    # Room

    def make_room(self, n_tokens: int) -> bool:
        """Let go of idle texts, least valuable first, until *n_tokens* more fit. False if not."""
        while self._memory.n_cells - self.n_used < n_tokens:
            if not self.let_go_of_one():
                return False
        return True

    def let_go_of_one(self) -> bool:
        """Let go of the least valuable idle leaf. False if there is none."""
        leaf = self._tree.least_valuable_leaf()
        if leaf is None:
            return False
        holder, leaf.holder = leaf.holder, None
        assert holder is not None  # noqa: S101 - a leaf that nobody uses has one
        n_tokens = leaf.depth
        parent = self._tree.remove(leaf)
        is_bare = not parent.children and parent.holder is None and parent.parent is not None
        if is_bare and self._can_end(holder, n_tokens, parent.depth):
            self._memory.cut(holder, parent.depth)
            parent.holder = holder
        else:
            self._let_go(holder)
            self._tree.prune(parent)
        return True

    def _free_sequence(self, spared: Node | None = None) -> SequenceId | None:
        """Return an unused sequence, made free if need be by taking it from a holder but *spared*.

        First from leaves that nobody uses. Any other holder may go as well: the cells at its node
        are its descendants' too, or those of the request that pins it.
        """
        if not self._free:
            holders = (node for node in self._tree.holders() if node is not spared)
            least = min(holders, key=lambda n: (not n.is_evictable, n.value), default=None)
            if least is not None and least.holder is not None:
                self._let_go(least.holder)
                least.holder = None
                self._tree.prune(least)
        return self._free.pop() if self._free else None

    def _let_go(self, sequence: SequenceId) -> None:
        self._memory.cut(sequence, 0)
        self._duplicates.pop(sequence, None)
        self._free.append(sequence)

    # Matching

    def _best(self, partition: str, prompt: Tokens) -> tuple[int, Node | None]:
        """Return how much of *prompt* can be gone on from, and whose holder has it."""
        limit = len(prompt) - 1
        if limit <= 0:
            return 0, None
        return self._best_at(self._tree.match(partition, prompt), limit)

    def _best_at(self, match: Match, limit: int) -> tuple[int, Node | None]:
        best: tuple[int, Node | None] = (0, None)
        for node in self._tree.path(match.node):
            found = self._from(node, min(match.n_tokens, node.depth, limit))
            if found[0] > best[0]:
                best = found
            if best[0] >= node.begins_at:
                break  # Nothing above reaches as far.
        return best

    def _from(self, node: Node, n_tokens: int) -> tuple[int, Node | None]:
        """Return how many tokens up to *n_tokens*, which end in *node*, can be gone on from."""
        below = self._tree.holder_below(node)
        if below is None:
            return 0, None
        assert below.holder is not None  # noqa: S101 - holder_below has one
        can_end = self._can_end(below.holder, below.depth, n_tokens)
        return (n_tokens, below) if can_end else (0, None)

    def _can_end(self, sequence: SequenceId, n_has: int, n_tokens: int) -> bool:
        """Return whether others can go on from the first *n_tokens* of *n_has* that it has."""
        match self._memory.kind:
            case MemoryKind.WHOLE:
                return True
            case MemoryKind.WINDOW if n_tokens < n_has:
                needed = max(n_tokens - self._memory.window, 0)
                return self._memory.first_kept(sequence) <= needed
            case _:
                return n_tokens == n_has

    def _must_hand_over(self, n_tokens: int) -> bool:
        return (
            self._memory.kind is MemoryKind.WINDOW
            and not self._memory.is_roomy
            and n_tokens > self._memory.window
        )

    def _handed_over(
        self, partition: str, pinned: Node, source: Node, n_tokens: int
    ) -> OpenSequence:
        """Make *source*'s own sequence the request's."""
        sequence, source.holder = source.holder, None
        assert sequence is not None  # noqa: S101 - that is what makes it a source
        self._memory.cut(sequence, n_tokens)
        self._tree.prune(source)
        parent = pinned.parent
        while pinned.holder is None and not pinned.children and pinned.pins == 1 and parent:
            # Nobody else needs this node: its cells are the request's own now.
            self._tree.pin(parent)
            self._tree.unpin(pinned)
            pinned, parent = parent, parent.parent
        n_duplicates = self._duplicates.pop(sequence, 0)
        return self._opened(OpenSequence(sequence, partition, pinned, n_tokens, n_duplicates))

    def _opened(self, sequence: OpenSequence) -> OpenSequence:
        self._open.append(sequence)
        return sequence

    def _note_use(self, source: Node) -> None:
        self._uses += 1
        for node in self._tree.path(source):
            node.value = max(node.value, self._uses + REUSE_BONUS)

    # Keeping

    def _merge(self, sequence: OpenSequence, tokens: Tokens) -> bool:
        """Use the tree's cells for what it has of a sequence's own tokens. False if it cannot.

        Two requests may have computed the same at the same time. WHOLE memory only.
        """
        match = self._tree.match(sequence.partition, tokens[: sequence.n_tokens])
        begin, end = sequence.pinned.depth, match.n_tokens
        if end > begin:
            below = self._tree.holder_below(match.node)
            if below is None or below.holder is None:
                return False
            self._memory.share(below.holder, sequence.id, begin, end)
            self._pin(sequence, self._tree.end_at(match))
        return True

    def _pin(self, sequence: OpenSequence, node: Node) -> None:
        before, sequence.pinned = sequence.pinned, self._tree.pin(node)
        self._tree.unpin(before)

    def _hold(self, computed: OpenSequence, tokens: Tokens, holder: SequenceId) -> Node:
        """Make *holder*, which has the cells of *computed*, the one that keeps *tokens*."""
        self._uses += 1
        node, n_had = self._tree.add(computed.partition, tokens)
        for ancestor in self._tree.path(node):
            ancestor.value = max(ancestor.value, self._uses)
        is_whole = self._memory.kind is MemoryKind.WHOLE
        if node.holder is not None or (is_whole and node.children):
            self._let_go(holder)  # What it has is held already.
            return node
        node.holder = holder
        if is_whole:
            for ancestor in self._tree.path(node):
                if ancestor is not node and ancestor.holder is not None:
                    self._let_go(ancestor.holder)  # Its cells are this one's as well.
                    ancestor.holder = None
        else:
            n_repeated = max(n_had - computed.pinned.depth, 0)
            self._duplicates[holder] = computed.n_duplicates + n_repeated
        return node
