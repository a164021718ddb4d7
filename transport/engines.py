"""Which QUIC engine an endpoint runs on."""

import importlib.util
import logging

from transport.certificate import ThrowAwayCertificate
from transport.engine import Engine
from transport.settings import EngineChoice, TransportSettings


def make_engine(certificate: ThrowAwayCertificate, settings: TransportSettings) -> Engine:
    """Return the chosen engine. Each is imported only when it is used."""
    # Both libraries log to this name at the word of strangers; what matters comes as an event.
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    if resolve_engine(settings.engine) == "qh3":
        from transport.engine_qh3 import Qh3Engine

        return Qh3Engine(certificate, settings)
    from transport.engine_aioquic import AioquicEngine

    return AioquicEngine(certificate, settings)


def resolve_engine(choice: EngineChoice) -> EngineChoice:
    """Say which engine ``auto`` stands for here."""
    if choice != "auto":
        return choice
    return "qh3" if importlib.util.find_spec("qh3") is not None else "aioquic"
