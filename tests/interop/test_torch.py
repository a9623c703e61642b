"""PyTorch: loaders with workers, and tensors that are shared and not copied.

A child that imports it takes two seconds: most of this runs once per start method.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from procession.testing import clients

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
    pytest.mark.timeout(180),
]
per_method = pytest.mark.one_pair_per("method")

DEADLINE = 120.0


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Compute in one thread: a forked child has no others."""
    torch.set_num_threads(1)


@per_method
def test_a_loader_s_workers_share_its_tensors(ctx: Any) -> None:
    """What they write to the data set is there: it was not copied to them."""
    rows = torch.zeros(8, 100).share_memory_()
    loader = DataLoader(
        clients.Rows(rows),
        batch_size=4,
        num_workers=2,
        multiprocessing_context=ctx,
        timeout=DEADLINE,
    )
    batches = list(loader)
    assert [1, 2, 3, 4, 5, 6, 7, 8] == torch.cat(batches)[:, 0].tolist()
    assert [1, 2, 3, 4, 5, 6, 7, 8] == rows[:, 0].tolist()
    assert all(batch.is_shared() for batch in batches)


@pytest.mark.one_pair_per("transport")
def test_tensors_are_shared_over_every_transport(ctx: Any) -> None:
    """As arguments, through queues, connections and pools."""
    tensor = torch.zeros(1000).share_memory_()
    queue, (here, there) = ctx.Queue(), ctx.Pipe()
    process = ctx.Process(target=clients.share_tensors, args=(tensor, queue, there))
    process.start()
    put = queue.get(timeout=DEADLINE)
    sent, same = here.recv()
    same += 1
    here.send("go")
    process.join(DEADLINE)

    assert process.exitcode == 0
    assert (3000, True) == (put.sum().item(), put.is_shared())
    assert (4000, True) == (sent.sum().item(), sent.is_shared())
    assert 6000 == tensor.sum().item()
    queue.close()
    here.close()
    there.close()
    with ctx.Pool(1) as pool:
        (result,) = pool.map(clients.double, [torch.ones(1000)])
        assert (2000, True) == (result.sum().item(), result.is_shared())


@per_method
def test_a_killed_loader_worker_is_an_error(ctx: Any, pair: Any) -> None:
    """PyTorch collects its workers by itself, which it can do with direct children only."""
    loader = DataLoader(
        clients.Rows(torch.zeros(8, 1), kill=True),
        num_workers=1,
        multiprocessing_context=ctx,
        timeout=10 if pair.method == "forkserver" else DEADLINE,
    )
    with pytest.raises(RuntimeError, match="DataLoader"):
        list(loader)
