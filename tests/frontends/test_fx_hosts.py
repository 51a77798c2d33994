"""The three PyTorch hosts: nothing replaced is nothing changed; a replaced softmax, end to end."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.fx import open_exported, open_graph_module, open_lazily, open_module
from stabilize.frontends.fx_hosts import ExportedHost
from stabilize.graph.host import Host
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement

HOT = torch.tensor([[200.0, 100.0, -100.0, 0.0, 1.0], [-300.0, 5.0, 300.0, 2.0, 1.0]])


class Head(nn.Module):
    """A linear layer and a softmax written naively, in place, after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(5))
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.linear(self.drop(x))
        e = torch.exp(z)
        e /= e.sum(dim=-1, keepdim=True)
        return e, z + 1


def softmaxes(host: Host) -> list[Replacement]:
    """Replace every exp(a)/Σexp(a) by softmax(a)."""
    found: list[Replacement] = []
    for value in dict.fromkeys(host.view.bindings.values()):
        if value.op == "div" and value.operands[0].op == "exp":
            logits = value.operands[0].operands[0]
            found.append(Replacement(value, host.view.builder.make("softmax", logits, axis=value.type.rank - 1)))
    return found


def rewrite(host: ExportedHost) -> ExportedHost:
    return host.patched(softmaxes(host))


def _targets(graph: fx.Graph) -> list[object]:
    return [n.target for n in graph.nodes if n.op in ("call_function", "call_module", "call_method")]


def _check_head(results: Sequence[torch.Tensor], x: torch.Tensor) -> None:
    torch.testing.assert_close(results[0], torch.softmax(x, -1))
    torch.testing.assert_close(results[1], x + 1)


# --- ExportedProgram --------------------------------------------------------------------------------------------


def _exported() -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", max=64)
    return torch.export.export(Head().eval(), (HOT,), dynamic_shapes={"x": {0: batch}})


def test_nothing_replaced_gives_the_same_program() -> None:
    exported = _exported()
    code = exported.graph_module.code
    host = open_exported(exported)
    assert host.patched([]).model() is exported
    value = host.view.bindings["exp"]
    assert host.patched([Replacement(value, value)]).model() is exported
    assert exported.graph_module.code == code


