"""What the values in a policy may be, where no other package already says so."""

import re
from typing import Final

KINDS: Final = ("agent", "authority", "node", "unenrolled")
ROLES_OF_NODE: Final = ("authority", "gateway", "sidecar")

ATTRIBUTE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
ATTRIBUTES_MAX: Final = 64
SERVICE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAME_CHARS_MAX: Final = 128
TOOL_NAME_CHARS_MAX: Final = 256
