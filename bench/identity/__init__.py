"""Identity: how many agents a core mints and verifies, and what a crowd that is idle costs."""