def test_exported_program_survives_save_and_load() -> None:
    exported = _exported()
    before = exported.graph_module.code
    host = open_exported(exported)
    patched = host.patched(softmaxes(host)).model()
    patched.validate()
    assert exported.graph_module.code == before
    file = io.BytesIO()
    torch.export.save(patched, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert not torch.isfinite(exported.module()(HOT)[0]).all()
    for program in (patched, loaded):
        _check_head(program.module()(HOT), HOT)
        many = HOT[:1].expand(9, 5)
        _check_head(program.module()(many), many)
        with pytest.raises(Exception, match="64"):
            program.module()(HOT[:1].expand(65, 5))
    assert str(patched.range_constraints) == str(exported.range_constraints)


def test_exported_program_keeps_state_signature_and_metadata() -> None:
    exported = _exported()
    host = open_exported(exported)
    patched = host.patched(softmaxes(host)).model()
    assert patched.state_dict["linear.weight"] is exported.state_dict["linear.weight"]
    assert patched.graph_signature.input_specs == exported.graph_signature.input_specs
    outputs = [n.name for n in patched.graph.output_node().args[0]]  # type: ignore[union-attr]
    assert list(patched.graph_signature.user_outputs) == outputs == ["softmax", "add"]
    kept = {n.name: n for n in exported.graph.nodes}
    new = {n.name: n for n in patched.graph.nodes}
    assert set(new) - set(kept) == {"softmax"}
    assert set(kept) - set(new) == {"exp", "sum_1", "div_"}
    for name in set(kept) & set(new) - {"output"}:
        assert new[name].meta.keys() == kept[name].meta.keys()
        assert new[name].format_node() == kept[name].format_node()
    assert new["softmax"].meta["stack_trace"] == kept["div_"].meta["stack_trace"]
    assert new["softmax"].meta["nn_module_stack"] == kept["div_"].meta["nn_module_stack"]
    assert tuple(new["softmax"].meta["val"].shape) == tuple(kept["div_"].meta["val"].shape)
    assert host.view.sources["div_"].file == __file__
    assert host.view.sources["linear"].module == "linear"


def test_weights_are_visible_as_data() -> None:
    host = open_exported(_exported())
    weight = host.view.bindings["p_linear_weight"]
    data = host.tensor(weight)
    assert data is not None
    assert torch.equal(data, torch.eye(5))
    assert host.view.parameters == {"p_linear_weight", "p_linear_bias"}
    assert host.tensor(host.view.bindings["x"]) is None


def test_decomposed_program_with_buffer_mutation() -> None:
    """A functional program returns its mutations as outputs; they are kept and renamed with the graph."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(2, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            e = torch.exp(x)
            self.last.copy_(e / e.sum(-1, keepdim=True))
            return self.last * 2

    exported = torch.export.export(Counter(), (HOT,)).run_decompositions({})
    host = open_exported(exported)
    patched = host.patched(softmaxes(host)).model()
    patched.validate()
    module = patched.module()
    torch.testing.assert_close(module(HOT), 2 * torch.softmax(HOT, -1))
    torch.testing.assert_close(dict(module.named_buffers())["last"], torch.softmax(HOT, -1))


def test_multi_output_operators() -> None:
    class Multi(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values, indices = torch.topk(x, 2)
            largest, where = x.max(1)
            left, right = x.chunk(2, 1)
            return values, indices, largest, where, left, right, *x.min(0)

    host = open_exported(torch.export.export(Multi(), (HOT,)))
    ops = [v.op for v in host.view.outputs]
    assert ops == ["topk_values", "topk_indices", "max", "argmax", "slice", "slice", "min", "opaque"]


def test_opaque_calls_are_values() -> None:
    """Equal calls of a pure unknown operator are one value; random ones are not, and are never removed."""

    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return F.gelu(x), F.gelu(x), F.gelu(x, approximate="tanh"), torch.rand_like(x), torch.rand_like(x)

    view = open_exported(torch.export.export(Unknown(), (HOT,))).view
    a, b, c, d, e = view.outputs
    assert a is b
    assert len({a, c, d, e}) == 4


def test_types_that_disagree_become_opaque() -> None:
    """No value ever has another type than PyTorch recorded."""

    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.view_as_real(z * 2), torch.bitwise_not(x.to(torch.int64)), x // 3

    exported = torch.export.export(Mixed(), (HOT, torch.zeros(2, dtype=torch.complex64)))
    view = open_exported(exported).view
    assert all(v.op == "opaque" for v in view.outputs)


# --- GraphModule --------------------------------------------------------------------------------------------------


class Spelled(nn.Module):
    """Functions, methods, operators, modules and attributes in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5, bias=False)
        self.scale = nn.Parameter(torch.ones(5))
        self.register_buffer("shift", torch.zeros(5))
        self.act = nn.Softplus()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = self.linear(x) * self.scale + self.shift
        e = z.exp()
        p = torch.div(e, e.sum(-1).unsqueeze(-1))
        return F.relu(p) - 2 * self.act(y) + x.size(0)


def test_torch_level_graph() -> None:
    model = Spelled()
    module = fx.symbolic_trace(model)
    code = module.code
    host = open_graph_module(module, (HOT, HOT))
    assert {host.view.bindings[n].op for n in ("truediv", "exp", "relu") if n in host.view.bindings} >= {"exp", "relu"}
    patched = host.patched(softmaxes(host)).model()
    assert module.code == code
    assert torch.ops.aten.softmax.int in _targets(patched.graph)
    assert "exp" not in _targets(patched.graph)
    assert list(patched.state_dict()) == list(module.state_dict())
    assert patched.linear.weight is model.linear.weight
    x = torch.randn(7, 5)
    torch.testing.assert_close(patched(x, x), model(x, x))  # another batch size than the example's
    assert torch.isfinite(patched(HOT, HOT)).all()
    assert host.patched([]).model() is module


@pytest.mark.parametrize(
    "inputs", [(HOT, HOT), {"x": HOT, "y": HOT}, ((HOT,), {"y": HOT})], ids=["tuple", "keywords", "both"]
)
def test_forms_of_example_inputs(inputs: object) -> None:
    host = open_graph_module(fx.symbolic_trace(Spelled()), inputs)
    assert len(softmaxes(host)) == 1


def test_missing_example_inputs_are_named() -> None:
    with pytest.raises(ModelError, match="pass example_inputs"):
        open_graph_module(fx.symbolic_trace(Spelled()))
    with pytest.raises(UsageError, match="no value for input 'y'"):
        open_graph_module(fx.symbolic_trace(Spelled()), HOT)


