"""The proxies' configurations, each as its experts would tune it for this work, and the instances behind them.

Everybody sends everything to four instances; with rules, 50 regular expressions on a header are tried, none of which
matches, and then 5 % go to two of the instances and 95 % to the other two.
"""

from . import envoy, haproxy, nginx, pointsman
from .setup import Setup

KNOWN = {"pointsman": pointsman, "nginx": nginx, "haproxy": haproxy, "envoy": envoy}


def command(name, program, cpu, setup: Setup):
    """Writes a peer's files into its folder and gives the command that runs it, pinned to one core, in the foreground."""
    return ["taskset", "-c", str(cpu)] + KNOWN[name].command(program, setup)
