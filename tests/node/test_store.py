"""What a node remembers survives a restart, and damage is named."""

import sqlite3
import stat
from pathlib import Path

import pytest

from identity import Code, GatewayAddress, Identifier, TrustAnchor
from node.errors import ConfigError
from node.store import GATEWAYS_MAX, TRUST_ANCHORS_MAX, VALUE_BYTES_MAX, Store


def identifier(number: int) -> Identifier:
    return Identifier(number.to_bytes(32, "big"))


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    gateways = (GatewayAddress("b", 2, identifier(2)), GatewayAddress("a", 1, identifier(1)))
    with Store.open(tmp_path / "state.db") as store:
        store.add_trust_anchor(TrustAnchor(identifier(9), "acme"))
        store.replace_gateways(gateways)
        store.put("clock", b"1")

    with Store.open(tmp_path / "state.db") as again:
        assert again.trust_anchors() == (TrustAnchor(identifier(9), "acme"),)
        assert again.gateways() == gateways
        assert again.get("clock") == b"1"


def test_the_file_is_closed_to_others(tmp_path: Path) -> None:
    Store.open(tmp_path / "state.db").close()

    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600


def test_a_value_is_replaced(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state.db") as store:
        store.put("k", b"1")
        store.put("k", b"2")

        assert store.get("k") == b"2"
        assert store.get("another") is None


def test_what_is_written_together_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state.db") as store:

        def fail_in_the_middle() -> None:
            with store.together():
                store.put("k", b"1")
                raise RuntimeError("crash")

        with pytest.raises(RuntimeError, match="crash"):
            fail_in_the_middle()

        assert store.get("k") is None
        with store.together():
            store.put("k", b"1")
            store.add_trust_anchor(TrustAnchor(identifier(1), "acme"))
        assert store.get("k") == b"1"


def test_a_commit_that_fails_takes_nothing_along_that_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Store.open(path) as store:
        database = store._connection
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("CREATE TABLE above (i INTEGER PRIMARY KEY)")
        database.execute(
            "CREATE TABLE below (i REFERENCES above (i) DEFERRABLE INITIALLY DEFERRED)"
        )

        def orphan() -> None:
            with store.together():
                store.put("first", b"1")
                database.execute("INSERT INTO below VALUES (7)")

        with pytest.raises(ConfigError):
            orphan()
        store.put("second", b"2")
    with Store.open(path) as store:
        found = store.get("first"), store.get("second")

    assert found == (None, b"2")


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Store.open(path) as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            with store.together():
                store.put("first", b"1")
                store.put("second", bytes(100_000))

        with pytest.raises(ConfigError) as full:
            fill()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 100}")
        store.put("third", b"3")
        found = store.get("first"), store.get("third")

    assert "full" in full.value.detail
    assert full.value.remedy is not None
    assert "disk" in full.value.remedy
    assert found == (None, b"3")


def test_a_commit_is_forced_to_the_disk(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state.db") as store:
        (level,) = store._connection.execute("PRAGMA synchronous").fetchone()

    assert level == 2  # FULL


def test_limits_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state.db") as store:
        for number in range(TRUST_ANCHORS_MAX):
            store.add_trust_anchor(TrustAnchor(identifier(number), "acme"))

        with pytest.raises(ConfigError, match="trust anchors"):
            store.add_trust_anchor(TrustAnchor(identifier(999), "acme"))
        with pytest.raises(ConfigError, match="gateways"):
            store.replace_gateways([GatewayAddress("a", 1, identifier(1))] * (GATEWAYS_MAX + 1))
        with pytest.raises(ValueError, match="bytes"):
            store.put("k", bytes(VALUE_BYTES_MAX + 1))
        assert len(store.trust_anchors()) == TRUST_ANCHORS_MAX


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)

    with pytest.raises(ConfigError, match=r"state\.db") as caught:
        Store.open(tmp_path / "state.db")

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED


def test_tables_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path / "state.db").close()
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("INSERT INTO node_schema VALUES (99)")
    connection.commit()
    connection.close()

    with pytest.raises(ConfigError, match="newer version"):
        Store.open(tmp_path / "state.db")
