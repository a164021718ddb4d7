"""What two operators hand each other so that one's authority may vouch for the other's agent.

A card (`slh1…`) is an identity's change history: who it is, and its current key. A voucher
(`slc1…`) is the credential that an authority has issued for it, with the authority's history.
Neither is secret; both are signed.
"""

from typing import Final

from identity import cbor
from identity.codes import Code
from identity.credential import CREDENTIAL_BYTES_MAX
from identity.fields import Reader
from identity.history import HISTORY_BYTES_MAX, ChangeHistory
from identity.proof import PROOF_BYTES_MAX, ChainLink
from identity.texts import from_text, to_text

CARD_PREFIX: Final = "slh1"
VOUCHER_PREFIX: Final = "slc1"
# In base64 four characters stand for three bytes.
CARD_CHARS_MAX: Final = HISTORY_BYTES_MAX * 4 // 3 + 64
VOUCHER_CHARS_MAX: Final = PROOF_BYTES_MAX * 4 // 3 + 64

_CARD: Final = Reader(Code.CHANNEL_HISTORY_INVALID)
_VOUCHER: Final = Reader(Code.CHANNEL_CREDENTIAL_INVALID)


def encode_card(history: ChangeHistory) -> str:
    return to_text(CARD_PREFIX, history.encode())


def parse_card_untrusted(text: str) -> ChangeHistory:
    """Read a card and check all of its signatures: it is a history of any length, once."""
    body = from_text(CARD_PREFIX, text, read=_CARD, what="a card", chars_max=CARD_CHARS_MAX)
    history = ChangeHistory.decode_untrusted(body)
    history.verify_all()
    return history


def encode_voucher(link: ChainLink) -> str:
    return to_text(VOUCHER_PREFIX, cbor.encode([link.credential, link.issuer_history]))


def parse_voucher_untrusted(text: str) -> ChainLink:
    """Take a voucher apart. Nothing inside it is checked but lengths."""
    body = from_text(
        VOUCHER_PREFIX, text, read=_VOUCHER, what="a voucher", chars_max=VOUCHER_CHARS_MAX
    )
    value = cbor.decode_untrusted(
        body, bytes_max=PROOF_BYTES_MAX, depth_max=1, code=Code.CHANNEL_CREDENTIAL_INVALID
    )
    credential, history = _VOUCHER.array(value, 2, 2)
    return ChainLink(
        _VOUCHER.byte_string(credential, CREDENTIAL_BYTES_MAX),
        _VOUCHER.byte_string(history, PROOF_BYTES_MAX),
    )
