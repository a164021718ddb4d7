"""The mandatory policy of a node: held for good, published by whom may, and never an older one."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from identity import (
    Code,
    IdentityError,
    OwnIdentity,
    PolicyFile,
    SidelinkError,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
)
from node.clocks import ManualClock
from node.errors import ConfigError
from node.mandatory import MandatoryPolicy, kept_policies
from node.own_node import OwnNode
from node.store import POLICIES_MAX, Store
from tests.node.members import DAY_S, Authority, started

RULES, MORE = PolicyFile("base.yaml", "rules: []\n"), PolicyFile("more.yaml", "# more\n")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Node:
    """A node with its state on the disk, which may be closed and opened again."""

    def __init__(self, folder: Path, clock: ManualClock, **options: Any) -> None:
        self.folder = folder
        self.clock = clock
        self.options = options
        folder.mkdir(exist_ok=True)
        self.stack = contextlib.ExitStack()
        self.open()

    def open(self) -> None:
        self.node: OwnNode
        self.store: Store
        self.node, self.store = self.stack.enter_context(
            started(self.folder, self.clock, **self.options)
        )
        self.mandatory = MandatoryPolicy(self.store, self.clock, self.node)
        self.heard = 0
        self.mandatory.on_news.append(self._hear)

    def reopen(self) -> None:
        self.stack.close()
        self.open()

    @property
    def number(self) -> int | None:
        held = self.mandatory.held
        return None if held is None else held.number

    @property
    def files(self) -> tuple[PolicyFile, ...] | None:
        held = self.mandatory.held
        return None if held is None else held.bundle.files

    def _hear(self) -> None:
        self.heard += 1


@pytest.fixture
def make(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Node]]:
    with contextlib.ExitStack() as stack:

        def make(name: str, **options: Any) -> Node:
            node = Node(tmp_path / name, clock, **options)
            stack.callback(node.stack.close)
            return node

        yield make


@pytest.fixture
def acme(make: Callable[..., Node]) -> Node:
    """The authority, as a node."""
    return make("authority", authority_of="acme")


def enrolled(node: Node, acme: Node) -> Node:
    """A member of the authority's domain."""
    by_hand = Authority()
    by_hand.own = acme.node.own
    by_hand.enrol(node.node, node.clock.unix_s(), ttl_s=DAY_S)
    return node


def globex_policy(globex: Authority, node: Node) -> bytes:
    """One of another authority, issued now."""
    return issue_policy(
        globex.own,
        "globex",
        number=int(node.clock.unix_s()),
        issued_unix_s=int(node.clock.unix_s()),
        files=[RULES],
        signers=[],
    )


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


