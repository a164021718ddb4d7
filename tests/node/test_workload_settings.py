"""Settings of workloads: what a claim is, what a name is made of, and where keys may come from."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import AgentUri, Code, SidelinkError
from node.settings import AuthoritySettings
from node.settings_load import load_settings
from node.workload_settings import parse_claim, parse_template

CLAIMS = {
    "/sub": ("sub",),
    "/kubernetes.io/pod/name": ("kubernetes.io", "pod", "name"),
    "/https:~1~1example.com~1roles": ("https://example.com/roles",),
    "/a~01": ("a~1",),
}


@pytest.mark.parametrize("pointer", CLAIMS)
def test_a_claim_is_named_by_a_json_pointer(pointer: str) -> None:
    assert parse_claim(pointer) == CLAIMS[pointer]


@pytest.mark.parametrize(
    "pointer", ["", "/", "sub", "sub/x", "//", "/a//b", "/a/", "/~", "/~2", "/{a}", "/a" * 9]
)
def test_no_claim_is_named_by(pointer: str) -> None:
    with pytest.raises(ValueError, match=r"claim|deeper"):
        parse_claim(pointer)


def test_a_template_is_segments_of_words_and_whole_claims() -> None:
    assert parse_template("k8s/{/kubernetes.io/namespace}/{/sub}") == (
        "k8s",
        ("kubernetes.io", "namespace"),
        ("sub",),
    )


BAD_TEMPLATES = {
    "nothing": "",
    "a slash": "/",
    "a slash at the end": "k8s/",
    "an empty segment": "a//b",
    "a claim with a word beside it": "k8s/{/sub}-x",
    "a word with a claim beside it": "k8s/x-{/sub}",
    "two claims in one segment": "{/a}{/b}",
    "a claim that is not closed": "{/sub",
    "a claim that is not opened": "/sub}",
    "a claim within a claim": "{/a{/b}}",
    "no claim": "{}",
    "a word in upper case": "K8s/{/sub}",
    "a word that climbs": "../{/sub}",
    "too many segments": "/".join("abcdefghi"),
}


@pytest.mark.parametrize("text", BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_a_name_is_not_made_of(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_template(text)


@given(st.text(alphabet="ab/{}~01.-", max_size=30))
def test_a_template_that_is_read_makes_a_name_of_good_segments(text: str) -> None:
    try:
        parts = parse_template(text)
    except ValueError:
        return

    assert AgentUri("acme", tuple(part if isinstance(part, str) else "x" for part in parts))


def loaded(tmp_path: Path, lines: str) -> Any:
    folder = tmp_path / "authority"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "config.yaml").write_text(f"workloads:\n  - {lines}\n")
    settings = load_settings(AuthoritySettings, {"state": str(tmp_path)}, variables={})
    return settings.workloads[0]


GOOD = "{issuer: i, jwks_url: 'https://issuer.example/keys', match: {/sub: x}, name: 'k/{/sub}'%s}"


def test_a_workload_takes_no_shared_secret_and_no_private_network_unless_told(
    tmp_path: Path,
) -> None:
    workload = loaded(tmp_path, GOOD % "")

    assert workload.algorithms == ("RS256", "ES256", "EdDSA")
    assert not workload.allow_private_network
    assert not workload.replace
    assert workload.token_age_s_max == 3_600


LOCAL = "{issuer: i, jwks_url: '%s', match: {/sub: x}, name: k, allow_private_network: true}"


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:8080"])
def test_plain_http_is_for_loopback(tmp_path: Path, host: str) -> None:
    assert loaded(tmp_path, LOCAL % f"http://{host}/keys")
    with pytest.raises(SidelinkError):
        loaded(tmp_path, LOCAL.replace(", allow_private_network: true", "") % f"http://{host}/")


BAD_URLS = {
    "http to anywhere": "http://issuer.example/keys",
    "http to a private address": "http://10.0.0.1/keys",
    "a file": "file:///etc/passwd",
    "no host": "https:///keys",
    "no scheme": "issuer.example/keys",
    "a user": "https://me@issuer.example/keys",
    "a user and a password": "https://me:secret@issuer.example/keys",
    "a fragment": "https://issuer.example/keys#x",
    "port 0": "https://issuer.example:0/keys",
    "a port beyond the last": "https://issuer.example:70000/keys",
    "a space": "https://issuer.example/a b",
    "letters of another script": "https://\u0456ssuer.example/keys",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_keys_are_not_fetched_from(tmp_path: Path, url: str) -> None:
    with pytest.raises(SidelinkError) as caught:
        loaded(tmp_path, LOCAL % url)

    assert caught.value.code is Code.CONFIG_INVALID


BAD_WORKLOADS = {
    "no keys": "{issuer: i, match: {/sub: x}, name: k}",
    "keys from two places": GOOD % ", jwks_file: /k",
    "certificates for a file": "{issuer: i, jwks_file: /k, ca_file: /c, match: {/s: x}, name: k}",
    "a shared secret's algorithm": GOOD % ", algorithms: [HS256]",
    "no algorithm at all": GOOD % ", algorithms: [none]",
    "an empty list of algorithms": GOOD % ", algorithms: []",
    "everybody": "{issuer: i, jwks_file: /k, match: {}, name: k}",
    "nothing to match": "{issuer: i, jwks_file: /k, name: k}",
    "a claim by a dotted path": "{issuer: i, jwks_file: /k, match: {kubernetes.io: x}, name: k}",
    "a fraction to match": "{issuer: i, jwks_file: /k, match: {/a: 1.5}, name: k}",
    "no issuer": "{issuer: '', jwks_file: /k, match: {/s: x}, name: k}",
    "a claim in part of a segment": "{issuer: i, jwks_file: /k, match: {/s: x}, name: 'a-{/s}'}",
    "an attribute of no claim": GOOD % ", attributes: {a: '{sub}'}",
    "an age of a week": GOOD % ", token_age_s_max: 604800",
    "an age that is true": GOOD % ", token_age_s_max: true",
}


@pytest.mark.parametrize("lines", BAD_WORKLOADS.values(), ids=BAD_WORKLOADS)
def test_a_workload_is_refused_with(tmp_path: Path, lines: str) -> None:
    with pytest.raises(SidelinkError) as caught:
        loaded(tmp_path, lines)

    assert caught.value.code in (Code.CONFIG_INVALID, Code.CONFIG_UNKNOWN_KEY)
    assert "config.yaml:" in caught.value.detail


def test_an_unknown_key_of_a_workload_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SidelinkError) as caught:
        loaded(tmp_path, GOOD % ", jwks_uri: x")

    assert caught.value.code is Code.CONFIG_UNKNOWN_KEY
    assert "jwks_uri" in caught.value.detail
