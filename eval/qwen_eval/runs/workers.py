"""Several processes, one a device, share a run: `torchrun --nproc-per-node 8 eval/mmlu.py ...`.

The leader (rank 0) says which items are left, every process answers its share and appends to a file of its own, the leader
puts them together. Only short messages pass between them (gloo), so that they may run on anything. A process that dies takes
its unfinished items with it and nothing else: the next start, of however many processes, finds all that was answered.
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

PATIENCE = timedelta(days=30)  # a process waits for the slowest one; torchrun ends it when another dies


class Team:
    """The processes of a run. One process is a team, too, and sends no messages."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The leader's value, in every process; all wait for it."""
        if self.size == 1:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Returns when all processes are here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()


ALONE = Team()


def join(environment: Mapping[str, str] = os.environ) -> Team:
    """This process's team, as torchrun's environment says. Raises InputError when the processes are not all there."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    import torch
    import torch.distributed as group

    if not group.is_initialized():
        group.init_process_group("gloo", timeout=PATIENCE)
        atexit.register(group.destroy_process_group)
    present = torch.ones(1)
    group.all_reduce(present)
    if int(present) != size or group.get_world_size() != size:
        raise InputError(f"{int(present)} of {size} processes are there; start them all with one torchrun command")
    return Team(group.get_rank(), size)


def remark(team: Team, environment: Mapping[str, str] = os.environ) -> list[str]:
    """How many processes there are, where a launcher was at work: accelerate's may start one where more were asked for."""
    if team.size > 1:
        return [f"{team.size} processes shared the work"]
    if any(name.startswith("ACCELERATE_") for name in environment):
        return ["accelerate launch started a single process; torchrun --nproc-per-node N starts N"]
    return []


def shares(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """The places of the samples that each process answers. Samples of equal header and shots stay together, since they
    share their prefix, unless they are more than a process's part; parts are about equal in characters."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        groups[_prefix(sample)].append(place)
    costs = {key: _cost(key, [samples[place] for place in places]) for key, places in groups.items()}
    part = max(1.0, sum(costs.values()) / size)
    pieces: list[tuple[float, list[int]]] = []
    for key, places in groups.items():
        count = min(len(places), max(1, ceil(costs[key] / part)))
        pieces += [(costs[key] / count, places[piece::count]) for piece in range(count)]
    made: list[list[int]] = [[] for _ in range(size)]
    loads = [0.0] * size
    for cost, places in sorted(pieces, key=lambda piece: -piece[0]):
        least = loads.index(min(loads))
        made[least] += places
        loads[least] += cost
    return [sorted(places) for places in made]


def _prefix(sample: Sample) -> Any:
    request = sample.request
    return (request.header, request.shots) if isinstance(request, Choose | Generate) else ()


def _cost(prefix: Any, samples: Sequence[Sample]) -> float:
    """Characters to be read, the shared ones once; tokens to be written count as much as ten."""
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