def test_inputs_that_do_not_fit_name_the_node() -> None:
    with pytest.raises(ModelError, match="node 'linear'"):
        open_graph_module(fx.symbolic_trace(Spelled()), (HOT[:, :3], HOT))


def test_recorded_shapes_replace_example_inputs() -> None:
    from torch.fx.passes.shape_prop import ShapeProp

    module = fx.symbolic_trace(Spelled())
    ShapeProp(module).propagate(HOT, HOT)
    assert len(softmaxes(open_graph_module(module))) == 1


def test_a_size_of_one_is_insisted_on() -> None:
    """A graph that was read for one row may not silently be used for two."""
    module = fx.symbolic_trace(Head().eval())
    host = open_graph_module(module, HOT[:1])
    patched = host.patched(softmaxes(host)).model()
    _check_head(patched(HOT[:1]), HOT[:1])
    with pytest.raises(AssertionError, match="size 1 in axis 0 of 'x'"):
        patched(HOT)


def test_dropout_of_a_submodule_is_never_read_through() -> None:
    """A GraphModule can be switched to train() after it was optimised in eval()."""

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(self.drop(torch.exp(x)))

    view = open_graph_module(fx.symbolic_trace(Dropped().eval()), HOT).view
    assert view.bindings["drop"].op == "opaque"
    module = open_exported(torch.export.export(Dropped().eval(), (HOT,))).view
    assert module.bindings["dropout"].op == "exp"


def test_submodules_of_the_copy_switch_alone() -> None:
    module = fx.symbolic_trace(Head().eval())
    host = open_graph_module(module, HOT)
    patched = host.patched(softmaxes(host)).model().train()
    assert patched.drop.training
    assert not module.drop.training


def test_dynamo_graph() -> None:
    """A backend of torch.compile can open the graph that it is given."""
    seen: list[fx.GraphModule] = []

    def backend(module: fx.GraphModule, inputs: list[torch.Tensor], **kwargs: object) -> object:
        host = open_graph_module(module, tuple(inputs))
        seen.append(host.patched(softmaxes(host)).model())
        return seen[-1].forward

    torch._dynamo.reset()
    _check_head(torch.compile(Head().eval(), backend=backend)(HOT), HOT)
    assert torch.ops.aten.softmax.int in _targets(seen[0].graph)
    torch._dynamo.reset()


def test_gradients_off_in_a_region() -> None:
    """What a torch-level graph computes without gradients is detached, and stays so."""

    def function(x: torch.Tensor) -> torch.Tensor:
        torch._C._set_grad_enabled(False)
        m = torch.exp(x)
        torch._C._set_grad_enabled(True)
        return m * x

    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(torch._C._set_grad_enabled, (False,))
    m = graph.call_function(torch.exp, (x,))
    graph.call_function(torch._C._set_grad_enabled, (True,))
    graph.output(graph.call_function(torch.mul, (m, x)))
    host = open_graph_module(fx.GraphModule(nn.Module(), graph), torch.randn(2, 3))
    product = host.view.outputs[0]
    assert [o.op for o in product.operands] == ["exp", "input"]
    old = product.operands[0]
    assert old.operands[0].op == "detach"
    builder = host.view.builder
    same = builder.make("expm1", old.operands[0])
    patched = host.patched([Replacement(old, builder.make("add", same, builder.constant(1.0, "float32")))]).model()
    assert torch.ops.aten.detach.default not in _targets(patched.graph)  # gradients are off there already
    copied = host.patched([Replacement(old, old.operands[0])]).model()  # but what leaves the region is a copy
    leaf = torch.ones(2, 3, requires_grad=True)
    copied(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.ones(2, 3))
    for run in (function, patched):
        leaf = torch.ones(2, 3, requires_grad=True)
        run(leaf).sum().backward()
        torch.testing.assert_close(leaf.grad, torch.full((2, 3), torch.e))


# --- nn.Module ----------------------------------------------------------------------------------------------------


def test_module_shares_parameters_and_trains() -> None:
    model = Head().eval()
    reference = copy.deepcopy(model)
    host = open_module(model, HOT)
    fixed = host.patched(softmaxes(host)).model()
    assert isinstance(fixed, Head)
    assert list(fixed.state_dict()) == list(model.state_dict())
    assert fixed.linear.weight is model.linear.weight
    _check_head(fixed(HOT), HOT)
    x = torch.randn(2, 5)
    fixed(x)[0][:, 0].sum().backward()
    torch.softmax(reference.linear(x), -1)[:, 0].sum().backward()
    torch.testing.assert_close(model.linear.weight.grad, reference.linear.weight.grad)
    assert host.patched([]).model() is model


