"""A certificate authority for one run, with a server and a client, for systems that use TLS."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME: Final = "localhost"
_NOT_BEFORE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(2099, 12, 31, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Both ends are verified against ``authority``."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def as_place(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in self.__slots__}


def make_tls_files(folder: Path) -> TlsFiles:
    """P-256 throughout, as TLS servers mostly have it."""
    files = TlsFiles(
        *(
            folder / name
            for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
        )
    )
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("bench authority")
    authority = _builder(name, name, key.public_key(), is_authority=True).sign(key, hashes.SHA256())
    _write_certificate(files.authority, authority)
    for path, key_path, usage, common_name in (
        (files.server, files.server_key, ExtendedKeyUsageOID.SERVER_AUTH, SERVER_NAME),
        (files.client, files.client_key, ExtendedKeyUsageOID.CLIENT_AUTH, "bench agent"),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, _name(common_name), own.public_key(), is_authority=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        _write_certificate(path, builder.sign(key, hashes.SHA256()))
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return files


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    is_authority: bool,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    )


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
