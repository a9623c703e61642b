"""`ShutDown`, apart from the other errors because of what it has to import."""

from __future__ import annotations

import sys

from procession.errors import ProcessError

if sys.version_info >= (3, 13):
    from queue import ShutDown as ThreadQueueShutDown

    class ShutDown(ProcessError, ThreadQueueShutDown):
        """The queue was shut down: nothing can be put, and perhaps nothing is left to get.

        From Python 3.13 it is also a `queue.ShutDown`, so that code written for
        thread queues catches it.
        """

else:

    class ShutDown(ProcessError):
        """The queue was shut down: nothing can be put, and perhaps nothing is left to get.

        From Python 3.13 it is also a `queue.ShutDown`, so that code written for
        thread queues catches it.
        """


# The public home: tracebacks print it and pickles refer to it.
ShutDown.__module__ = "procession.errors"
