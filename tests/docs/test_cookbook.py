"""Each policy of docs/policy-cookbook.md loads as it stands; its tests hold all of its rules."""

import re
from typing import Any, Final

import fastjsonschema  # type: ignore[import-untyped]
import pytest

from cli.policy_tests import rules_not_exercised
from policy import PolicyEngine
from policy.schema import policy_schema
from policy.strict_yaml import load_strict
from tests.docs.markdown import DOCS, named_blocks

COOKBOOK: Final = DOCS / "policy-cookbook.md"
RECIPES: Final = named_blocks(COOKBOOK, "yaml")
RECIPES_MIN: Final = 20
VALID: Final[Any] = fastjsonschema.compile(policy_schema())


def engine_of(recipe: str) -> PolicyEngine:
    return PolicyEngine.load(RECIPES[recipe], file=f"{recipe}.yaml")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_tests_of_a_recipe_pass(recipe: str) -> None:
    outcomes = engine_of(recipe).run_tests()

    assert [outcome for outcome in outcomes if not outcome.passed] == []
    assert {outcome.decided for outcome in outcomes} == {"allow", "deny"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_rule_of_a_recipe_decides_a_test(recipe: str) -> None:
    engine = engine_of(recipe)

    assert rules_not_exercised(engine, engine.run_tests()) == ()


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_editor_underlines_nothing_of_a_recipe(recipe: str) -> None:
    data, _ = load_strict(RECIPES[recipe], f"{recipe}.yaml")

    VALID(data)


def test_there_are_as_many_as_promised_and_each_is_in_the_contents() -> None:
    text = COOKBOOK.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(#([a-z-]+)\)", text)
    headings = [
        re.sub(r"[^a-z -]", "", line[4:].lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("### ")
    ]

    assert len(RECIPES) >= RECIPES_MIN
    assert sorted(linked) == sorted(headings)
    assert len(headings) == len(RECIPES)
