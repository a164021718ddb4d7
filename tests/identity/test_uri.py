"""Names: one spelling each, and prefixes that match whole segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import AgentUri, IdentityError, NamePrefix, validate_trust_domain

segments = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
paths = st.lists(segments, min_size=1, max_size=8).map(tuple)


@given(segments, paths)
def test_a_name_reads_back_as_it_was_printed(trust_domain: str, path: tuple[str, ...]) -> None:
    name = AgentUri(trust_domain, path)

    assert AgentUri.parse(str(name)) == name
    assert AgentUri.in_domain(trust_domain, "/".join(path)) == name
    assert NamePrefix.parse(str(name)) == NamePrefix(trust_domain, path)


def test_the_longest_name_is_255_bytes() -> None:
    name = "agent://acme/" + "a" * 63 + "/" + "b" * 63 + "/" + "c" * 63 + "/" + "d" * 50

    assert len(name) == 255
    assert str(AgentUri.parse(name)) == name
    with pytest.raises(IdentityError):
        AgentUri.parse(name + "d")


WHAT_IS_NOT_A_NAME = {
    "nothing": "",
    "no scheme": "acme/finance",
    "another scheme": "https://acme/finance",
    "a scheme in upper case": "AGENT://acme/finance",
    "no trust domain": "agent:///finance",
    "no path": "agent://acme",
    "an empty path": "agent://acme/",
    "a slash at the end": "agent://acme/finance/",
    "an empty segment": "agent://acme//planner",
    "upper case": "agent://acme/Finance",
    "a parent folder": "agent://acme/../finance",
    "a hidden segment": "agent://acme/.finance",
    "a segment that begins with a dash": "agent://acme/-finance",
    "an escape": "agent://acme/fin%61nce",
    "a query": "agent://acme/finance?x",
    "a fragment": "agent://acme/finance#x",
    "a port": "agent://acme:7440/finance",
    "a user": "agent://root@acme/finance",
    "a newline at the end": "agent://acme/finance\n",
    "a NUL": "agent://acme/fin\x00ance",
    "a letter of another script": "agent://acme/fin\u0430nce",
    "a digit of another script": "agent://acme/\u0661",
    "a wildcard": "agent://acme/*",
    "nine segments": "agent://acme/1/2/3/4/5/6/7/8/9",
    "a segment of 64 characters": "agent://acme/" + "a" * 64,
}


@pytest.mark.parametrize("text", WHAT_IS_NOT_A_NAME.values(), ids=WHAT_IS_NOT_A_NAME.keys())
def test_what_is_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        AgentUri.parse(text)


def test_parts_that_do_not_make_a_name_are_refused() -> None:
    with pytest.raises(IdentityError):
        AgentUri.in_domain("acme/finance", "planner")
    with pytest.raises(IdentityError):
        AgentUri("acme", ("finance/planner",))
    with pytest.raises(IdentityError):
        AgentUri.parse(["agent://acme/finance"])  # type: ignore[arg-type]
    with pytest.raises(IdentityError):
        validate_trust_domain("acme/finance")


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    for parse in (AgentUri.parse, NamePrefix.parse):
        try:
            assert str(parse(text)) == text
        except IdentityError:
            continue


WHAT_A_PREFIX_COVERS = {
    "the name itself": ("agent://acme/finance", "agent://acme/finance", True),
    "a name below": ("agent://acme/finance", "agent://acme/finance/planner", True),
    "the whole domain": ("agent://acme", "agent://acme/finance", True),
    "a longer segment": ("agent://acme/finance", "agent://acme/finance2", False),
    "a longer segment below": ("agent://acme/fin", "agent://acme/finance/planner", False),
    "a name above": ("agent://acme/finance/planner", "agent://acme/finance", False),
    "a sibling": ("agent://acme/finance", "agent://acme/sales", False),
    "another domain": ("agent://acme", "agent://acme2/finance", False),
    "another domain of the same path": ("agent://acme/finance", "agent://evil/finance", False),
}


@pytest.mark.parametrize(
    ("prefix", "name", "covered"), WHAT_A_PREFIX_COVERS.values(), ids=WHAT_A_PREFIX_COVERS.keys()
)
def test_a_prefix_covers_whole_segments_only(prefix: str, name: str, covered: bool) -> None:
    assert NamePrefix.parse(prefix).covers(AgentUri.parse(name)) is covered
    assert NamePrefix.parse(prefix).covers(NamePrefix.parse(name)) is covered


def test_a_prefix_does_not_cover_the_domain_above_it() -> None:
    assert not NamePrefix.parse("agent://acme/finance").covers(NamePrefix.parse("agent://acme"))
