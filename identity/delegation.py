"""Attenuation: whether a credential stays within what its issuer's own credential lets it pass on.

A credential that goes beyond is refused, never trimmed. An authority is bound by none of this: it
may issue to nodes and agents, anything within its trust domain.
"""

from typing import NoReturn

from identity.codes import Code
from identity.credential import AttributeValue, Credential, Delegable
from identity.errors import IdentityError


def check_delegation(parent: Credential, child: Credential) -> None:
    """Raise IdentityError (CHANNEL_DELEGATION_EXCEEDED) naming the first field that goes too far.

    A sidecar calls it before it issues; every verifier calls it for each link of a chain.
    """
    may = parent.delegable
    if may is None:
        _exceeded(f"{parent.name} may not issue credentials")
    if may.depth < 1:
        _exceeded(f"{parent.name} is at the greatest depth")
    if child.kind != "agent":
        _exceeded("only an authority issues credentials to nodes")
    if child.trust_domain != parent.trust_domain:
        _exceeded("a credential for another trust domain")
    if not any(prefix.covers(child.name) for prefix in may.name_prefixes):
        _exceeded(f"the name {child.name} is outside the prefixes of {parent.name}")
    if child.expires_unix_s > parent.expires_unix_s:
        _exceeded("a credential that outlives its issuer's")
    if child.expires_unix_s - child.not_before_unix_s > may.lifetime_s_max:
        _exceeded(f"a lifetime of more than {may.lifetime_s_max} s")
    for name, value in child.attributes.items():
        if name not in may.attributes:
            _exceeded(f"the attribute {name} is not delegable")
        if not _value_is_within(may.attributes[name], value):
            _exceeded(f"the value of the attribute {name} is not delegable")
    if child.delegable is not None:
        _check_delegable(may, child.delegable)


def _check_delegable(may: Delegable, passed_on: Delegable) -> None:
    """The child's own right to delegate lies within the parent's, in each field."""
    if passed_on.depth >= may.depth:
        _exceeded("a depth that does not decrease")
    if passed_on.lifetime_s_max > may.lifetime_s_max:
        _exceeded("a delegable lifetime beyond the issuer's")
    for prefix in passed_on.name_prefixes:
        if not any(wider.covers(prefix) for wider in may.name_prefixes):
            _exceeded(f"the delegable prefix {prefix} is outside the issuer's")
    for action in passed_on.actions:
        if action not in may.actions:
            _exceeded(f"the delegable action {action} is not the issuer's")
    for name, values in passed_on.attributes.items():
        if name not in may.attributes:
            _exceeded(f"the delegable attribute {name} is not the issuer's")
        allowed = may.attributes[name]
        if allowed is None:
            continue
        if values is None or not all(_value_is_within(allowed, value) for value in values):
            _exceeded(f"delegable values of the attribute {name} beyond the issuer's")


def _value_is_within(allowed: tuple[AttributeValue, ...] | None, value: AttributeValue) -> bool:
    if allowed is None or _contains(allowed, value):
        return True
    # A list is also within what its items are each within.
    return isinstance(value, tuple) and all(_contains(allowed, item) for item in value)


def _contains(allowed: tuple[AttributeValue, ...], value: AttributeValue) -> bool:
    # The type counts: to Python, True equals 1.
    return any(type(item) is type(value) and item == value for item in allowed)


def _exceeded(detail: str) -> NoReturn:
    raise IdentityError(Code.CHANNEL_DELEGATION_EXCEEDED, detail)
