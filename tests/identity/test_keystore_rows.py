"""What a row holds: chains that their issuers complete, keys that are announced, pages of names."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from identity import ChainLink, Code, IdentityError, OwnIdentity, SigningKey
from identity.credential import CHAIN_LINKS_MAX
from identity.proof import FURTHER_MAX
from tests.identity.helpers import NOW
from tests.identity.test_keystore import new, open_keystore


def test_chains_come_back_byte_by_byte(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    chain = (ChainLink(b"credential", b"history"), ChainLink(b"", b""))
    further = ((ChainLink(b"another", b"issuer"),), chain)
    keystore.save(replace(new("node").with_chain(chain), further=further, ends_unix_s=NOW))

    loaded = keystore.load("node")

    assert loaded is not None
    assert loaded.chain == chain
    assert loaded.further == further
    assert loaded.ends_unix_s == NOW
    keystore.close()


def test_of_a_chain_only_the_first_credential_is_stored_and_the_rest_is_the_issuers(
    tmp_path: Path,
) -> None:
    node, agent, child = family()
    keystore = open_keystore(tmp_path)
    keystore.save_many((node, agent, child))
    renewed = node.with_chain((ChainLink(b"renewed", b"authority"),))
    keystore.save(renewed)

    loaded = keystore.load("a/child")

    assert loaded is not None
    assert [link.credential for link in loaded.chain] == [b"of child", b"of a", b"renewed"]
    assert loaded.chain[1:] == agent.below(renewed, b"of a").chain
    assert loaded.issued_by == "a"
    assert (keystore.children(".node"), keystore.children("a")) == (1, 1)
    assert keystore.children_names("a") == ("a/child",)
    keystore.close()


def family() -> tuple[OwnIdentity, OwnIdentity, OwnIdentity]:
    node = new(".node").with_chain((ChainLink(b"of node", b"authority"),))
    agent = new("a").below(node, b"of a")
    return node, agent, new("a/child").below(agent, b"of child")


def test_an_issuer_that_the_caller_holds_is_not_read(tmp_path: Path) -> None:
    node, agent, child = family()
    keystore = open_keystore(tmp_path)
    keystore.save_many((agent, child))

    loaded = keystore.load("a/child", {".node": node}.get)

    assert loaded is not None
    assert loaded.chain == child.chain
    keystore.close()


@pytest.mark.parametrize("missing", [".node", "a"])
def test_a_row_without_its_issuer_is_named(missing: str, tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save_many(family())
    keystore.remove(missing)

    with pytest.raises(IdentityError, match=missing) as caught:
        keystore.load("a/child")

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    keystore.close()


def test_a_row_whose_issuers_go_in_a_circle_is_refused(tmp_path: Path) -> None:
    keystore = open_keystore(tmp_path)
    first = new("a").below(new("b"), b"")
    keystore.save_many((first, new("b").below(first, b"")))

    with pytest.raises(IdentityError) as caught:
        keystore.load("a")

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    keystore.close()


def test_a_rotation_that_is_announced_comes_back_announced(tmp_path: Path) -> None:
    announced = new("a").with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)
    keystore = open_keystore(tmp_path)
    keystore.save(announced)

    loaded = keystore.load("a")

    assert loaded is not None
    assert loaded.next_key is not None
    assert loaded.signing_key.verify_key == announced.signing_key.verify_key
    assert loaded.using_next_key(unix_s=NOW).signing_key.verify_key == loaded.history.current_key
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert loaded.next_key.private_bytes() not in stored
    keystore.close()


@pytest.mark.parametrize(
    "mixed",
    [
        lambda one, other: replace(one, next_key=other.next_key),
        lambda one, other: replace(one, signing_key=other.signing_key),
        lambda one, _: replace(one, signing_key=one.next_key, next_key=one.signing_key),
        lambda one, _: replace(one, next_key=None),
    ],
    ids=["another next key", "another key before it", "both swapped", "no next key"],
)
def test_keys_that_are_not_the_last_of_the_history_are_refused(
    mixed: Callable[[OwnIdentity, OwnIdentity], OwnIdentity], tmp_path: Path
) -> None:
    one, other = (
        new("a").with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60) for _ in range(2)
    )
    keystore = open_keystore(tmp_path)
    keystore.save(mixed(one, other))

    with pytest.raises(IdentityError) as caught:
        keystore.load("a")

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    keystore.close()


WHAT_NO_ROW_HOLDS: dict[str, Callable[[OwnIdentity], OwnIdentity]] = {
    "no name": lambda own: replace(own, name=""),
    "a name that is too long": lambda own: replace(own, name="a" * 256),
    "a name that looks damaged": lambda own: replace(own, name="a\\xff"),
    "a chain that is too long": lambda own: own.with_chain(
        (ChainLink(b"", b""),) * (CHAIN_LINKS_MAX + 1)
    ),
    "too many chains": lambda own: replace(own, further=((),) * (FURTHER_MAX + 1)),
}


@pytest.mark.parametrize("spoil", WHAT_NO_ROW_HOLDS.values(), ids=WHAT_NO_ROW_HOLDS)
def test_what_could_not_be_read_again_is_not_saved(
    spoil: Callable[[OwnIdentity], OwnIdentity], tmp_path: Path
) -> None:
    keystore = open_keystore(tmp_path)

    with pytest.raises(ValueError, match=r"name|chain|credentials"):
        keystore.save(spoil(new("a")))

    assert keystore.names() == ()
    keystore.close()


def test_names_come_in_pages_and_a_damaged_one_neither_hides_nor_repeats_another(
    tmp_path: Path,
) -> None:
    keystore = open_keystore(tmp_path)
    keystore.save_many(new(name) for name in ("a", "b", "c", "d"))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE keystore_rows SET name = CAST(x'62ff' AS TEXT) WHERE name = 'b'")
    connection.close()
    pages = []
    while page := keystore.names(after=pages[-1][-1] if pages else "", limit=1):
        pages.append(page)

    assert pages == [("a",), ("b\\xff",), ("c",), ("d",)]
    with pytest.raises(IdentityError):
        keystore.load("b\\xff")
    assert keystore.remove("b\\xff")
    assert keystore.names() == ("a", "c", "d")
    keystore.close()