def test_what_the_authority_publishes_is_held_by_members_also_after_a_restart(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    signed = acme.mandatory.publish([RULES])
    a.mandatory.offer_untrusted(signed.encoded)
    before = a.number, a.files, a.heard, a.mandatory.taken
    for node in (acme, a):
        node.reopen()

    assert before == (signed.number, (RULES,), 1, 1)
    assert a.number == acme.number == signed.number
    assert a.files == acme.files == (RULES,)


def test_what_is_held_is_no_news(acme: Node, make: Callable[..., Node]) -> None:
    a = enrolled(make("a"), acme)
    encoded = acme.mandatory.publish([RULES]).encoded
    a.mandatory.offer_untrusted(encoded)

    assert a.mandatory.offer_untrusted(encoded) is None
    assert a.heard == 1


def test_numbers_rise_within_a_second_and_follow_the_clock(acme: Node) -> None:
    first, second = (acme.mandatory.publish([file]).number for file in (RULES, MORE))
    acme.clock.advance(1_000.0)
    third = acme.mandatory.publish([RULES]).number

    assert first == int(acme.clock.unix_s()) - 1_000
    assert second == first + 1
    assert third == first + 1_000


def test_an_older_one_is_refused_also_after_a_restart(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    old = acme.mandatory.publish([RULES]).encoded
    a.mandatory.offer_untrusted(acme.mandatory.publish([MORE]).encoded)
    a.reopen()

    assert code_of(lambda: a.mandatory.offer_untrusted(old)) is Code.POLICY_BUNDLE_OUTDATED
    assert a.files == (MORE,)


def test_who_is_no_signer_may_not_publish_and_who_is_named_may(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    a.mandatory.offer_untrusted(acme.mandatory.publish([RULES]).encoded)
    before = a.mandatory.may_publish, code_of(lambda: a.mandatory.publish([MORE]))
    named = acme.mandatory.set_signers(frozenset({a.node.identifier}))
    a.mandatory.offer_untrusted(named.encoded)
    signed = a.mandatory.publish([MORE])
    acme.mandatory.offer_untrusted(signed.encoded)

    assert before == (False, Code.POLICY_SIGNER_DENIED)
    assert a.mandatory.may_publish
    assert signed.bundle.signer == a.node.identifier
    assert acme.files == (MORE,)


def test_a_member_names_no_signers(acme: Node, make: Callable[..., Node]) -> None:
    a = enrolled(make("a"), acme)

    code = code_of(lambda: a.mandatory.set_signers(frozenset({a.node.identifier})))

    assert code is Code.POLICY_SIGNER_DENIED


def test_naming_a_signer_changes_no_file_and_publishing_no_signer(acme: Node) -> None:
    signer = Authority().identifier
    acme.mandatory.publish([RULES])
    acme.mandatory.set_signers(frozenset({signer}))
    files = acme.files
    acme.mandatory.publish([MORE])

    assert files == (RULES,)
    assert acme.mandatory.held is not None
    assert acme.mandatory.held.mandate.signers == {signer}


def test_the_authority_signs_anew_what_a_signer_has_published(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    a.mandatory.offer_untrusted(acme.mandatory.set_signers(frozenset({a.node.identifier})).encoded)
    acme.mandatory.offer_untrusted(a.mandatory.publish([MORE]).encoded)

    assert acme.mandatory.adopt()
    assert not acme.mandatory.adopt()
    assert acme.mandatory.held is not None
    assert acme.mandatory.held.is_by_authority
    assert acme.files == (MORE,)
    assert acme.mandatory.held.mandate.signers == {a.node.identifier}


def test_the_authority_signs_anew_with_a_new_key_and_a_new_member_takes_it_after_the_old_one_ends(
    acme: Node, make: Callable[..., Node]
) -> None:
    acme.mandatory.publish([RULES])
    acme.node.announce_key(overlap_s=60)
    announced = acme.mandatory.adopt()
    acme.node.use_announced_key()
    used = acme.mandatory.adopt()
    acme.clock.advance(3_600.0)
    a = enrolled(make("a"), acme)
    a.mandatory.offer_untrusted(acme.mandatory.held.encoded)  # type: ignore[union-attr]
    for node in (acme, a):
        node.reopen()

    assert (announced, used) == (False, True)
    assert a.files == acme.files == (RULES,)


def test_members_adopt_nothing(acme: Node, make: Callable[..., Node]) -> None:
    a = enrolled(make("a"), acme)
    a.mandatory.offer_untrusted(acme.mandatory.publish([RULES]).encoded)

    assert not a.mandatory.adopt()


def test_a_node_without_an_authority_holds_nothing(acme: Node, make: Callable[..., Node]) -> None:
    a = make("a")
    encoded = acme.mandatory.publish([RULES]).encoded

    assert code_of(lambda: a.mandatory.offer_untrusted(encoded)) is Code.CHANNEL_WRONG_AUTHORITY
    assert code_of(lambda: a.mandatory.publish([RULES])) is Code.POLICY_SIGNER_DENIED
    assert a.mandatory.held is None


def test_an_authority_that_is_trusted_beside_our_own_makes_no_policy_here(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    globex = Authority("globex")
    a.node.trust.add(globex.anchor)
    encoded = globex_policy(globex, a)

    assert code_of(lambda: a.mandatory.offer_untrusted(encoded)) is Code.CHANNEL_WRONG_AUTHORITY
    member: OwnIdentity = globex.member(a.clock.unix_s())
    assert member.identifier != a.node.identifier
    assert a.mandatory.authorities(a.node.identity) == (acme.node.identifier,)


def test_a_node_that_has_come_from_another_domain_forgets_nothing_of_its_own_at_a_restart(
    acme: Node, make: Callable[..., Node]
) -> None:
    a = enrolled(make("a"), acme)
    signed = acme.mandatory.publish([MORE])
    globex = Authority("globex")
    globex.enrol(a.node, a.clock.unix_s(), ttl_s=DAY_S)
    a.clock.advance(1_000.0)
    for _ in range(POLICIES_MAX):
        a.mandatory.offer_untrusted(globex_policy(globex, a))
        a.clock.advance(1.0)
    enrolled(a, acme)
    a.mandatory.offer_untrusted(signed.encoded)
    a.reopen()

    assert a.number == signed.number
    assert [one.number for one in a.mandatory.kept()] == [signed.number]


def test_what_a_signer_with_a_slow_clock_has_published_outlives_a_restart(
    acme: Node, make: Callable[..., Node]
) -> None:
    a, b = enrolled(make("a"), acme), enrolled(make("b"), acme)
    acme.node.announce_key(overlap_s=60)
    acme.node.use_announced_key()
    named = acme.mandatory.set_signers(frozenset({b.node.identifier}))
    slow = issue_policy_under(
        b.node.own,
        named,
        number=named.number + 1,
        issued_unix_s=named.bundle.issued_unix_s - 300,
        files=[MORE],
    )
    a.mandatory.offer_untrusted(slow)
    before = a.files
    a.reopen()

    assert before == a.files == (MORE,)


def test_only_so_many_are_kept_and_they_are_the_newest(acme: Node) -> None:
    numbers = [acme.mandatory.publish([RULES]).number for _ in range(POLICIES_MAX + 3)]

    assert [one.number for one in acme.mandatory.kept()] == numbers[:2:-1]


def test_a_damaged_row_is_left_out_and_named(acme: Node, make: Callable[..., Node]) -> None:
    a = enrolled(make("a"), acme)
    first, second = (acme.mandatory.publish([file]) for file in (RULES, MORE))
    for one in (first, second):
        a.mandatory.offer_untrusted(one.encoded)
    a.stack.close()
    torn = bytearray(second.encoded)
    torn[-1] ^= 1
    database = sqlite3.connect(a.folder / "state.db")
    with contextlib.closing(database), database:
        database.execute(
            "UPDATE node_policies SET encoded = ? WHERE rank = ?", (bytes(torn), second.rank)
        )
    with capture_logs() as logs:
        a.open()

    assert a.number == first.number
    assert [line["rank"] for line in logs if line["event"] == "mandatory_policy_damaged"] == [
        second.rank
    ]
    a.mandatory.offer_untrusted(second.encoded)
    assert a.number == second.number


def test_a_full_disk_costs_no_obedience_and_it_is_written_down_later(
    acme: Node, make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = enrolled(make("a"), acme)
    put = a.store.put_policy

    def full(number: int, encoded: bytes, *, obeyed: int | None) -> None:
        raise ConfigError(Code.CONFIG_STATE_UNSAFE, "the disk is full", remedy="Make room.")

    monkeypatch.setattr(a.store, "put_policy", full)
    signed = acme.mandatory.publish([RULES])
    a.mandatory.offer_untrusted(signed.encoded)
    at_once = a.number, a.heard
    with pytest.raises(ConfigError):
        a.mandatory.flush()
    monkeypatch.setattr(a.store, "put_policy", put)
    a.mandatory.flush()
    a.reopen()

    assert at_once == (signed.number, 1)
    assert a.number == signed.number


def test_who_looks_into_the_folder_sees_the_newest(acme: Node, tmp_path: Path) -> None:
    signed = acme.mandatory.publish([RULES])

    shown = kept_policies(acme.folder / "state.db")

    assert [one.number for one in shown] == [signed.number]
    assert kept_policies(tmp_path / "nowhere.db") == ()


def test_a_folder_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE node_values (key TEXT)")

    assert kept_policies(path) == ()


def test_a_folder_that_is_no_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"x" * 4_096)

    with pytest.raises(ConfigError) as caught:
        kept_policies(path)
    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED


def test_what_is_published_is_what_everybody_could_verify(acme: Node) -> None:
    with pytest.raises(IdentityError):
        acme.mandatory.publish([PolicyFile("two\nlines", "")])

    assert acme.mandatory.held is None
    signed = acme.mandatory.publish([])
    assert decode_signed_policy_untrusted(signed.encoded).bundle.files == ()
