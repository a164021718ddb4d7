"""Stand-ins for compositions in which nobody is revoked and nobody shows anything new."""

from typing import Any

from identity import IdentityError, VerifiedIdentity


class NobodyIsCut:
    """Fits ``sidecar.standing.Judge``."""

    def why_cut(self, identity: VerifiedIdentity) -> IdentityError | None:
        return None

    def cut(self, identity: VerifiedIdentity, what: str, why: IdentityError) -> None:
        raise AssertionError("nobody was to be cut")


class QuietNeighbours:
    """Stands where ``node.neighbours`` or ``node.membership`` would, and says nothing."""

    def hop_opened(self, hop: Any) -> None:
        pass

    def hop_closed(self, hop: Any, code: Any = None, detail: str = "") -> None:
        pass

    def take(self, hop: Any, frames: list[Any]) -> list[Any]:
        return frames

    def receive_untrusted(self, hop: Any, frame: Any) -> None:
        pass
