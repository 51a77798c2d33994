"""Torch-level FX graphs: run them once on fake tensors, and note which ATen operators each node became.

The graph (functions, methods, operators, modules) is interpreted under a pre-dispatch ATen tracer, so that one
reading table serves every kind of PyTorch graph. Sizes are symbolic unless the graph itself fixes them: a
traced `GraphModule` serves other sizes than those of its example inputs, and so must its rewritten form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.utils import stateless
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.fx_capture import silence
from stabilize.frontends.fx_modes import Modes, Switches
from stabilize.frontends.fx_program import Computed, Leaf, Program
from stabilize.frontends.fx_types import Fake, attribute, attribute_path, operator_key, target_of

#: Parts of the names of operators that do something else while a module trains.
_SWITCHED = ("dropout", "batch_norm", "instance_norm", "rrelu")

CONSTANT = re.compile(r"(^|\.)_?(tensor_constant|lifted_tensor_)\d+$")


@final
@dataclass(frozen=True)
class Traced:
    """A program made by tracing.

    fakes: host node name → its fake result.
    fixed: (placeholder, axis, size) for sizes that the reading relies on although the graph may not fix them.
    """

    program: Program
    fakes: Mapping[str, Fake]
    fixed: tuple[tuple[str, int, int], ...]


def trace(module: fx.GraphModule, inputs: Sequence[object], modes: Modes) -> Traced:
    """Trace a graph on its inputs, one per placeholder: real or fake tensors, numbers, containers of them.

    modes: what is switched on when the graph starts.
    """
    inputs = _apart(module, inputs)
    given = next((leaf.fake_mode for leaf in pytree.tree_leaves(list(inputs)) if isinstance(leaf, FakeTensor)), None)
    if given is not None:
        return _Trace(module, given, list(inputs), modes).run(())
    symbolic = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    try:
        fakes = [_faked(symbolic, value, f"input{i}", dynamic=True) for i, value in enumerate(inputs)]
        return _Trace(module, symbolic, fakes, modes).run(_sizes(module, inputs, (0, 1)))
    except ModelError:
        # sizes decide what this graph does: read it for the sizes that were given
        static = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        fakes = [_faked(static, value, f"input{i}", dynamic=False) for i, value in enumerate(inputs)]
        return _Trace(module, static, fakes, modes).run(_sizes(module, inputs, None))


def _apart(module: fx.GraphModule, inputs: Sequence[object]) -> list[object]:
    """The inputs as tensors of their own: one that is passed twice, or is a parameter as well, is two inputs."""
    seen = {id(t) for t in (*module.parameters(), *module.buffers())}

    def once(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in seen:
            return tensor.detach().requires_grad_(tensor.requires_grad)
        seen.add(id(tensor))
        return tensor

    return cast("list[object]", pytree.tree_map_only(torch.Tensor, once, list(inputs)))


def _faked(mode: FakeTensorMode, value: object, name: str, dynamic: bool) -> object:
    """A fake of an input: every size above 1 a symbol of its own, or all sizes as they are."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_quantized or tensor.is_nested:
            kind = "quantized" if tensor.is_quantized else "nested"
            raise UsageError(
                f"{name} of the example inputs is a {kind} tensor, which cannot be traced: pass dense ones"
            )
        sizes = [DimDynamic.DYNAMIC if dynamic else DimDynamic.STATIC] * tensor.dim()
        context = cast(Any, StatelessSymbolicContext)(dynamic_sizes=sizes)
        return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(name))

    return pytree.tree_map_only(torch.Tensor, fake, value)


def _sizes(
    module: fx.GraphModule, inputs: Sequence[object], which: tuple[int, ...] | None
) -> tuple[tuple[str, int, int], ...]:
    """The sizes of tensor inputs that are among `which` (None: all of them)."""
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    return tuple(
        (name, axis, size)
        for name, value in zip(names, inputs, strict=True)
        if isinstance(value, torch.Tensor)
        for axis, size in enumerate(value.shape)
        if which is None or size in which
    )


