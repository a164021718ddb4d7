"""What a node knows of whom it trusts outlives its process; what was tampered with does not."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from identity import ChangeHistory, Code, Identifier, IdentityError, Purpose, SidelinkError
from node.clocks import ManualClock
from node.errors import ConfigError
from node.own_node import OwnNode
from node.store import Store
from tests.node.members import DAY_S, HOUR_S, Authority, hop_proof, started

SOMEBODY = Identifier(b"s" * 32)
OTHER = Identifier(b"o" * 32)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def acme() -> Authority:
    return Authority()


def enrolled(folder: Path, clock: ManualClock, acme: Authority, *lists: bytes) -> None:
    """A node that was here once, and has taken these lists."""
    with started(folder, clock) as (node, _):
        acme.enrol(node, clock.unix_s(), ttl_s=30 * DAY_S)
        for encoded in lists:
            node.trust.offer_untrusted(encoded)


def refused(call: Callable[[], object]) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


def number(node: OwnNode, authority: Authority) -> int:
    return node.trust.lists.number(authority.identifier)


# What outlives a restart.


def test_a_list_outlives_a_restart_and_an_older_one_is_refused_then(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    now = int(clock.unix_s())
    member = acme.member(now)
    enrolled(tmp_path, clock, acme, acme.revocations(now, member.identifier))
    with started(tmp_path, clock) as (node, _):
        kept = number(node, acme), node.trust.encoded(acme.identifier)
        older = refused(lambda: node.trust.offer_untrusted(acme.revocations(now, number=now - 1)))
        out = refused(lambda: node.verify_hop(*hop_proof(member)))

    assert kept == (now, acme.revocations(now, member.identifier))
    assert older is Code.CHANNEL_REVOCATIONS_OUTDATED
    assert out is Code.CHANNEL_REVOKED


def test_a_list_outlives_its_authoritys_next_rotation_and_a_restart(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    """The longer history may have come with a proof, before the list that the new key signs."""
    now = int(clock.unix_s())
    revoked = acme.revocations(now, SOMEBODY)
    clock.advance(HOUR_S)
    acme.rotate(clock.unix_s(), overlap_s=60)
    member = acme.member(clock.unix_s())
    with started(tmp_path, clock) as (node, _):
        acme.enrol(node, clock.unix_s(), ttl_s=DAY_S)
    clock.unix = now
    with started(tmp_path, clock) as (node, _):
        node.trust.offer_untrusted(revoked)
        clock.advance(HOUR_S)
        node.verify_hop(*hop_proof(member))
        node.trust.flush()
    with started(tmp_path, clock) as (node, _):
        kept = node.trust.lists.newest(acme.identifier)

    assert kept is not None
    assert SOMEBODY in kept


def test_what_was_seen_of_a_history_outlives_a_restart(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    now = clock.unix_s()
    before = acme.member(now)
    rotated = before.with_next_key(_key(), unix_s=now, overlap_s=HOUR_S)
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, _):
        node.verify_hop(*hop_proof(rotated))
        node.trust.flush()
    with started(tmp_path, clock) as (node, _):
        outdated = refused(lambda: node.verify_hop(*hop_proof(before)))

    assert outdated is Code.CHANNEL_HISTORY_OUTDATED


def test_an_authoritys_history_that_is_longer_than_our_chains_outlives_a_restart(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    enrolled(tmp_path, clock, acme)
    acme.rotate(clock.unix_s(), overlap_s=HOUR_S)
    with started(tmp_path, clock) as (node, _):
        before_unix_s = node.identity.expires_unix_s
        node.trust.offer_untrusted(acme.revocations(clock.unix_s()))
        learned_unix_s = node.identity.expires_unix_s
    with started(tmp_path, clock) as (node, _):
        known = node.trust.verifier.anchor_history(acme.identifier)
        after_unix_s = node.identity.expires_unix_s

    assert known == acme.own.history
    assert before_unix_s == int(clock.unix_s()) + 30 * DAY_S
    assert learned_unix_s == after_unix_s == int(clock.unix_s()) + HOUR_S


def test_a_crash_before_what_is_known_was_written_down_leaves_the_node_enrolled(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    """A credential by the authority's new key is on the disk a moment before its history is."""
    enrolled(tmp_path, clock, acme, acme.revocations(clock.unix_s()))
    acme.rotate(clock.unix_s(), overlap_s=DAY_S)
    with started(tmp_path, clock) as (node, _):
        node.verifier_for(SOMEBODY).verify(
            *hop_proof(node.own)[:1],
            purpose=Purpose.HOP,
            noise_key=hop_proof(node.own)[1],
            unix_s=clock.unix_s(),
        )
        acme.renew(node, clock.unix_s(), ttl_s=DAY_S)
    with started(tmp_path, clock) as (node, _):
        is_enrolled = node.enrolled
        known = node.trust.verifier.anchor_history(acme.identifier)

    assert known is not None
    assert known.change_number == 0, "what the crash has left behind is older than the credential"
    assert is_enrolled


