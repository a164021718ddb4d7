"""Fetching keys: from a real HTTPS server on loopback, and from nowhere that it should not."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authority import fetch as fetch_module
from authority.fetch import fetch, is_allowed_address
from identity import Code, SidelinkError
from tests.authority.tokens import jwks

LIMIT = 4_096


class Issuer:
    """An HTTPS server with a certificate of its own making, for the name ``localhost``."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file = folder / "key.pem"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.ca_file, key_file)
        self.requests: list[web.BaseRequest] = []
        self.answer: Callable[[], Any] = lambda: web.Response(body=jwks())

    @contextlib.asynccontextmanager
    async def serve(self, *, tls: bool = True) -> AsyncIterator[str]:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self.requests.append(request)
            answer = self.answer()
            if isinstance(answer, web.StreamResponse):
                return answer
            waited: web.StreamResponse = await answer
            return waited

        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0)
        await runner.setup()
        context = self.context if tls else None
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}/jwks"
        finally:
            await runner.cleanup()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def issuer(made: Issuer) -> Issuer:
    made.requests.clear()
    made.answer = lambda: web.Response(body=jwks())
    return made


async def get(url: str, issuer: Issuer | None, *, allow: bool = True) -> bytes:
    async with asyncio.timeout(20):
        return await fetch(
            url,
            bytes_max=LIMIT,
            ca_file=None if issuer is None else issuer.ca_file,
            allow_private_network=allow,
        )


async def refusal(url: str, issuer: Issuer | None, *, allow: bool = True) -> str:
    with pytest.raises(SidelinkError) as caught:
        await get(url, issuer, allow=allow)
    assert caught.value.code is Code.ENROL_KEYS_UNAVAILABLE
    return caught.value.detail


async def test_keys_are_fetched_from_a_server_whose_certificate_is_trusted(
    issuer: Issuer,
) -> None:
    async with issuer.serve() as url:
        assert await get(url, issuer) == jwks()

    assert issuer.requests[0].headers["Accept-Encoding"] == "identity"


async def test_plain_http_is_for_loopback_and_only_where_that_is_allowed(issuer: Issuer) -> None:
    async with issuer.serve(tls=False) as url:
        assert await get(url, None) == jwks()
        assert "no keys are fetched" in await refusal(url, None, allow=False)


async def test_a_private_address_is_not_dialled_unless_allowed(issuer: Issuer) -> None:
    async with issuer.serve() as url:
        for host in ("localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
            assert "no keys are fetched" in await refusal(
                url.replace("localhost", host), issuer, allow=False
            )

    assert issuer.requests == []


async def test_a_name_is_dialled_at_the_address_that_was_judged(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    loop = asyncio.get_running_loop()
    asked: list[Any] = []

    async def getaddrinfo(host: Any, port: Any, **_: Any) -> Any:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "203.0.113.1"
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with issuer.serve(tls=False) as url:
        assert await get(url.replace("localhost", "issuer.example"), None) == jwks()

    assert asked == ["issuer.example"]


async def test_a_name_with_one_address_too_many_is_not_dialled_at_all(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: Any, port: Any, **_: Any) -> Any:
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.1", "169.254.169.254")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with issuer.serve() as url:
        assert "169.254.169.254" in await refusal(url, issuer)

    assert issuer.requests == []


async def test_a_certificate_of_nobody_is_refused(issuer: Issuer) -> None:
    async with issuer.serve() as url:
        assert "Certificate" in await refusal(url, None)
        wrong_name = url.replace("localhost", "127.0.0.1")
        assert "Certificate" in await refusal(wrong_name, issuer)

    assert issuer.requests == []


async def _endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 1_000)
    return response


def _redirect(status: int) -> Callable[[], web.Response]:
    place = "http://169.254.169.254/latest/meta-data/"
    return lambda: web.Response(status=status, headers={"Location": place})


ANSWERS: dict[str, Callable[[], Any]] = {
    "a redirect to the machine's own secrets": _redirect(302),
    "a redirect that keeps the method": _redirect(307),
    "a redirect for ever": _redirect(301),
    "an error": lambda: web.Response(status=500, body=jwks()),
    "nothing to see": lambda: web.Response(status=204),
    "more than fits": lambda: web.Response(body=b" " * (LIMIT + 1)),
    "a compressed answer": lambda: web.Response(
        body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}
    ),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_no_keys_are_taken_from(issuer: Issuer, answer: Callable[[], Any]) -> None:
    issuer.answer = answer
    async with issuer.serve() as url:
        await refusal(url, issuer)

    assert len(issuer.requests) == 1


async def test_a_redirect_is_not_followed_though_keys_are_at_its_end(issuer: Issuer) -> None:
    def answer() -> web.Response:
        if len(issuer.requests) == 1:
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        return web.Response(body=jwks())

    issuer.answer = answer
    async with issuer.serve() as url:
        assert "302" in await refusal(url, issuer)

    assert len(issuer.requests) == 1


async def test_an_answer_without_end_ends_at_the_limit(issuer: Issuer) -> None:
    issuer.answer = lambda: _endless(issuer.requests[-1])
    async with issuer.serve() as url:
        assert "more than" in await refusal(url, issuer)


async def test_a_server_that_says_nothing_is_left_in_time(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "FETCH_SECONDS_MAX", 0.05)
    silence = asyncio.Event()

    async def wait() -> web.Response:
        await silence.wait()
        return web.Response()

    issuer.answer = wait
    async with issuer.serve() as url:
        assert "nothing within" in await refusal(url, issuer)
        silence.set()


async def test_nobody_there_is_no_keys(issuer: Issuer) -> None:
    async with issuer.serve() as url:
        pass

    await refusal(url, issuer)


PUBLIC = ("8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "2002:808:808::1")
PRIVATE = (
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
)
NEVER = (
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "240.0.0.1",
    "255.255.255.255",
    "no address",
    "",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_always_allowed(address: str) -> None:
    for allow in (False, True):
        assert is_allowed_address(address, allow_private_network=allow, is_plain=False)
        assert not is_allowed_address(address, allow_private_network=allow, is_plain=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_allowed_where_a_setting_says_so(address: str) -> None:
    assert not is_allowed_address(address, allow_private_network=False, is_plain=False)
    assert is_allowed_address(address, allow_private_network=True, is_plain=False)


@pytest.mark.parametrize("address", NEVER)
def test_an_address_is_never_allowed_that_is(address: str) -> None:
    for is_plain in (False, True):
        assert not is_allowed_address(address, allow_private_network=True, is_plain=is_plain)
