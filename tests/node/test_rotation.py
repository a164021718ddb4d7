"""Rotating a node's own key: announced before its use, never without the overlap it needs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from identity import Code, IdentityError, SidelinkError, did_key
from identity.history import OVERLAP_S_MAX
from identity.own import ROTATIONS_MAX
from node import rotation as rotation_module
from node.clocks import ManualClock
from node.own_node import OwnNode
from node.rotation import (
    ANNOUNCE_SECONDS_MAX,
    AUTHORITY_ANNOUNCE_SECONDS,
    AUTHORITY_OVERLAP_LEFT_SECONDS_MIN,
    NODE_ANNOUNCE_SECONDS,
    NODE_OVERLAP_SECONDS,
    OVERLAP_LEFT_SECONDS_MIN,
    UNPINNED_CHANGES_MAX,
    Rotation,
)
from node.store import Store
from tests.node.members import DAY_S, HOUR_S, Authority, hop_proof, started


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Scene:
    """A node that has enrolled, and its rotation."""

    def __init__(self, node: OwnNode, store: Store, clock: ManualClock) -> None:
        self.node = node
        self.store = store
        self.clock = clock
        self.rotation = Rotation(node, store, clock)
        self.used: list[int] = []
        self.rotation.on_used.append(lambda: self.used.append(node.own.history.change_number))

    @property
    def key(self) -> str:
        return did_key(self.node.own.signing_key.verify_key)


@pytest.fixture
def scene(tmp_path: Path, clock: ManualClock) -> Iterator[Scene]:
    with started(tmp_path, clock) as (node, store):
        Authority().enrol(node, clock.unix_s(), ttl_s=DAY_S)
        yield Scene(node, store, clock)


@contextlib.asynccontextmanager
async def running(rotation: Rotation) -> AsyncIterator[None]:
    task = asyncio.create_task(rotation.run())
    try:
        async with asyncio.timeout(5):
            yield
        assert not task.done(), "a rotation looks after itself for ever"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turns() -> None:
    """Let everything run that can run without the clock."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_announced_key_is_in_the_history_and_signs_nothing(scene: Scene) -> None:
    before = scene.key
    answer = scene.rotation.begin({})
    proof, _ = hop_proof(scene.node.own)

    assert answer["key"] == did_key(scene.node.own.history.current_key)
    assert answer["key"] != before
    assert scene.key == before
    assert scene.node.hop_identity().proof == proof
    assert answer["used_from_unix_s"] == int(scene.clock.unix_s()) + NODE_ANNOUNCE_SECONDS
    assert answer["old_key_ends_unix_s"] == int(scene.clock.unix_s()) + NODE_OVERLAP_SECONDS


async def test_the_announced_key_signs_when_its_time_has_come_and_not_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation_module, "LOOK_SECONDS_MAX", 0.001)
    answer = scene.rotation.begin({"announce_s": 100})
    used = asyncio.Event()
    scene.rotation.on_used.append(used.set)
    async with running(scene.rotation):
        scene.clock.advance(99)
        await asyncio.sleep(0.01)
        early = scene.key
        scene.clock.advance(1)
        await used.wait()

    assert early != answer["key"]
    assert scene.key == answer["key"]
    assert scene.used == [1]
    assert scene.rotation.use_unix_s is None


async def test_a_rotation_asked_for_at_once_waits_for_no_look(scene: Scene) -> None:
    used = asyncio.Event()
    scene.rotation.on_used.append(used.set)
    async with running(scene.rotation):
        await turns()
        answer = scene.rotation.begin({"announce_s": 0, "overlap_s": 0})
        await used.wait()

    assert scene.key == answer["key"]


async def test_an_interrupted_rotation_goes_on_with_the_same_key_and_time(
    tmp_path: Path, clock: ManualClock
) -> None:
    with started(tmp_path, clock) as (node, store):
        Authority().enrol(node, clock.unix_s(), ttl_s=DAY_S)
        answer = Rotation(node, store, clock).begin({"announce_s": 100})
    clock.advance(3_000)
    with started(tmp_path, clock) as (node, store):
        again = Scene(node, store, clock)
        use_unix_s = again.rotation.use_unix_s
        used = asyncio.Event()
        again.rotation.on_used.append(used.set)
        async with running(again.rotation):
            await used.wait()
        key = again.key

    assert use_unix_s == answer["used_from_unix_s"]
    assert key == answer["key"]


async def test_a_disk_that_fails_now_only_delays_a_rotation(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation_module, "RETRY_SECONDS", 0.001)
    answer = scene.rotation.begin({"announce_s": 0})
    honest, failures = scene.node.use_announced_key, iter(range(2))

    def use() -> None:
        if next(failures, None) is not None:
            raise IdentityError(Code.CONFIG_STATE_LOCKED, "the database is locked")
        honest()

    monkeypatch.setattr(scene.node, "use_announced_key", use)
    used = asyncio.Event()
    scene.rotation.on_used.append(used.set)
    async with running(scene.rotation):
        await used.wait()

    assert scene.key == answer["key"]


