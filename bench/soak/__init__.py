"""A whole mesh for a long time: its memory and descriptors stay, and every message comes."""
