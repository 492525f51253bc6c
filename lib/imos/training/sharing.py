"""What the processes of one training (torchrun) say to each other, and the checkpoint that the first one writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn


def processes() -> int:
    """Processes that share this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the processes of this run."""
    if processes() == 1:
        return
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # another process may have used it
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= processes()


def share_weights(network: nn.Module) -> None:
    """Give every process the first one's weights."""
    if processes() > 1:
        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, 0)


def in_any(value: bool, device: torch.device) -> bool:
    """Whether it is true in any process: they stop together."""
    if processes() == 1:
        return value
    flag = torch.tensor([float(value)], device=device)
    distributed.all_reduce(flag)
    return bool(flag > 0)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one atomic move: a run killed at any time leaves the old one or the new one."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
