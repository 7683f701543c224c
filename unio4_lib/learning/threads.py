"""How many threads the small matrix products of on-policy learning use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` torch threads inside the block.

    One thread is fastest for networks of this size: the products take microseconds, and threads that wait
    for each other on a busy machine cost up to ten times as much. A fixed number also makes sums, and so
    whole runs, independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
