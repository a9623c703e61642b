"""A manager's server in a thread of the test, and a client of it."""

from __future__ import annotations

import threading

from procession._remote import call_pipes
from procession._remote.manager_session import sessions
from procession.managers import SyncManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procession._remote.address import Address

KEY = b"the key"


class Served:
    """A server in a thread of this process, and a manager that is connected to it."""

    def __init__(self, address: Address | None = None) -> None:
        self.server = SyncManager(address, authkey=KEY).get_server()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.manager = SyncManager(self.server.address, authkey=KEY)
        self.manager.connect()

    def _serve(self) -> None:
        try:
            self.server.serve_forever()
        except SystemExit:
            return
        raise AssertionError("a server ends by sys.exit")

    def end(self) -> None:
        """End the server, and hang up."""
        self.server.stop_event.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        sessions.forget(sessions.get(self.server.address, KEY, "pickle"))

    def kinds(self) -> list[bool]:
        """Of each connection for calls, whether it is over pipes."""
        return sorted(call_pipes.is_pipes(each) for each in list(self.server._connections))
