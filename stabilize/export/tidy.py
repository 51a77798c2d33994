"""The exporter's own clean-up of what it wrote, with constants compared exactly.

The optimizer that `torch.onnx.export` runs takes a constant for 0 or 1 when it is nearly that: it deletes x + 1e-9, so
that log(x + 1e-9) is −∞ at 0, and x · 1.000009. The same passes and structural rules run here; the rules about
0 and 1 are replaced by ones that mean them.
"""

from __future__ import annotations

from typing import Any, Final, cast

import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter import onnx_fusions, pattern
from onnxscript.rewriter.rules import common

passes = cast(Any, common_passes)  # partly untyped


def tidied(model: ir.Model) -> ir.Model:
    """`model`, changed in place: functions inlined, constants folded, no-ops and dead nodes removed."""
    passes.InlinePass()(model)
    for _ in range(2):
        cast(Any, optimizer).fold_constants(model)
        rewriter.RewritePass(_RULES)(model)
        passes.RemoveUnusedNodesPass()(model)
        passes.RemoveUnusedFunctionsPass()(model)
        passes.RemoveUnusedOpsetsPass()(model)
    for cleanup in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        cleanup(model)
    onnx_fusions.fuse(model)
    return model


# --- x + 0, x − 0, x · 1, x / 1, with a constant that is exactly that ------------------------------------------------


def _add(op: Any, x: Any, c: Any) -> Any:
    return op.Add(x, c)


def _sub(op: Any, x: Any, c: Any) -> Any:
    return op.Sub(x, c)


def _mul(op: Any, x: Any, c: Any) -> Any:
    return op.Mul(x, c)


def _div(op: Any, x: Any, c: Any) -> Any:
    return op.Div(x, c)


def _identity(op: Any, x: Any, **_: Any) -> Any:
    return op.Identity(x)


def _is_scalar(number: float) -> Any:
    """A condition: c is a scalar and this very number. (x + 0 turns −0 into +0; nobody computes with that sign.)"""

    def check(context: Any, x: ir.Value, c: ir.Value, **_: Any) -> bool:
        tensor = ir.convenience.get_const_tensor(c)
        if tensor is None or tensor.size != 1 or len(tensor.shape) > (len(x.shape) if x.shape is not None else 0):
            return False
        return float(cast(Any, tensor.numpy()).reshape(-1)[0]) == number

    return check


def _no_ops() -> list[pattern.RewriteRule]:
    rules: list[pattern.RewriteRule] = []
    for expression, number, commutes in ((_add, 0.0, True), (_sub, 0.0, False), (_mul, 1.0, True), (_div, 1.0, False)):
        rule = pattern.RewriteRule(expression, _identity, _is_scalar(number))
        rules.extend(rule.commute() if commutes else [rule])
    return rules


#: In the order of the exporter. Left out: its rules about 0 and 1, for which `_no_ops` stands.
_RULES: Final = (
    *_no_ops(),
    common.dropout_zero_rule,
    common.dropout_inference_rule,
    common.two_reshapes_matmul_reshape_rule,
    common.one_reshape_matmul_reshape_rule,
    common.cast_constant_of_shape_rule,
    common.cast_constant_of_shape_without_value_rule,
    common.collapse_slice_rule,
    common.collapse_slice2_rule,
    common.materialize_reshape_shape_rule,
    common.min_min_rule,
    common.max_max_rule,
    common.min_max_rule,
    common.max_min_rule,
    common.successive_clip_relu_rule,
    common.successive_relu_clip_rule,
    common.successive_relu_rule,
    common.successive_clip_rule,
    common.cast_cast_rule,
    common.no_op_cast_rule,
    common.no_op_expand_rule,
    common.flatten_to_reshape_rule,
    common.reshape_reshape_rule,
    common.slice_split_rule,
    common.no_op_transpose_rule,
    common.transpose_transpose_rule,
    common.unsqueeze_unsqueeze_rule,
    common.squeeze_reshape_1d_rule,
    common.no_op_dynamic_scatter_nd_rule,
    common.no_op_static_scatter_nd_rule,
    common.normalize_pad_format_conv_rule,
    common.normalize_pad_format_conv_integer_rule,
    common.fuse_pad_into_conv_rule,
    common.fuse_pad_into_conv_integer_rule,
    common.fuse_batchnorm_into_conv_rule,
    common.fuse_batchnorm_into_conv_transpose_rule,
    common.fuse_batchnorm_into_gemm_rule,
    common.remove_optional_bias_from_conv_rule,
    common.remove_optional_bias_from_conv_transpose_rule,
    common.remove_optional_bias_from_qlinear_conv_rule,
    common.remove_optional_bias_from_gemm_rule,
)
