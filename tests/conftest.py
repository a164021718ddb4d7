"""What every test runs under: one Hypothesis profile, and the time budget of `./dev prove`."""

import os
import time

import pytest
from hypothesis import settings

# Two busy cores make a deadline per example measure the machine and not the code. Where CI is set
# the default is Hypothesis' own profile for it, whose examples are the same in every run.
settings.register_profile("sidelink", parent=settings.default, deadline=None, print_blob=True)
settings.load_profile("sidelink")

_BEGUN_S = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """After the budget the rest is reported as not run, so that `prove` stops by itself."""
    budget_s = float(os.environ.get("SIDELINK_PROVE_SECONDS", "inf"))
    if item.get_closest_marker("prove") and time.monotonic() - _BEGUN_S > budget_s:
        pytest.skip(f"not reached: the budget of {budget_s:g} s is spent (SIDELINK_PROVE_SECONDS)")
