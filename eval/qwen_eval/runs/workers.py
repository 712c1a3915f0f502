"""Several processes, one per device, share a run: `torchrun --nproc-per-node 8 eval/mmlu.py ...`.

Rank 0 says which items are left, every process answers its share and appends to a file of its own, and rank 0 merges the
files. Only short messages pass between the processes (gloo), so any device will do. A process that dies loses its unfinished
items and nothing else: the next start, with any number of processes, finds all that was answered.
"""

from __future__ import annotations

import atexit
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import Any

from qwen_eval.schema import Choose, Generate, InputError, Measure, Sample

TIMEOUT = timedelta(days=30)  # a process waits for the slowest one; torchrun ends it when another dies


class Processes:
    """The processes that share a run, as one of them sees it. A single process sends no messages."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which stores the results and prints."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, in every process; all wait for it."""
        if self.size == 1:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Returns when all processes have called it."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()


SINGLE = Processes()


def join(environment: Mapping[str, str] = os.environ) -> Processes:
    """Joins the processes that torchrun's environment variables describe. Raises InputError when some did not start."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE
    import torch
    import torch.distributed as group

    if not group.is_initialized():
        group.init_process_group("gloo", timeout=TIMEOUT)
        atexit.register(group.destroy_process_group)
    present = torch.ones(1)
    group.all_reduce(present)
    if int(present) != size or group.get_world_size() != size:
        raise InputError(f"{int(present)} of {size} processes have started; start them all with one torchrun command")
    return Processes(group.get_rank(), size)


def notes(processes: Processes, environment: Mapping[str, str] = os.environ) -> list[str]:
    """How many processes there are, if a launcher started them: accelerate's may start one where several were asked for."""
    if processes.size > 1:
        return [f"{processes.size} processes shared the work"]
    if any(name.startswith("ACCELERATE_") for name in environment):
        return ["accelerate launch started a single process; torchrun --nproc-per-node N starts N"]
    return []


def split_work(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """The positions of the samples that each of `size` processes answers. Samples of equal header and shots stay together,
    since they share their prefix, unless they are more than one process's share; shares are of about equal cost."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        groups[_prefix(sample)].append(position)
    costs = {key: _cost(key, [samples[position] for position in positions]) for key, positions in groups.items()}
    share = max(1.0, sum(costs.values()) / size)
    pieces: list[tuple[float, list[int]]] = []
    for key, positions in groups.items():
        count = min(len(positions), max(1, ceil(costs[key] / share)))
        pieces += [(costs[key] / count, positions[piece::count]) for piece in range(count)]
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0.0] * size
    for cost, positions in sorted(pieces, key=lambda piece: -piece[0]):
        least = loads.index(min(loads))
        shares[least] += positions
        loads[least] += cost
    return [sorted(positions) for positions in shares]


def _prefix(sample: Sample) -> Any:
    request = sample.request
    return (request.header, request.shots) if isinstance(request, Choose | Generate) else ()


def _cost(prefix: Any, samples: Sequence[Sample]) -> float:
    """The number of characters to read, shared ones counted once; a token to generate counts as ten characters."""
    cost = float(len(str(prefix)))
    for sample in samples:
        request = sample.request
        if isinstance(request, Choose):
            cost += len(request.question)
        elif isinstance(request, Generate):
            cost += len(str(request.prompt)) + 10 * request.max_tokens * request.samples
        elif isinstance(request, Measure):
            cost += sum(map(len, request.documents))
    return cost