def test_module_follows_its_modes() -> None:
    """Captured in eval; in train the dropout of the copy is live, that of the original untouched."""
    model = Head().eval()
    host = open_module(model, HOT, rewrite=rewrite)
    fixed = host.patched(softmaxes(host)).model()
    fixed.train()
    assert not model.drop.training
    torch.manual_seed(0)
    dropped = fixed(HOT)[1]
    torch.manual_seed(0)
    torch.testing.assert_close(dropped, F.dropout(HOT, 0.5) + 1)
    assert torch.isfinite(fixed(HOT)[0]).all()
    _check_head(fixed.eval()(HOT), HOT)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
def test_module_converts(change: str) -> None:
    model = Head().eval()
    host = open_module(model, HOT, rewrite=rewrite)
    fixed = getattr(host.patched(softmaxes(host)).model(), change)()
    x = getattr(HOT, change)()
    actual = fixed(x)[0]
    assert actual.dtype == x.dtype
    torch.testing.assert_close(actual, torch.softmax(x, -1))


def test_module_without_a_rewrite_function_falls_back() -> None:
    """Another shape than the captured one runs the module as it was written, and says so once."""
    model = Head().eval()
    host = open_module(model, HOT)
    fixed = host.patched(softmaxes(host)).model()
    x = torch.randn(3, 5)
    with pytest.warns(UserWarning, match="Head runs as written"):
        torch.testing.assert_close(fixed(x), model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fixed(x)


def test_module_captures_a_changing_size_once_more() -> None:
    """The second size makes the axis symbolic; later sizes need no capture."""
    captured: list[ExportedHost] = []

    def watched(host: ExportedHost) -> ExportedHost:
        captured.append(host)
        return rewrite(host)

    fixed = open_lazily(Head().eval(), watched)
    for rows in (2, 3, 4, 17, 2):
        x = HOT[:1].expand(rows, 5)
        _check_head(fixed(x), x)
    assert len(captured) == 2


def test_conditions_of_a_capture_are_checked() -> None:
    """A program captured for even sizes is not used for odd ones."""

    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            half = x.shape[0] // 2
            e = torch.exp(x[: 2 * half].reshape(2, half, -1)) if x.shape[0] % 2 == 0 else torch.exp(2 * x[None])
            return e / e.sum(-1, keepdim=True)

    model = Halves()
    fixed = open_lazily(model, rewrite)
    for rows in (4, 6, 8, 5, 7, 10):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(fixed(x), model(x))


def test_module_captures_variants_up_to_a_limit() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, scale: int) -> torch.Tensor:
            e = torch.exp(x * scale)
            return e / e.sum(-1, keepdim=True)

    fixed = open_lazily(Scaled(), rewrite)
    for scale in range(1, 9):
        assert torch.isfinite(fixed(HOT, scale)).all()
    with pytest.warns(UserWarning, match="8 variants"):
        fixed(HOT, 9)


def test_module_with_dynamic_shapes_is_captured_once() -> None:
    calls: list[ExportedHost] = []

    def watched(host: ExportedHost) -> ExportedHost:
        calls.append(host)
        return rewrite(host)

    batch = torch.export.Dim("batch", min=2, max=32)
    host = open_module(Head().eval(), HOT, dynamic_shapes={"x": {0: batch}}, rewrite=watched)
    fixed = host.patched(softmaxes(host)).model()
    for rows in (2, 5, 32):
        x = HOT[:1].expand(rows, 5)
        _check_head(fixed(x), x)
    assert not calls


def test_module_with_nested_inputs_and_outputs() -> None:
    class Nested(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor], *, scale: float = 1.0) -> dict[str, object]:
            e = torch.exp(batch["x"] * scale)
            return {"p": [e / e.sum(-1, keepdim=True)], "scale": scale}

    model = Nested()
    host = open_module(model, (({"x": HOT},), {"scale": 2.0}), rewrite=rewrite)
    fixed = host.patched(softmaxes(host)).model()
    for scale in (2.0, 3.0):
        result = fixed({"x": HOT}, scale=scale)
        torch.testing.assert_close(result["p"][0], torch.softmax(HOT * scale, -1))
        assert result["scale"] == scale
    torch.testing.assert_close(fixed({"x": HOT})["p"][0], torch.softmax(HOT, -1))


