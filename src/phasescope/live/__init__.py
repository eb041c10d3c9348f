"""Following a run while another process records it: a page on localhost, or the terminal."""

from phasescope.live.blocks import GrowingBlocks
from phasescope.live.document import document
from phasescope.live.server import WatchServer
from phasescope.live.tail import News, Rows, RunTail
from phasescope.live.terminal import watch_in_terminal
from phasescope.live.watch import MetricAlarm, Norms, Watch

__all__ = [
    "GrowingBlocks",
    "MetricAlarm",
    "News",
    "Norms",
    "Rows",
    "RunTail",
    "Watch",
    "WatchServer",
    "document",
    "watch_in_terminal",
]
