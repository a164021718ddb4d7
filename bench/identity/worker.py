"""The process in which agents are minted and proofs verified, on one core.

Commands come from the benchmark, see `bench.worker`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from bench.identity.minting import Minted, mint
from bench.identity.verifying import Verified, verify_per_cpu_s
from bench.worker import serve


async def mint_some(wishes: Mapping[str, Any]) -> Minted:
    folder, first = Path(wishes["folder"]), wishes["first"]
    return mint(folder, wishes["prefix"], wishes["count"], first=first)


async def verify_some(wishes: Mapping[str, Any]) -> Verified:
    return verify_per_cpu_s(wishes["count"])


if __name__ == "__main__":
    uvloop.run(serve({"mint": mint_some, "verify": verify_some}))