@final
class _Trace:
    """One run of a graph under the tracer."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode, inputs: list[object], modes: Modes) -> None:
        self.module = module
        self.mode = mode
        self.modes = modes
        self.inputs = inputs
        self.states: dict[str, torch.Tensor] = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        for node in module.graph.nodes:
            if node.op == "get_attr" and node.target not in self.states:
                value = attribute(module, str(node.target))
                if isinstance(value, torch.Tensor):
                    self.states[str(node.target)] = value
        self.log = _Log()

    def run(self, fixed: tuple[tuple[str, int, int], ...]) -> Traced:
        fakes = {name: self.fake_state(tensor) for name, tensor in self.states.items()}

        def forward(states: dict[str, torch.Tensor], inputs: list[object]) -> object:
            registered = {k: v for k, v in states.items() if k not in self.loose()}
            with stateless._reparametrize_module(  # pyright: ignore[reportPrivateUsage]
                self.module, registered, tie_weights=True
            ):
                return _Recorder(self.module, self.log, states, self.modes).run(*inputs, enable_io_processing=False)

        try:
            with silence(), self.mode, self.modes.entered():
                make = proxy_tensor.make_fx(forward, pre_dispatch=True, _allow_non_fake_inputs=True)
                flat = make(fakes, self.inputs)
        except Exception as error:
            where = f" at node '{self.log.running}'" if self.log.running else ""
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"the graph does not run on the example inputs{where}: {reason}") from error
        return Traced(self.program(flat), self.log.fakes, fixed)

    def loose(self) -> set[str]:
        """Tensor attributes that are neither parameters nor buffers."""
        return set(self.states) - {
            *(n for n, _ in self.module.named_parameters(remove_duplicate=False)),
            *(n for n, _ in self.module.named_buffers(remove_duplicate=False)),
        }

    def fake_state(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        return self.mode.from_tensor(tensor, static_shapes=True)

    def program(self, flat: fx.GraphModule) -> Program:
        nodes = {n.name: n for n in flat.graph.nodes}
        return Program(
            flat=flat.graph,
            host=self.module.graph,
            computed={name: _kept(names, nodes) for name, names in self.log.computed.items()},
            steps={nodes[name]: step for name, step in self.log.steps.items() if name in nodes},
            leaves=self.leaves(flat),
            switched=frozenset(self.switched(nodes.values())),
            modes=self.modes,
        )

    def switched(self, flat: Iterable[fx.Node]) -> Iterator[fx.Node]:
        """Dropouts and norms of leaf modules: the graph runs them as the module is at each call, train or eval."""
        hosts = list(self.module.graph.nodes)
        for node in flat:
            step = self.log.steps.get(node.name)
            moody = any(name in (operator_key(node.target) or "") for name in _SWITCHED)
            if moody and step is not None and hosts[step].op == "call_module":
                yield node

    def leaves(self, flat: fx.GraphModule) -> dict[fx.Node, Leaf]:
        """Flat placeholders in order: states, then inputs; attributes that the tracer itself lifted."""
        names = [n.name for n in self.module.graph.nodes if n.op == "placeholder"]
        described = [Leaf(n, t, True, bool(CONSTANT.search(n)), attribute=True) for n, t in self.states.items()]
        for name, value in zip(names, self.inputs, strict=True):
            count = len(pytree.tree_leaves(value))
            weight = isinstance(value, torch.nn.Parameter)
            described.extend(Leaf(name if count == 1 else f"{name}.{i}", parameter=weight) for i in range(count))
        placeholders = [n for n in flat.graph.nodes if n.op == "placeholder"]
        leaves = dict(zip(placeholders, described, strict=True))
        for node in flat.graph.nodes:
            if node.op == "get_attr":
                path = attribute_path(node)
                data = attribute(flat, path)
                known = isinstance(data, torch.Tensor) and not isinstance(data, FakeTensor)
                leaves[node] = Leaf(f"constant {path}", cast(torch.Tensor, data) if known else None, True, known)
        return leaves


@final
class _Log:
    """What the interpreter noted while it ran."""

    def __init__(self) -> None:
        self.running = ""
        self.computed: dict[str, object] = {}
        self.steps: dict[str, int] = {}
        self.fakes: dict[str, Fake] = {}


@final
class _Recorder(fx.Interpreter):
    """Runs the host graph node by node and notes the flat nodes of each."""

    def __init__(self, module: fx.GraphModule, log: _Log, states: Mapping[str, torch.Tensor], modes: Modes) -> None:
        super().__init__(module)
        self.log = log
        self.states = states
        self.step = 0
        self.recorded: Fake = None
        self.switches = Switches(modes)

    def run_node(self, n: fx.Node) -> object:
        mode = proxy_tensor.get_proxy_mode()
        if mode is None:
            raise ModelError("no tracer is active")
        tracer: Any = mode.tracer
        last: fx.Node = tracer.graph._root.prev  # of a graph that takes nothing, the root itself
        self.log.running = n.name
        self.recorded = n.meta.get("example_value")
        modes = self.switches.modes
        if self.switches.visit(n) and modes.grad == self.switches.modes.grad:
            # the tracer would note the call without switching autocast
            result = _traced_switch(n, self.env)
        else:
            with modes.autocasting():
                result = super().run_node(n)
        self.log.fakes[n.name] = result

        def flat_name(value: object) -> object:
            slot = proxy_tensor.get_proxy_slot(value, tracer, None) if isinstance(value, torch.Tensor) else None
            return None if slot is None else slot.proxy.node.name

        self.log.computed[n.name] = _mapped(result, flat_name) if n.op != "output" else None
        while last.next.op != "root":
            last = last.next
            self.log.steps[last.name] = self.step
        self.step += 1
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> object:
        if isinstance(target, HigherOrderOperator) and self.recorded is not None:
            return _traced_call(target, args, kwargs, self.recorded)
        return super().call_function(target, args, kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> object:
        return self.states[target] if target in self.states else super().get_attr(target, args, kwargs)


def _mapped(value: object, function: Callable[[object], object]) -> object:
    """`function` of a tensor, or of the items of a list or tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(_mapped(v, function) for v in cast("Sequence[object]", value))
    return function(value)


