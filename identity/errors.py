"""The base of every error that carries a code, and the error of this package."""

from identity.codes import Code


class SidelinkError(Exception):
    """Something was refused or failed. The code may cross the wire; the detail never does.

    The detail is for our own log and may quote what an attacker sent.
    """

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code.text}: {self.detail}" if self.detail else self.code.text


class IdentityError(SidelinkError):
    """A name, a key, a history, a credential or a proof that is not what it should be."""


class CborError(IdentityError):
    """Bytes that are not the canonical encoding of what was expected."""