LEFT_S = OVERLAP_LEFT_SECONDS_MIN
BAD_WISHES: Mapping[str, Mapping[str, Any]] = {
    "an announcement that is no number": {"announce_s": "30"},
    "an announcement of half a second": {"announce_s": 0.5},
    "an announcement that is a yes": {"announce_s": True},
    "an announcement before now": {"announce_s": -1},
    "an announcement beyond a week": {"announce_s": ANNOUNCE_SECONDS_MAX + 1},
    "an overlap beyond its limit": {"overlap_s": OVERLAP_S_MAX + 1},
    "an overlap that is nothing": {"overlap_s": None},
    "an old key that ends while it still signs": {"announce_s": 100, "overlap_s": 99},
    "an old key that ends when the new one begins": {"announce_s": 100, "overlap_s": 100},
    "an old key that ends before clocks agree": {"announce_s": 100, "overlap_s": 99 + LEFT_S},
}


@pytest.mark.parametrize("wishes", BAD_WISHES.values(), ids=BAD_WISHES)
def test_nothing_is_announced_for(wishes: Mapping[str, Any], scene: Scene) -> None:
    with pytest.raises(SidelinkError) as caught:
        scene.rotation.begin(wishes)

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert scene.node.own.history.change_number == 0
    assert scene.rotation.use_unix_s is None


def test_the_overlap_reaches_beyond_a_long_announcement_unless_said_otherwise(scene: Scene) -> None:
    answer = scene.rotation.begin({"announce_s": ANNOUNCE_SECONDS_MAX})

    assert answer["old_key_ends_unix_s"] - answer["used_from_unix_s"] == LEFT_S


def test_one_rotation_at_a_time(scene: Scene) -> None:
    scene.rotation.begin({})
    with pytest.raises(SidelinkError, match="under way"):
        scene.rotation.begin({})

    assert scene.node.own.history.change_number == 1


def test_a_clock_that_went_back_is_told_and_leaves_the_node_as_it_was(scene: Scene) -> None:
    scene.clock.unix -= 3_600
    with pytest.raises(SidelinkError) as caught:
        scene.rotation.begin({})

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert scene.node.own.next_key is None
    assert scene.node.own.history.change_number == 0


def test_a_node_does_not_rotate_out_of_its_authoritys_sight(scene: Scene) -> None:
    """Peers check two signatures for each change that no credential pins, and sixteen at most."""
    for _ in range(UNPINNED_CHANGES_MAX):
        scene.rotation.begin({"announce_s": 0})
        scene.node.use_announced_key()
    with pytest.raises(SidelinkError, match="not seen"):
        scene.rotation.begin({"announce_s": 0})

    assert scene.node.own.history.change_number == UNPINNED_CHANGES_MAX


def test_a_node_keeps_to_what_it_can_still_show(tmp_path: Path, clock: ManualClock) -> None:
    authority = Authority()
    with started(tmp_path, clock) as (node, store):
        authority.enrol(node, clock.unix_s(), ttl_s=DAY_S)
        scene = Scene(node, store, clock)
        for _ in range(ROTATIONS_MAX):
            authority.rotate(clock.unix_s())
            scene.rotation.begin({"announce_s": 0})
            scene.node.use_announced_key()
            authority.renew(node, clock.unix_s(), ttl_s=DAY_S)
        with pytest.raises(SidelinkError, match="new identity") as caught:
            scene.rotation.begin({"announce_s": 0})
        proof = node.hop_identity().proof

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert proof


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Iterator[Scene]:
    with started(tmp_path, clock, authority_of="acme") as (node, store):
        yield Scene(node, store, clock)


def test_an_authority_gives_its_nodes_time(authority: Scene) -> None:
    answer = authority.rotation.begin({})

    assert answer["used_from_unix_s"] == int(authority.clock.unix_s()) + AUTHORITY_ANNOUNCE_SECONDS
    assert answer["old_key_ends_unix_s"] == int(authority.clock.unix_s()) + OVERLAP_S_MAX


@pytest.mark.parametrize("announce_s", [0, HOUR_S])
def test_an_authoritys_old_key_outlives_the_use_of_the_new_one_by_an_hour(
    announce_s: int, authority: Scene
) -> None:
    """All credentials of its nodes are signed by the old key until the new one signs."""
    least_s = announce_s + AUTHORITY_OVERLAP_LEFT_SECONDS_MIN
    with pytest.raises(SidelinkError) as caught:
        authority.rotation.begin({"announce_s": announce_s, "overlap_s": least_s - 1})
    answer = authority.rotation.begin({"announce_s": announce_s, "overlap_s": least_s})

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert answer["old_key_ends_unix_s"] - answer["used_from_unix_s"] == HOUR_S
