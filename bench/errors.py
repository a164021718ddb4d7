"""What can go wrong with a benchmark: always a sentence for the person who runs it."""


class BenchError(Exception):
    """Nothing was measured, or what was measured is not to be believed."""