def test_the_clocks_floor_outlives_a_restart_and_is_never_lower(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    now = int(clock.unix_s())
    enrolled(tmp_path, clock, acme, acme.revocations(now + 30, number=now))
    late = ManualClock(unix=now - 1_000.0)
    with started(tmp_path, late) as (node, _):
        floor_unix_s = late.unix_s()
        newer = acme.revocations(now + 10, number=now + 1)
        node.trust.offer_untrusted(newer)
    again = ManualClock(unix=now - 1_000.0)
    with started(tmp_path, again):
        after_unix_s = again.unix_s()

    assert floor_unix_s == after_unix_s == now + 30


def test_an_authority_believes_its_clock_no_more_for_having_signed_by_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A clock that was ahead for a moment would else stay so."""
    right = clock.unix
    with started(tmp_path, clock, authority_of="acme") as (node, _):
        signer = Authority(unix_s=int(right))
        signer.own = node.own
        clock.unix = right + 365 * DAY_S
        node.trust.offer_untrusted(signer.revocations(clock.unix_s()))
        clock.unix = right
        unix_s = clock.unix_s()
    restarted = ManualClock(unix=right)
    with started(tmp_path, restarted, authority_of="acme"):
        after_unix_s = restarted.unix_s()

    assert unix_s == after_unix_s == right


# Anchors.


def test_an_authority_is_trusted_from_when_it_was_added_until_it_is_removed(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    globex = Authority("globex")
    guest = globex.member(clock.unix_s())
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, _):
        told: list[int] = []
        node.trust.on_news.append(lambda: told.append(len(node.trust.anchors)))
        stranger = refused(lambda: node.verify_hop(*hop_proof(guest)))
        node.trust.add(globex.anchor)
        let_in = node.verify_hop(*hop_proof(guest)).identity
    with started(tmp_path, clock) as (node, _):
        node.trust.on_news.append(lambda: told.append(len(node.trust.anchors)))
        again = node.verify_hop(*hop_proof(guest)).identity
        removed = node.trust.remove(globex.identifier), node.trust.remove(globex.identifier)
        out = refused(lambda: node.verify_hop(*hop_proof(guest)))
        live = refused(lambda: node.trust.verifier.recheck(again, clock.unix_s()))

    assert stranger is out is live is Code.CHANNEL_WRONG_AUTHORITY
    assert let_in.trust_domain == again.trust_domain == "globex"
    assert removed == (True, False)
    assert told == [2, 1]


def test_what_an_authority_has_said_goes_with_it(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    globex = Authority("globex")
    globex.rotate(clock.unix_s())
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, store):
        node.trust.add(globex.anchor)
        node.trust.offer_untrusted(globex.revocations(clock.unix_s()))
        node.trust.remove(globex.identifier)
        gone = number(node, globex), node.trust.encoded(globex.identifier)
        rows = store.revocations(), store.anchor_histories()
        node.trust.add(globex.anchor)
        node.trust.offer_untrusted(globex.revocations(clock.unix_s()))
    with started(tmp_path, clock) as (node, _):
        history = node.trust.verifier.anchor_history(globex.identifier)

    assert gone == (0, None)
    assert [one for one, _ in (*rows[0], *rows[1])] == [acme.identifier] * len((*rows[0], *rows[1]))
    assert history == globex.own.history, "it is kept again when it is trusted again"


def test_an_authority_that_withholds_its_first_list_gains_nothing_by_a_restart(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    enrolled(tmp_path, clock, acme)
    _change(tmp_path, "UPDATE node_trust_anchors SET added_unix_s = 0")
    with started(tmp_path, clock, grace_s=HOUR_S) as (node, _):
        first = node.trust.lists.good_until_unix_s(acme.identifier)
    clock.advance(HOUR_S // 2)
    with started(tmp_path, clock, grace_s=HOUR_S) as (node, _):
        second = node.trust.lists.good_until_unix_s(acme.identifier)

    assert first == second


def test_trusting_others_while_a_node_enrols_leaves_the_authority_that_it_tries(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    globex, initech = Authority("globex"), Authority("initech")
    with started(tmp_path, clock) as (node, store):
        node.try_authority(acme.anchor)
        node.trust.add(globex.anchor)
        node.trust.add(initech.anchor)
        node.trust.remove(globex.identifier)
        tried = acme.anchor in node.trust.anchors
        kept_before = acme.anchor in store.trust_anchors()
        node.adopt((acme.link(node.own, clock.unix_s()),))
        kept = store.trust_anchors()

    assert tried
    assert not kept_before
    assert {one.trust_domain for one in kept} == {"acme", "initech"}


def test_a_ticket_that_names_another_domain_for_a_known_authority_is_refused(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    enrolled(tmp_path, clock, acme)
    acme.trust_domain = "evil"
    with started(tmp_path, clock) as (node, _):
        code = refused(lambda: node.try_authority(acme.anchor))
        anchors = node.trust.anchors

    assert code is Code.ENROL_WRONG_AUTHORITY
    assert [one.trust_domain for one in anchors] == ["acme"]


# What is damaged.


def _change(folder: Path, statement: str, *values: Any) -> None:
    database = sqlite3.connect(folder / "state.db", isolation_level=None)
    assert database.execute(statement, values).rowcount > 0
    database.close()


def _of(statement: str) -> Callable[[Path, Authority, int], None]:
    return lambda folder, _acme, _now: _change(folder, statement)


def _put(statement: str, made: Callable[[Authority, int], bytes]) -> Any:
    return lambda folder, acme, now: _change(folder, statement, made(acme, now))


LIST = "UPDATE node_revocations SET encoded = ?"
HISTORY = "UPDATE node_anchor_histories SET history = ?"
DAMAGE: dict[str, tuple[Any, str]] = {
    "a list that is none": (
        _of("UPDATE node_revocations SET encoded = x'00'"),
        "revocations_damaged",
    ),
    "a list that is cut short": (
        _put(LIST, lambda acme, now: acme.revocations(now)[:-1]),
        "revocations_damaged",
    ),
    "a list that somebody else has signed": (
        _put(LIST, lambda acme, now: _forged(acme, now)),
        "revocations_damaged",
    ),
    "a history that is none": (
        _of("UPDATE node_anchor_histories SET history = x'80'"),
        "anchor_history_damaged",
    ),
    "a history of somebody else": (
        _put(HISTORY, lambda _acme, _now: Authority().own.history.encode()),
        "anchor_history_damaged",
    ),
    "a history with a signature that is wrong": (
        _put(HISTORY, lambda acme, _now: _wrongly_signed(acme)),
        "anchor_history_damaged",
    ),
    "a clock's floor that is no number": (
        _of("UPDATE node_values SET value = x'736f6f6e' WHERE key = 'clock_floor'"),
        "clock_floor_damaged",
    ),
    "a clock's floor beyond all time": (
        _of(
            "UPDATE node_values SET value = x'39393939393939393939393939' WHERE key = 'clock_floor'"
        ),
        "clock_floor_damaged",
    ),
}


def _forged(acme: Authority, now: int) -> bytes:
    other = Authority()
    other.own = acme.member(now)
    return other.revocations(now)


def _wrongly_signed(acme: Authority) -> bytes:
    encoded = bytearray(acme.own.history.encode())
    encoded[-1] ^= 1
    ChangeHistory.decode_untrusted(bytes(encoded))
    return bytes(encoded)


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named_and_left_out(
    what: str, tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    damage, named = DAMAGE[what]
    now = int(clock.unix_s())
    enrolled(tmp_path, clock, acme, acme.revocations(now, SOMEBODY))
    damage(tmp_path, acme, now)
    with capture_logs() as logs, started(tmp_path, clock) as (node, _):
        held = number(node, acme)
        unix_s = clock.unix_s()
        # The rest keeps working, and what is lost comes again.
        node.trust.offer_untrusted(acme.revocations(now, SOMEBODY, OTHER, number=now + 1))
        after = number(node, acme)

    assert [line["event"] for line in logs if line["log_level"] == "error"] == [named]
    assert held == (0 if named == "revocations_damaged" else now)
    assert unix_s == clock.unix
    assert after == now + 1


# A disk that takes nothing for a while.


class FullDisk:
    """Stands between a node and its store."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        honest = store.put_seen_histories

        def put(news: Any) -> None:
            if self.is_full:
                raise ConfigError(Code.CONFIG_KEYSTORE_DAMAGED, "database or disk is full")
            honest(news)

        monkeypatch.setattr(store, "put_seen_histories", put)


def test_a_full_disk_keeps_nobody_in_who_was_revoked(
    tmp_path: Path, clock: ManualClock, acme: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(clock.unix_s())
    member = acme.member(now)
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, store):
        told: list[bool] = []
        live = node.verify_hop(*hop_proof(member)).identity
        node.trust.on_news.append(lambda: told.append(node.trust.is_revoked(live)))
        disk = FullDisk(store, monkeypatch)
        disk.is_full = True
        taken = node.trust.offer_untrusted(acme.revocations(now, member.identifier))
        passed_on = node.trust.encoded(acme.identifier)
        still_full = refused(node.trust.flush)
        disk.is_full = False
        node.trust.flush()
    with started(tmp_path, clock) as (node, _):
        kept = number(node, acme)

    assert taken is not None
    assert told == [True]
    assert passed_on is not None
    assert still_full is Code.CONFIG_KEYSTORE_DAMAGED
    assert kept == now, "it is written down when the disk takes it"


def test_a_full_disk_loses_nothing_of_what_was_seen(
    tmp_path: Path, clock: ManualClock, acme: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.unix_s()
    before = acme.member(now)
    rotated = before.with_next_key(_key(), unix_s=now, overlap_s=HOUR_S)
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, store):
        disk = FullDisk(store, monkeypatch)
        disk.is_full = True
        node.verify_hop(*hop_proof(rotated))
        refused(node.trust.flush)
        disk.is_full = False
        node.trust.flush()
    with started(tmp_path, clock) as (node, _):
        outdated = refused(lambda: node.verify_hop(*hop_proof(before)))

    assert outdated is Code.CHANNEL_HISTORY_OUTDATED


def test_a_list_that_does_not_count_leaves_no_trace(
    tmp_path: Path, clock: ManualClock, acme: Authority
) -> None:
    enrolled(tmp_path, clock, acme)
    with started(tmp_path, clock) as (node, store):
        told: list[int] = []
        node.trust.on_news.append(lambda: told.append(1))
        with pytest.raises(IdentityError):
            node.trust.offer_untrusted(Authority().revocations(clock.unix_s(), SOMEBODY))
        kept = store.revocations()

    assert (told, kept, node.trust.taken) == ([], [], 0)


def _key() -> Any:
    return Authority().own.signing_key
