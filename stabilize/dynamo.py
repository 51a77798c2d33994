"""The backend of `torch.compile`: each graph that Dynamo captures is rewritten, then given to another backend.

    torch.compile(model, backend="stabilize")
    torch.compile(model, backend="stabilize", options={"form": "collapse-free", "backend": "inductor"})

The name is an entry point of the installed package, so `import stabilize` need not come first. Dynamo's graphs are
torch-level and come before autograd: the backward pass is derived from what was rewritten. What was found in each graph
goes to the logger `stabilize` at level INFO, and to the callable that `options={"report": ...}` names.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

import torch
from torch import fx
from torch._dynamo.exc import InvalidBackend, ShortenTraceback

from stabilize.errors import StabilizeError, UsageError
from stabilize.frontends.fx import open_graph_module
from stabilize.frontends.fx_capture import apart
from stabilize.pipeline import Request, run
from stabilize.report import Report
from stabilize.request import checked

_TORCH: Final = cast(Any, torch)
LOG: Final = logging.getLogger("stabilize")

Compiled: TypeAlias = Callable[..., Any]
Backend: TypeAlias = "Callable[[fx.GraphModule, Sequence[object]], Compiled]"


class OptionError(UsageError, ShortenTraceback):
    """A UsageError that Dynamo lets through as it is; anything else that a backend raises is wrapped."""

    def __init__(self, message: str) -> None:
        ShortenTraceback.__init__(self, message, first_useful_frame=None)


def stabilize(
    module: fx.GraphModule,
    inputs: Sequence[object],
    *,
    mode: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Compiled:
    """What `torch.compile(model, backend="stabilize", mode=..., options=...)` calls with every captured graph.

    options: `form`, `allow`, `select`, `ignore`, `certify` as for `stabilize.optimize`;
        `backend`: who compiles the rewritten graph, as torch.compile takes it (default "eager": it runs as it is);
        `backend_options`: the `options` of that backend;
        `report`: a callable that is given the `Report` of each graph.
    mode: that of the chained backend.

    A graph that cannot be read is compiled as it is, with a warning that says why. Raises UsageError for wrong options.
    """
    chosen = _options(dict(options or {}), mode)
    return chosen.following(_rewritten(module, chosen.request, chosen.report), inputs)


def compiled(forward: Callable[..., object], request: Request) -> Callable[..., object]:
    """`forward`, captured by Dynamo with graph breaks where it needs them; each graph is rewritten and then runs."""

    def rewriting(module: fx.GraphModule, inputs: Sequence[object]) -> Compiled:
        return _rewritten(module, request, None).forward

    compile_ = cast("Callable[..., Callable[..., object]]", _TORCH.compile)
    if "isolate_recompiles" in inspect.signature(compile_).parameters:
        # many modules share this forward; the limit on recompilations is for each of them
        return compile_(forward, backend=rewriting, isolate_recompiles=True)
    return compile_(forward, backend=rewriting)


def tell(report: Report) -> None:
    """Log what was found in one capture, unless there was nothing."""
    if report.findings or report.declined:
        LOG.info("%s", report)


# --- one graph --------------------------------------------------------------------------------------------------------


def _rewritten(module: fx.GraphModule, request: Request, receive: Callable[[Report], object] | None) -> fx.GraphModule:
    """The graph with its rewrites, or the graph itself and a warning when it cannot be read."""
    name = f"torch.compile graph {module.meta.get('dynamo_compile_id', '')}".strip()
    try:
        host = open_graph_module(module)  # read as it runs, with what is switched on around the call
        rewritten, report = apart(lambda: run(host, request, name))
    except Exception as error:  # whatever goes wrong in here, the user's program runs
        kind = "" if isinstance(error, StabilizeError) else f"{type(error).__name__}: "
        warnings.warn(f"{name} runs as written, not as rewritten: {kind}{error}", stacklevel=2)
        return module
    tell(report)
    if receive is not None:
        receive(report)
    return rewritten.model()


# --- options ----------------------------------------------------------------------------------------------------------

_KEYWORDS: Final = ("form", "allow", "select", "ignore", "certify")
_OPTIONS: Final = (*_KEYWORDS, "backend", "backend_options", "report")


@final
@dataclass(frozen=True)
class _Options:
    request: Request
    following: Backend
    report: Callable[[Report], object] | None


def _options(given: Mapping[str, object], mode: str | None) -> _Options:
    unknown = [name for name in given if name not in _OPTIONS]
    if "ranges" in unknown:
        raise OptionError(
            "options['ranges']: the graphs of torch.compile name their inputs themselves: pass ranges to "
            "stabilize.optimize(model, example_inputs, ranges=...)"
        )
    if unknown:
        raise OptionError(f"options[{unknown[0]!r}] is no option of the backend: they are {', '.join(_OPTIONS)}")
    receive = given.get("report")
    if receive is not None and not callable(receive):
        raise OptionError(f"options['report'] is {receive!r}: give a callable that takes a stabilize.Report")
    keywords: dict[str, object] = {"form": "softmax", "allow": "exact", "select": None, "ignore": None, "certify": True}
    keywords |= {name: given[name] for name in _KEYWORDS if name in given}
    try:
        request = checked(ranges=None, **keywords)
    except UsageError as error:
        raise OptionError(f"options: {error}") from None
    return _Options(request, _following(given, mode), cast("Callable[[Report], object] | None", receive))


def _following(given: Mapping[str, object], mode: str | None) -> Backend:
    """The backend that compiles what comes out."""
    backend, options = given.get("backend", "eager"), given.get("backend_options")
    if backend in ("stabilize", stabilize):
        raise OptionError("options['backend'] is the backend that comes after stabilize: it cannot be stabilize")
    if options is not None and not isinstance(options, Mapping):
        raise OptionError(f"options['backend_options'] is {options!r}: give the options of that backend by name")
    options = dict(cast("Mapping[str, object]", options or {})) or None
    try:
        if backend == "inductor":
            return cast(Backend, _TORCH._TorchCompileInductorWrapper(mode, options, None))
        return cast(Backend, _TORCH._TorchCompileWrapper(backend, mode, options, None))
    except (InvalidBackend, RuntimeError, TypeError, AssertionError) as error:
        raise OptionError(f"options['backend'] {backend!r}: {_first(error)}") from None


def _first(error: Exception) -> str:
    """The first line of a message, without a list of everything that would be right."""
    return str(error).splitlines()[0].split(", known options", 1)[0]
