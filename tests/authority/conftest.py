"""An authority's office in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.clocks import ManualClock
from tests.authority.helpers import DeskUnderTest, Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path, ManualClock())
    yield office
    office.tables.close()


@pytest.fixture
def at(office: Office) -> DeskUnderTest:
    return DeskUnderTest(office)