def test_batch_norm_statistics_are_the_originals() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            e = torch.exp(self.norm(x))
            return e / e.sum(-1, keepdim=True)

    model = Normed().train()
    reference = copy.deepcopy(model)
    host = open_module(model, HOT, rewrite=rewrite)
    fixed = host.patched(softmaxes(host)).model()
    torch.testing.assert_close(fixed(HOT), reference(HOT))
    torch.testing.assert_close(model.norm.running_mean, reference.norm.running_mean)
    assert int(model.norm.num_batches_tracked) == 1
    torch.testing.assert_close(fixed.eval()(HOT), reference.eval()(HOT))


def test_module_copies_and_loads_state() -> None:
    model = Head().eval()
    host = open_module(model, HOT)
    fixed = host.patched(softmaxes(host)).model()
    twin = copy.deepcopy(fixed)
    assert twin.linear.weight is not model.linear.weight
    state = {k: v * 2 for k, v in model.state_dict().items()}
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(HOT)[0], torch.softmax(HOT * 2, -1))
    torch.testing.assert_close(fixed(HOT)[0], torch.softmax(HOT, -1))


def test_a_module_that_cannot_be_captured_says_why() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="cannot capture Branching"):
        open_module(Branching(), HOT)


def test_refusals_are_reasons() -> None:
    host = open_exported(_exported())
    builder = host.view.builder
    exp = host.view.bindings["exp"]
    unknown: Value = builder.opaque("elsewhere", (), exp.type)
    assert "not available" in (host.refusal(Replacement(exp, unknown)) or "")
    assert "type" in (host.refusal(Replacement(exp, builder.cast(exp, "float64"))) or "")
    assert host.can_emit(unknown) is not None
    with pytest.raises(ModelError, match="cannot replace"):
        host.patched([Replacement(exp, unknown)]).model()


# --- what a capture must not forget ---------------------------------------------------------------------------


class Ratio(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        e = torch.exp(a - b)
        return e / e.sum(-1, keepdim=True)


@pytest.mark.parametrize("lazy", [False, True])
def test_one_tensor_for_two_inputs(lazy: bool) -> None:
    """torch.export would take them for one input in every later call."""
    model = Ratio()
    fixed = open_lazily(model, rewrite) if lazy else open_module(model, (HOT, HOT), rewrite=rewrite).model()
    x = torch.randn(2, 5)
    torch.testing.assert_close(fixed(x, x), model(x, x))
    torch.testing.assert_close(fixed(x, 2 * x), model(x, 2 * x))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> torch.Tensor:
        return -grads[0]


class Hooked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x * 1
        if h.requires_grad:
            h.register_hook(lambda g: g * 10)
        return torch.exp(h)


class Adversarial(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(cast(Any, Reversed).apply(x))


@pytest.mark.parametrize(("model", "named"), [(Adversarial(), "Reversed"), (Hooked(), "hook")])
def test_gradients_that_autograd_does_not_know_are_kept(model: nn.Module, named: str) -> None:
    x = torch.randn(2, 5).requires_grad_()
    with pytest.raises(ModelError, match=named):
        open_module(model, x)
    (wanted,) = torch.autograd.grad(model(x).sum(), x)
    with pytest.warns(UserWarning, match="as written"):
        (actual,) = torch.autograd.grad(open_lazily(model, rewrite)(x).sum(), x)
    torch.testing.assert_close(actual, wanted)


def test_a_backward_hook_is_refused() -> None:
    model = Head()
    model.linear.register_full_backward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="backward hook on linear"):
        open_module(model, HOT)


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = 1.0
        self.bias = torch.zeros(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x / self.temperature + self.bias)
        return e / e.sum(-1, keepdim=True)


def test_attributes_are_looked_at_again() -> None:
    fixed: Any = open_module(Tempered(), HOT, rewrite=rewrite)
    fixed = fixed.patched(softmaxes(fixed)).model()
    fixed.temperature = 2.0
    torch.testing.assert_close(fixed(HOT), torch.softmax(HOT / 2, -1))
    fixed.bias = torch.arange(5.0)
    torch.testing.assert_close(fixed(HOT), torch.softmax(HOT / 2 + torch.arange(5.0), -1))
