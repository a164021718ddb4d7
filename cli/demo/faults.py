"""What can go wrong in a demo, in words for the person who watches."""


class DemoError(Exception):
    """A step cannot be proved; the text says why, and where to look."""
