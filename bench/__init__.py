"""The benchmark suite: `./dev bench` lists what it measures, `./dev bench NAME` measures it.

It stands above every room and may import any of them. Nothing imports it, and no wheel carries it.
"""
