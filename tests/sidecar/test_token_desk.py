"""What an operator may ask of a sidecar's tokens, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from identity import Code, SidelinkError
from node.clocks import ManualClock
from sidecar.local_door import TokenDesk
from sidecar.tokens import AGENTS_PER_TOKEN_MAX, TOKEN_SECONDS_MAX, TokenBook
from tests.simulation.people import node

DAY_S = 86_400


class Office:
    def __init__(self, path: Path) -> None:
        self.own = node("alpha").identity
        self.clock = ManualClock()
        self.tokens = TokenBook(path)
        self.revocations = 0
        self.desk = TokenDesk(self.tokens, lambda: self.own, self.clock, self._revoked)

    def _revoked(self) -> None:
        self.revocations += 1


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "state.db")
    yield office
    office.tokens.close()


async def ask(office: Office, **wishes: Any) -> dict[str, Any]:
    answer = await office.desk.create({"agents": ["alpha/a"], "expires_in_s": DAY_S} | wishes)
    assert isinstance(answer, dict)
    return answer


async def test_a_token_is_told_once_with_its_number_and_its_end(office: Office) -> None:
    answer = await ask(office, agents=["alpha/a", "alpha/b", "alpha/a"])

    assert answer["id"] == 1
    assert answer["agents"] == ["alpha/a", "alpha/b"]
    assert answer["expires_unix_s"] == office.clock.unix + DAY_S
    found = office.tokens.find_untrusted(answer["token"], office.clock.unix)
    assert found is not None


async def test_the_list_tells_everything_but_the_tokens(office: Office) -> None:
    answer = await ask(office)
    office.clock.advance(DAY_S)

    shown = await office.desk.show({})

    assert answer["token"] not in str(shown)
    assert isinstance(shown, dict)
    (entry,) = shown["tokens"]
    assert entry["expired"]
    assert entry["agents"] == ["alpha/a"]


async def test_revoking_ends_what_the_token_opened(office: Office) -> None:
    answer = await ask(office)

    assert await office.desk.revoke({"id": answer["id"]}) == {"revoked": 1}

    assert office.revocations == 1
    with pytest.raises(SidelinkError) as caught:
        await office.desk.revoke({"id": answer["id"]})
    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert office.revocations == 1


WISHES_REFUSED: dict[str, tuple[dict[str, Any], Code]] = {
    "no agents": ({"agents": []}, Code.LOCAL_BAD_REQUEST),
    "agents that are a text": ({"agents": "alpha/a"}, Code.LOCAL_BAD_REQUEST),
    "a name that is none": ({"agents": ["alpha/../b"]}, Code.LOCAL_BAD_REQUEST),
    "a pattern": ({"agents": ["alpha/*"]}, Code.LOCAL_BAD_REQUEST),
    "two names in one": ({"agents": ["alpha/a alpha/b"]}, Code.LOCAL_BAD_REQUEST),
    "a name of another sidecar": (
        {"agents": ["alpha/a", "beta/b"]},
        Code.LOCAL_NAME_OUTSIDE_PREFIX,
    ),
    "too many agents": (
        {"agents": ["alpha/a"] * (AGENTS_PER_TOKEN_MAX + 1)},
        Code.LOCAL_BAD_REQUEST,
    ),
    "no time": ({"expires_in_s": 0}, Code.LOCAL_BAD_REQUEST),
    "all time": ({"expires_in_s": TOKEN_SECONDS_MAX + 1}, Code.LOCAL_BAD_REQUEST),
    "a time that is true": ({"expires_in_s": True}, Code.LOCAL_BAD_REQUEST),
    "a key that is not known": ({"agent": "alpha/a"}, Code.LOCAL_BAD_REQUEST),
}


@pytest.mark.parametrize(("wishes", "code"), WISHES_REFUSED.values(), ids=WISHES_REFUSED.keys())
async def test_no_token_is_made_for(wishes: dict[str, Any], code: Code, office: Office) -> None:
    with pytest.raises(SidelinkError) as caught:
        await ask(office, **wishes)

    assert caught.value.code is code
    assert len(office.tokens) == 0


async def test_before_it_has_enrolled_a_sidecar_makes_no_token(office: Office) -> None:
    office.own = replace(office.own, name=None, delegable=None)

    with pytest.raises(SidelinkError) as caught:
        await ask(office)

    assert caught.value.code is Code.LOCAL_UNAVAILABLE
