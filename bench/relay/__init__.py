"""The gateway alone: what it relays on one core, and what idle hops and links cost it."""
