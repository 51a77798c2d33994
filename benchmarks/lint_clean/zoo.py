"""The models of the zoo in which nothing is known to be wrong: transformers, diffusers and others. Each in a process of
its own, with limits on time and memory. Those whose package is not installed, or which torch.export refuses, are left
out, and named.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import resource
import sys
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from zoo_models import MODELS
from zoo_models.entry import Entry, without_compiled_torchvision

GROUP = "public models"
_MEMORY, _SECONDS = 12 * 2**30, 300.0


#: Defective, though no rewrite repairs them: exp of scores with no maximum taken off, and exp(cosine/0.005).
UNBOUNDED = ("recbole-nais", "recbole-mcclk")


def checked_zoo(budget: float) -> Iterator[dict[str, Any]]:
    """The fields of a record for each model that could be captured."""
    without_compiled_torchvision()
    for entry in MODELS:
        if entry.defects or entry.refused or entry.name in UNBOUNDED:
            continue
        answer = _asked(entry, budget)
        if "left_out" in answer:
            print(f"{entry.name}: left out: {answer['left_out']}", file=sys.stderr, flush=True)
        else:
            yield {"name": entry.name, "family": GROUP, "host": "", "healthy": True, **answer}


def _asked(entry: Entry, budget: float) -> Mapping[str, Any]:
    """What a process of its own says of one model."""
    context = mp.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(entry, budget, there))
    process.start()
    there.close()
    try:
        if not here.poll(_SECONDS):
            return {"left_out": f"no answer after {_SECONDS:.0f} s"}
        answer: Mapping[str, Any] = here.recv()
    except EOFError:
        return {"left_out": "its process ended"}
    finally:
        process.kill()
        process.join()
    return answer


def _work(entry: Entry, budget: float, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())
        os.dup2(null.fileno(), sys.stderr.fileno())
    warnings.simplefilter("ignore")
    from lint_clean.entry import Healthy

    try:
        case = entry.make()
    except ImportError as error:
        answer.send({"left_out": str(error)})
        return
    import torch
    from lint_corpus import checked

    torch.manual_seed(0)
    case.module.train(case.train)
    record = checked(Healthy(entry.name, GROUP, lambda: (case.module, case.inputs)), budget)
    answer.send({"findings": record.findings, "failed": record.failed, "seconds": record.seconds})
