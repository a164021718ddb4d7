"""The keystore: what was saved comes back; what was touched is named, and the rest works."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from identity import (
    Code,
    IdentityError,
    Keystore,
    MasterKey,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    TrustAnchor,
    new_identity,
)
from identity.keystore import Resealed
from tests.identity.helpers import NOW, Person

MASTER = MasterKey(b"\x07" * 32)
# Of one agent with two attributes, on disk, all told.
ROW_BYTES_MAX = 1_536


def new(name: str) -> OwnIdentity:
    return new_identity(name, unix_s=NOW, purposes=(Purpose.HOP, Purpose.CHANNEL))


def open_keystore(folder: Path, master: MasterKey = MASTER) -> Keystore:
    return Keystore.open(folder / "state.db", master)


def same(left: OwnIdentity, right: OwnIdentity | None) -> bool:
    return (
        right is not None
        and left.signing_key.private_bytes() == right.signing_key.private_bytes()
        and left.history == right.history
        and all(left.proof(purpose) == right.proof(purpose) for purpose in Purpose)
        and all(
            left.purpose_keys[purpose].key.private_bytes()
            == right.purpose_keys[purpose].key.private_bytes()
            for purpose in Purpose
        )
    )


def test_an_identity_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    authority = Person()
    identity = new("finance/planner")
    subject = Person(identity.signing_key, history=identity.history)
    identity = identity.with_chain((authority.link(subject, "agent://acme/finance/planner"),))
    keystore = open_keystore(tmp_path)
    keystore.save(identity)
    keystore.close()

    keystore = open_keystore(tmp_path)

    assert same(identity, keystore.load("finance/planner"))
    assert keystore.names() == ("finance/planner",)
    assert keystore.load("finance") is None
    keystore.close()


def test_a_new_identity_proves_itself(tmp_path: Path) -> None:
    identity = new("node")
    key = identity.purpose_keys[Purpose.HOP].key.public
    other = Person().history.identifier
    verifier = ProofVerifier([TrustAnchor(other, "acme")], own=other)

    peer = verifier.verify(
        identity.proof(Purpose.HOP), purpose=Purpose.HOP, noise_key=key.raw, unix_s=NOW
    )

    assert peer.identifier == identity.identifier
    renewed = identity.with_new_purpose_keys(unix_s=NOW + 1)
    assert renewed.identifier == identity.identifier
    assert renewed.purpose_keys[Purpose.HOP].key.public != key


def test_saving_again_replaces_the_row_and_removing_takes_it_away(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    first, second = new("node"), new("node")
    keystore.save(first)
    keystore.save(second)

    assert same(second, keystore.load("node"))
    assert keystore.remove("node")
    assert not keystore.remove("node")
    assert keystore.names() == ()
    keystore.close()


def test_no_private_key_stands_in_the_file(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    identity = new("node")
    keystore.save(identity)
    keystore.close()

    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert identity.history.current_key.raw in stored
    for secret in (
        identity.signing_key.private_bytes(),
        *(key.key.private_bytes() for key in identity.purpose_keys.values()),
    ):
        assert secret not in stored


def test_the_file_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keystore = open_keystore(tmp_path)
        keystore.save(new("node"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        keystore.close()
    finally:
        os.umask(before)

    assert set(modes.values()) == {0o600}, modes


def test_another_master_key_is_refused(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save(new("node"))
    keystore.close()

    with pytest.raises(IdentityError) as caught:
        open_keystore(tmp_path, MasterKey.generate())

    assert caught.value.code is Code.CONFIG_MASTER_KEY
    keystore = open_keystore(tmp_path)
    assert keystore.load("node") is not None
    keystore.close()


def test_another_master_key_is_refused_by_an_empty_keystore_too(tmp_path: Path) -> None:
    open_keystore(tmp_path).close()

    with pytest.raises(IdentityError) as caught:
        open_keystore(tmp_path, MasterKey.generate())

    assert caught.value.code is Code.CONFIG_MASTER_KEY


def flipped(column: str, place: int) -> str:
    byte = f"substr({column}, {place}, 1)"
    other = f"CASE {byte} WHEN x'00' THEN x'01' ELSE x'00' END"
    length = f"length({column})"
    return (
        f"UPDATE keystore_rows SET {column} = CAST(substr({column}, 1, {place} - 1) || {other}"
        f" || substr({column}, {place} + 1, {length}) AS BLOB) WHERE name = 'b'"
    )


HOW_A_ROW_IS_DAMAGED = {
    "a byte of the nonce": flipped("sealed", 1),
    "a byte of the sealed keys": flipped("sealed", 40),
    "a byte of the history": flipped("public", 30),
    "a byte of an attestation": flipped("public", 300),
    "sealed keys cut short": (
        "UPDATE keystore_rows SET sealed = substr(sealed, 1, 50) WHERE name = 'b'"
    ),
    "no sealed keys": "UPDATE keystore_rows SET sealed = x'' WHERE name = 'b'",
    "sealed keys that are text": "UPDATE keystore_rows SET sealed = 'x' WHERE name = 'b'",
    "a public part that is a number": "UPDATE keystore_rows SET public = 1 WHERE name = 'b'",
    "a public part that is empty": "UPDATE keystore_rows SET public = x'' WHERE name = 'b'",
    "the keys of another row": (
        "UPDATE keystore_rows SET sealed ="
        " (SELECT sealed FROM keystore_rows WHERE name = 'a') WHERE name = 'b'"
    ),
    "the whole of another row": (
        "UPDATE keystore_rows SET (public, sealed) ="
        " (SELECT public, sealed FROM keystore_rows WHERE name = 'a') WHERE name = 'b'"
    ),
    "an issuer that it did not have": ("UPDATE keystore_rows SET issued_by = 'a' WHERE name = 'b'"),
    "an issuer that is a number": "UPDATE keystore_rows SET issued_by = x'01' WHERE name = 'b'",
}


@pytest.mark.parametrize("damage", HOW_A_ROW_IS_DAMAGED.values(), ids=HOW_A_ROW_IS_DAMAGED.keys())
def test_a_damaged_row_is_named_and_the_rest_works(tmp_path: Path, damage: str) -> None:
    identities = [new(name) for name in ("a", "b", "c")]
    keystore = open_keystore(tmp_path)
    keystore.save_many(identities)
    keystore.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        assert connection.execute(damage).rowcount == 1
    connection.close()

    keystore = open_keystore(tmp_path)

    with pytest.raises(IdentityError, match="'b'") as caught:
        keystore.load("b")
    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    assert same(identities[0], keystore.load("a"))
    assert same(identities[2], keystore.load("c"))
    assert keystore.names() == ("a", "b", "c")
    keystore.save(identities[1])
    assert same(identities[1], keystore.load("b"))
    keystore.close()


HOW_THE_FILE_IS_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "another file altogether": lambda _data: b"not a database at all, but long enough" * 200,
    "a header of zeros": lambda data: bytes(100) + data[100:],
}


@pytest.mark.parametrize(
    "damage", HOW_THE_FILE_IS_DAMAGED.values(), ids=HOW_THE_FILE_IS_DAMAGED.keys()
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save(new("node"))
    keystore.close()
    path = tmp_path / "state.db"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(IdentityError, match=r"state\.db") as caught:
        open_keystore(tmp_path)

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED


def test_a_damaged_check_of_the_master_key_does_not_lock_out_the_right_one(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save(new("node"))
    keystore.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE keystore_meta SET sealed = x'00'")
    connection.close()

    with pytest.raises(IdentityError) as caught:
        open_keystore(tmp_path, MasterKey.generate())
    assert caught.value.code is Code.CONFIG_MASTER_KEY

    keystore = open_keystore(tmp_path)
    assert keystore.load("node") is not None
    keystore.close()


def test_many_identities_are_saved_all_or_none(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save(new("a"))

    with pytest.raises(ValueError, match="characters"):
        keystore.save_many([new("b"), new("")])

    assert keystore.names() == ("a",)
    keystore.close()


def test_a_private_key_that_is_not_the_historys_is_refused(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    mixed = new("node")
    other = new("node")
    keystore.save(OwnIdentity("node", other.signing_key, mixed.history, mixed.purpose_keys, ()))

    with pytest.raises(IdentityError) as caught:
        keystore.load("node")

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    keystore.close()


def test_a_row_of_an_agent_is_small(tmp_path: Path) -> None:
    authority, count = Person(), 200
    node = new(".node")
    issuer = Person(node.signing_key, history=node.history)
    node = node.with_chain((authority.link(issuer, "agent://acme/node", kind="node"),))
    agents = []
    for number in range(count):
        own = new_identity(f"finance/agent-{number:07}", unix_s=NOW, purposes=(Purpose.CHANNEL,))
        credential = issuer.issue(
            Person(own.signing_key, history=own.history),
            f"agent://acme/{own.name}",
            attributes={"role": "planner", "team": "north"},
        )
        agents.append(own.below(node, credential.encoded))
    keystore = open_keystore(tmp_path)
    keystore.save(node)
    keystore.close()
    before = (tmp_path / "state.db").stat().st_size

    keystore = open_keystore(tmp_path)
    keystore.save_many(agents)
    keystore.close()

    assert ((tmp_path / "state.db").stat().st_size - before) / count <= ROW_BYTES_MAX


def test_a_file_of_the_format_before_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE keystore_identity "
            "(name TEXT PRIMARY KEY, public BLOB, sealed BLOB) WITHOUT ROWID"
        )
        connection.execute("INSERT INTO keystore_identity VALUES ('.node', x'01', x'02')")
    connection.close()

    with pytest.raises(IdentityError, match="format 1") as caught:
        open_keystore(tmp_path)

    assert caught.value.code is Code.CONFIG_INVALID
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [
            ("keystore_identity",)
        ]
    connection.close()


def test_a_file_of_a_later_format_is_refused(tmp_path: Path) -> None:
    open_keystore(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE keystore_meta SET format = 3")
    connection.close()

    with pytest.raises(IdentityError, match="format 3") as caught:
        open_keystore(tmp_path)

    assert caught.value.code is Code.CONFIG_INVALID


def test_another_master_key_opens_all_rows_once_they_are_resealed(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    identities = [new(name) for name in ("a", "b", "c")]
    keystore.save_many(identities)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute(HOW_A_ROW_IS_DAMAGED["a byte of the sealed keys"])
    connection.close()
    other = MasterKey.generate()

    resealed = keystore.reseal(other)

    assert resealed == Resealed(rows=2, damaged=1, damaged_names=("b",))
    assert same(identities[0], keystore.load("a"))
    keystore.close()
    keystore = open_keystore(tmp_path, other)
    assert same(identities[2], keystore.load("c"))
    keystore.close()
    with pytest.raises(IdentityError) as caught:
        open_keystore(tmp_path)
    assert caught.value.code is Code.CONFIG_MASTER_KEY
