"""The demo's agents. Each file is run by itself, in a virtual environment without Sidelink's own.

Nothing imports them: each reads its wishes from standard input and prints one report as JSON.
"""