def _kept(names: object, nodes: Mapping[str, fx.Node]) -> Computed:
    """Names of flat nodes as nodes; None for those that the tracer removed as dead."""
    if isinstance(names, tuple):
        return tuple(_kept(n, nodes) for n in cast("tuple[object, ...]", names))
    return nodes.get(cast(str, names)) if names is not None else None


def _traced_switch(node: fx.Node, env: Mapping[fx.Node, object]) -> object:
    """Trace a call that switches autocast; the interpreter, not the call, does the switching."""
    mode = proxy_tensor.get_proxy_mode()
    assert mode is not None
    tracer: Any = mode.tracer
    args = pytree.tree_map_only(fx.Node, env.__getitem__, node.args)
    return tracer.create_proxy("call_function", target_of(node), args, {})


def _traced_call(target: HigherOrderOperator, args: Any, kwargs: Any, recorded: Fake) -> object:
    """Trace a higher-order operator as one call whose result was recorded, without running the graphs inside it."""
    mode = proxy_tensor.get_proxy_mode()
    assert mode is not None
    tracer: Any = mode.tracer

    def proxy(argument: object) -> object:
        if not isinstance(argument, torch.nn.Module):
            return argument
        name = f"body_{len(tracer.graph.nodes)}_{id(argument)}"
        setattr(tracer.root, name, argument)
        return tracer.create_proxy("get_attr", name, (), {})

    arguments = pytree.tree_map(proxy, (tuple(args), dict(kwargs)))
    unwrapped = pytree.tree_map(tracer.unwrap_proxy, arguments)
    call = tracer.create_proxy("call_function", target, *unwrapped)
    result = pytree.tree_map_only(torch.Tensor, torch.empty_like, recorded)
    return cast(Any, proxy_tensor).track_tensor_tree(result, call, constant=None, tracer=tracer)
