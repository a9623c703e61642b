"""What every pair of a start method and a transport promises: connections and queues of a child."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

from pathlib import Path
from typing import Any

import pytest

import procession
from procession.errors import IncompatiblePluginsError
from procession.testing import payloads
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_scenarios import ConnectionUse, HandingOver, LeaseUse
from procession.testing.suites.over_pairs import Make
from procession.testing.suites.pair_connections import ConnectionPromises
from procession.testing.suites.pair_queues import QueuePromises
from procession.testing.suites.suite import Declined, Fork


class PairSuite(ConnectionPromises, QueuePromises):
    """What users see of a start method and a transport that are used together.

    Override the fixtures `start_method` and `transport`: they return the classes. The promises
    are those of multiprocessing, on whose contexts the tests run as well; what only procession
    promises takes the fixture `beyond`.
    """

    def test_a_pair_that_cannot_work_is_refused(
        self, spec: tuple[str, str, str], refusal: str | None, beyond: None, declined: Declined
    ) -> None:
        """Before anything is started, with both names and the feature that is missing.

        `StartMethod.features`: "What children of this method can be given; core refuses what is
        not declared."
        """
        if refusal is None:
            assert payloads.context(spec).get_start_method() == spec[1]
            return
        declined(refusal)
        with pytest.raises(IncompatiblePluginsError) as caught:
            procession.get_context(spec[1], transport=spec[2])
        for word in spec[1:]:
            assert repr(word) in str(caught.value)
        assert refusal in str(caught.value)

    # -- deaths ----------------------------------------------------------------------------

    @pytest.mark.timeout(60 + KILLS)
    def test_ends_of_connections_are_killed_at_random(
        self, spec: tuple[str, str, str], ctx: Any, beyond: None, prepared_process: Path, fork: Fork
    ) -> None:
        """Who talks to a killed process is told who it was; nothing is half received.

        `Channel.receive`: "`OSError` ("got end of file during message") when the stream ends
        within a message"
        """
        run(ConnectionUse(spec), KILLS, chosen_seed(), prepared_process)

    @pytest.mark.timeout(60 + KILLS)
    def test_ends_that_lend_are_killed_at_random(
        self,
        spec: tuple[str, str, str],
        ctx: Any,
        lending_pipe: Make,
        beyond: None,
        prepared_process: Path,
        fork: Fork,
    ) -> None:
        """As above, with leases at both ends: what is received is whole, and nothing is left.

        `Channel.receive_leased`: "or this process, and those that were forked from it since"
        """
        for end in lending_pipe():  # or it is refused
            end.close()
        run(LeaseUse(spec), KILLS, chosen_seed(), prepared_process)

    @pytest.mark.timeout(60 + KILLS)
    def test_givers_and_takers_of_descriptors_are_killed_at_random(
        self, spec: tuple[str, str, str], ctx: Any, beyond: None, prepared_process: Path, fork: Fork
    ) -> None:
        """What was sent in a message arrives, or its receiver is told; nobody waits for ever.

        `Takeover.take`: "Raises `OSError` (or a `procession.errors` subclass of it) when the
        giver has gone before the descriptor could be fetched."
        """
        run(HandingOver(spec), KILLS, chosen_seed(), prepared_process)
