"""Calls that exercise every row of the reading table: operator → argument lists, as (args, kwargs)."""

from __future__ import annotations

from typing import TypeAlias

import torch

Case: TypeAlias = "tuple[tuple[object, ...], dict[str, object]]"


def _call(*args: object, **kwargs: object) -> Case:
    return args, kwargs


_G = torch.Generator().manual_seed(0)


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_G)


X = _randn(3, 5)
Y = _randn(3, 5)
ROW = _randn(5)
SCALAR = torch.tensor(0.7)
POSITIVE = X.abs() + 0.1
UNIT = torch.sigmoid(X)
CUBE = _randn(2, 3, 4)
SQUARE = _randn(4, 4)
MASK = X > 0
OTHER_MASK = Y > 0.5
INTS = torch.tensor([[3, 0, -2], [1, 5, 2]])
LABELS = torch.tensor([0, 4, 2])
HALF = X.half()
WILD = torch.tensor([0.0, float("inf"), -float("inf"), float("nan")])

_ANY_REAL = (
    "exp", "expm1", "sigmoid", "log_sigmoid", "tanh", "relu", "erf", "erfc", "sin", "cos", "floor", "neg", "abs",
    "sign", "detach", "special_expit", "special_expm1", "special_erf", "special_erfc", "absolute", "negative", "sgn",
    "square", "exp2", "special_exp2", "cosh", "sinh", "silu", "mish", "relu6", "isnan", "alias", "contiguous", "clone",
    "lift_fresh_copy", "lift_fresh", "positive", "resolve_conj", "resolve_neg", "atan", "arctan", "asinh", "arcsinh",
)  # fmt: skip
_POSITIVE = ("log", "log1p", "sqrt", "special_log1p", "reciprocal", "rsqrt", "log2", "log10")
_INSIDE_ONE = ("asin", "acos", "atanh", "arcsin", "arccos", "arctanh", "erfinv", "special_erfinv")
_COMPARE = (
    "eq", "ne", "lt", "le", "gt", "ge", "greater", "greater_equal", "less", "less_equal", "not_equal",
)  # fmt: skip

CASES: dict[str, list[Case]] = {
    **{f"{name}.default": [_call(X), _call(HALF)] for name in _ANY_REAL},
    **{f"{name}.default": [_call(POSITIVE), _call(POSITIVE.half())] for name in _POSITIVE},
    **{f"{name}.default": [_call(UNIT), _call(UNIT.half())] for name in _INSIDE_ONE},
    **{f"{name}.default": [_call(POSITIVE + 1), _call(POSITIVE.half() + 1)] for name in ("acosh", "arccosh")},
    "special_erfcx.default": [_call(X), _call(X.double())],
    "special_log_ndtr.default": [_call(X), _call(X.double())],
    "special_ndtri.default": [_call(UNIT), _call(UNIT.double())],
    "softplus.default": [_call(X), _call(X, 2.0), _call(X, 1, 40)],
    "logit.default": [_call(UNIT)],
    "special_logit.default": [_call(UNIT)],
    # arithmetic
    "add.Tensor": [
        _call(X, Y), _call(X, 1.5), _call(X, ROW, alpha=2), _call(INTS, INTS), _call(INTS, 2), _call(INTS, 2.5),
        _call(HALF, X), _call(HALF, 0.1), _call(X, INTS[0, 0]), _call(MASK, X), _call(X, SCALAR.double()),
        _call(MASK, 1), _call(INTS.int(), INTS),
    ],
    "add.Scalar": [_call(X, 2)],
    "isinf.default": [_call(WILD)],
    "isfinite.default": [_call(WILD)],
    "special_ndtr.default": [_call(X)],
    "divide.Tensor": [_call(X, POSITIVE)],
    "divide.Scalar": [_call(X, 2)],
    "multiply.Tensor": [_call(X, Y)],
    "multiply.Scalar": [_call(X, 2)],
    "subtract.Tensor": [_call(X, Y, alpha=2)],
    "subtract.Scalar": [_call(X, 2)],
    "bitwise_xor.Tensor": [_call(MASK, OTHER_MASK)],
    "__xor__.Tensor": [_call(MASK, OTHER_MASK)],
    "aminmax.default": [_call(X, dim=1), _call(X)],
    "inner.default": [_call(X, Y), _call(X, ROW)],
    "linalg_vecdot.default": [_call(X, Y), _call(X, Y, dim=0)],
    "broadcast_tensors.default": [_call([X, ROW])],
    "matrix_H.default": [_call(X)],
    "sub.Tensor": [_call(X, Y), _call(X, ROW, alpha=3), _call(X, 1)],
    "sub.Scalar": [_call(X, 2.5)],
    "rsub.Tensor": [_call(X, Y, alpha=2)],
    "rsub.Scalar": [_call(X, 1), _call(INTS, 1), _call(INTS, 0.5)],
    "mul.Tensor": [_call(X, Y), _call(X, 3), _call(MASK, X), _call(INTS, INTS), _call(MASK, OTHER_MASK)],
    "mul.Scalar": [_call(X, 0.5)],
    "div.Tensor": [_call(X, POSITIVE), _call(X, 3), _call(INTS, 2), _call(INTS, INTS + 3)],
    "div.Scalar": [_call(X, 2)],
    "div.Tensor_mode": [_call(X, POSITIVE, rounding_mode=None)],
    "div.Scalar_mode": [_call(X, 2, rounding_mode=None)],
    "true_divide.Tensor": [_call(X, POSITIVE)],
    "addcmul.default": [_call(X, X, Y), _call(X, ROW, Y, value=2)],
    "addcdiv.default": [_call(X, Y, POSITIVE, value=-0.5)],
    "outer.default": [_call(ROW, ROW)],
    "pow.Tensor_Tensor": [_call(POSITIVE, Y)],
    "pow.Tensor_Scalar": [_call(X, 2), _call(POSITIVE, -0.5), _call(INTS, 2), _call(HALF, 2)],
    "pow.Scalar": [_call(2, X), _call(0.3, X)],
    "float_power.Tensor_Scalar": [_call(POSITIVE, 1.5)],
    "float_power.Tensor_Tensor": [_call(POSITIVE, Y)],
    "maximum.default": [_call(X, Y), _call(INTS, INTS.T.reshape(2, 3))],
    "minimum.default": [_call(X, Y)],
    "max.other": [_call(X, Y)],
    "min.other": [_call(X, Y)],
    "clamp_min.default": [_call(X, 0.2), _call(INTS, 1)],
    "clamp_min.Tensor": [_call(X, Y)],
    "clamp_max.default": [_call(X, 0.2)],
    "clamp_max.Tensor": [_call(X, Y)],
    "clamp.default": [_call(X, -0.5, 0.5), _call(X, 0.1), _call(X, None, 0.1)],
    "clamp.Tensor": [_call(X, Y - 1, Y + 1)],
    "clip.default": [_call(X, -0.5, 0.5)],
    "hardtanh.default": [_call(X), _call(X, -0.1, 0.3)],
    "logaddexp.default": [_call(X, Y)],
    "logaddexp2.default": [_call(X, Y)],
    "special_xlog1py.default": [_call(X, POSITIVE)],
    "elu.default": [_call(X), _call(X, 0.5, 2.0, 1.5)],
    "celu.default": [_call(X), _call(X, 0.5)],
    "selu.default": [_call(X)],
    "xlogy.Tensor": [_call(X, POSITIVE)],
    "xlogy.Scalar_Self": [_call(2.0, POSITIVE)],
    "xlogy.Scalar_Other": [_call(X, 2.0)],
    "special_xlogy.default": [_call(X, POSITIVE)],
    # comparisons and logic
    **{f"{name}.Tensor": [_call(X, Y), _call(INTS, X[:1, :3]), _call(MASK, X)] for name in _COMPARE},
    **{f"{name}.Scalar": [_call(X, 0.5), _call(INTS, 1.5), _call(INTS, 1)] for name in _COMPARE},
    "logical_and.default": [_call(MASK, OTHER_MASK), _call(INTS, INTS - 1)],
    "logical_or.default": [_call(MASK, OTHER_MASK)],
    "logical_not.default": [_call(MASK), _call(INTS)],
    "logical_xor.default": [_call(MASK, OTHER_MASK)],
    "bitwise_and.Tensor": [_call(MASK, OTHER_MASK)],
    "bitwise_or.Tensor": [_call(MASK, OTHER_MASK)],
    "bitwise_not.default": [_call(MASK)],
    "__and__.Tensor": [_call(MASK, OTHER_MASK)],
    "__or__.Tensor": [_call(MASK, OTHER_MASK)],
    # selection
    "where.self": [_call(MASK, X, Y), _call(MASK, X, ROW), _call(MASK, HALF, X)],
    "where.ScalarOther": [_call(MASK, X, 0.0), _call(MASK, HALF, float("-inf"))],
    "where.ScalarSelf": [_call(MASK, 0.0, X)],
    "where.Scalar": [_call(MASK, 1.0, 0.0)],
    "masked_fill.Scalar": [_call(X, MASK, float("-inf")), _call(X, MASK[0], 0)],
    "masked_fill.Tensor": [_call(X, MASK, SCALAR)],
    # constants
    "full.default": [_call([2, 3], 1.5), _call([], 2), _call([2], 3, dtype=torch.int64)],
    "full_like.default": [_call(X, 7)],
    "new_full.default": [_call(X, [2], 7)],
    "scalar_tensor.default": [_call(2.5)],
    "zeros.default": [_call([2, 2])],
    "zeros_like.default": [_call(INTS)],
    "new_zeros.default": [_call(X, [3])],
    "ones.default": [_call([2, 2], dtype=torch.bool)],
    "ones_like.default": [_call(X)],
    "new_ones.default": [_call(X, [3])],
    "fill.Scalar": [_call(X, 2)],
    "fill.Tensor": [_call(X, SCALAR)],
    "zero.default": [_call(X)],
    "copy.default": [_call(X, ROW), _call(X, INTS[0, 0])],
    "arange.default": [_call(5), _call(4.0)],
    "arange.start": [_call(0, 5), _call(2, 5), _call(0.5, 4.2)],
    "arange.start_step": [_call(0, 5, 1), _call(-2.5, 3.0, 1), _call(7, 0, -2), _call(0, 1, 0.25), _call(2.0, 2.0, 1)],
    # reductions and scans
    "sum.default": [_call(X), _call(INTS), _call(MASK), _call(SCALAR), _call(X, dtype=torch.float64)],
    "sum.dim_IntList": [
        _call(X, [1]), _call(X, [-1], True), _call(CUBE, [0, 2]), _call(MASK, [0]), _call(INTS.int(), [1]),
        _call(X, None), _call(HALF, [1], dtype=torch.float32),
    ],
    "mean.default": [_call(X), _call(X, dtype=torch.float64)],
    "mean.dim": [_call(X, [0]), _call(CUBE, [1, 2], True), _call(X, None)],
    "prod.default": [_call(X), _call(INTS)],
    "prod.dim_int": [_call(X, 1), _call(X, 0, True)],
    "amax.default": [_call(X, [1]), _call(CUBE, [0, 2], True), _call(X)],
    "amin.default": [_call(X, [1]), _call(X)],
    "max.default": [_call(X), _call(INTS)],
    "min.default": [_call(X)],
    "max.dim": [_call(X, 1), _call(CUBE, -1, True)],
    "min.dim": [_call(X, 1)],
    "logsumexp.default": [_call(X, [1]), _call(CUBE, [0, -1], True)],
    "special_logsumexp.default": [_call(X, [1])],
    **{f"{op}.default": [_call(MASK), _call(INTS)] for op in ("any", "all")},
    **{f"{op}.dim": [_call(MASK, 1), _call(INTS, 0, True)] for op in ("any", "all")},
    **{f"{op}.dims": [_call(MASK, [0, 1])] for op in ("any", "all")},
    "argmax.default": [_call(X, 1), _call(X), _call(X, 0, True)],
    "cumsum.default": [_call(X, 1), _call(INTS.int(), 0), _call(X, 0, dtype=torch.float64)],
    "cumprod.default": [_call(X, -1)],
    "logcumsumexp.default": [_call(X, 1)],
    "softmax.int": [_call(X, -1), _call(HALF, 1, torch.float32), _call(CUBE, 1)],
    "special_softmax.default": [_call(X, 1)],
    "_softmax.default": [_call(X, 1, False)],
    "log_softmax.int": [_call(X, -1), _call(X, 0, torch.float64)],
    "special_log_softmax.default": [_call(X, 1)],
    "_log_softmax.default": [_call(X, 1, False)],
    "linalg_vector_norm.default": [_call(X, 1, [-1], True), _call(X, float("inf")), _call(HALF * 300, 2, [1])],
    "norm.ScalarOpt_dim": [_call(X, 2, [-1], True), _call(X, None, [0])],
    "norm.Scalar": [_call(X, 2)],
    "topk.default": [_call(X, 2), _call(X, 2, 0, False)],
    # products
    "matmul.default": [_call(X, Y.T), _call(CUBE, SQUARE), _call(ROW, ROW), _call(X, ROW)],
    "mm.default": [_call(X, Y.T)],
    "bmm.default": [_call(CUBE, CUBE.mT)],
    "mv.default": [_call(X, ROW)],
    "dot.default": [_call(ROW, ROW)],
    "linalg_matmul.default": [_call(X, Y.T)],
    "addmm.default": [_call(_randn(3), X, Y.T), _call(_randn(3, 3), X, Y.T, beta=2, alpha=0.5)],
    "addmv.default": [_call(_randn(3), X, ROW)],
    "baddbmm.default": [_call(_randn(2, 3, 3), CUBE, CUBE.mT)],
    "linear.default": [_call(X, _randn(4, 5)), _call(CUBE, _randn(2, 4), _randn(2))],
    "einsum.default": [
        _call("ij,kj->ik", [X, Y]), _call("bij,bkj->bik", [CUBE, CUBE]), _call("i,i->", [ROW, ROW]),
        _call("ij->i", [X]), _call("ij->ji", [X]), _call("...i,...i->...", [X, Y]), _call("ij,ij->ij", [X, Y]),
        _call("...id,...jd->...ij", [CUBE, CUBE]), _call("ij,ik->ijk", [X, Y]), _call("ij,kj->k", [X, Y]),
        _call("bij,bij->b", [CUBE, CUBE]), _call("i,j->ij", [ROW, ROW]), _call("b i d, b j d -> b i j", [CUBE, CUBE]),
        _call("bqd,bkd->bqk", [CUBE, CUBE]), _call("ij,j->i", [X, ROW]), _call("bid,bjd->jbi", [CUBE, CUBE]),
    ],
    # fused
    "cross_entropy_loss.default": [
        _call(X, torch.softmax(Y, 1)),
        _call(X, torch.softmax(Y, 1), None, 2, -100, 0.1),
        _call(X, LABELS), _call(X, LABELS, None, 0), _call(X, torch.tensor([0, -100, 2]), None, 2),
        _call(X, LABELS, ROW.abs(), 1, -100, 0.1), _call(ROW, LABELS[0]),
        _call(CUBE, torch.zeros(2, 4, dtype=torch.int64)),
    ],
    "nll_loss.default": [_call(X, LABELS)],
    "nll_loss_nd.default": [_call(X, LABELS, ROW.abs(), 2)],
    "nll_loss2d.default": [_call(_randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))],
    "kl_div.default": [
        _call(X, UNIT), _call(X, UNIT, 2), _call(X, Y, 0, log_target=True), _call(X, (UNIT - 0.5).relu(), 0),
    ],
    "binary_cross_entropy_with_logits.default": [_call(X, UNIT), _call(X, UNIT, None, None, 0)],
    "scaled_dot_product_attention.default": [
        _call(CUBE, CUBE, CUBE), _call(CUBE, CUBE, CUBE, scale=0.3),
        _call(CUBE, CUBE, CUBE, torch.ones(3, 3).tril() > 0),
        _call(CUBE, CUBE, CUBE, _randn(3, 3)),
    ],
    "layer_norm.default": [
        _call(X, [5]), _call(CUBE, [3, 4], _randn(3, 4), _randn(3, 4), 1e-3), _call(HALF * 300, [5], ROW.half()),
    ],
    "rms_norm.default": [_call(X, [5], None, 1e-6), _call(CUBE, [4], _randn(4), 1e-3), _call(HALF, [5], None, 1e-3)],
    # layout and casts
    "to.dtype": [_call(X, torch.float64), _call(X, torch.float32), _call(X, torch.int64)],
    "to.device": [_call(X, torch.device("cpu"), torch.float16)],
    "to.dtype_layout": [_call(X, dtype=torch.bfloat16)],
    "to.other": [_call(X, HALF)],
    "_to_copy.default": [_call(X, dtype=torch.float16), _call(MASK, dtype=torch.float32)],
    "type_as.default": [_call(X, HALF)],
    "dropout.default": [_call(X, 0.5, False)],
    "feature_dropout.default": [_call(CUBE, 0.5, False)],
    "alpha_dropout.default": [_call(X, 0.5, False)],
    "view.default": [_call(X, [15]), _call(X, [3, 1, 5]), _call(CUBE, [6, -1])],
    "reshape.default": [_call(X, [5, 3]), _call(X[:, :1], [3])],
    "_unsafe_view.default": [_call(X, [15])],
    "flatten.using_ints": [_call(CUBE), _call(CUBE, 1)],
    "unflatten.int": [_call(CUBE, 2, [2, 2])],
    "view_as.default": [_call(X, Y.reshape(5, 3))],
    "reshape_as.default": [_call(X, Y.reshape(5, 3))],
    "ravel.default": [_call(X)],
    "expand.default": [_call(ROW, [3, 5]), _call(X[:, :1], [-1, 4])],
    "expand_as.default": [_call(ROW, X)],
    "broadcast_to.default": [_call(ROW, [2, 5])],
    "unsqueeze.default": [_call(X, 1), _call(X, -1)],
    "squeeze.default": [_call(X[None, :, :1])],
    "squeeze.dim": [_call(X[None], 0), _call(X[None], 1)],
    "squeeze.dims": [_call(X[None, :, None], [0, 2])],
    "permute.default": [_call(CUBE, [2, 0, 1]), _call(CUBE, [0, -1, 1])],
    "transpose.int": [_call(CUBE, 0, -1)],
    "swapaxes.default": [_call(CUBE, 0, 1)],
    "swapdims.default": [_call(CUBE, 0, 1)],
    "t.default": [_call(X), _call(ROW)],
    "mT.default": [_call(CUBE)],
    "adjoint.default": [_call(CUBE)],
    "numpy_T.default": [_call(X)],
    "movedim.int": [_call(CUBE, 0, 2)],
    "movedim.intlist": [_call(CUBE, [0, 1], [2, 0])],
    "moveaxis.int": [_call(CUBE, -1, 0)],
    "moveaxis.intlist": [_call(CUBE, [2], [0])],
    "slice.Tensor": [
        _call(X, 1, 1, 4), _call(X, 0, -2), _call(X, 1, 0, 2**63 - 1), _call(X, 1, 0, 5, 2), _call(X, 1, 3, 99),
    ],
    "select.int": [_call(X, 1, 2), _call(CUBE, -1, -1)],
    "narrow.default": [_call(X, 1, 1, 3)],
    "split.Tensor": [_call(X, 2, 1)],
    "split.sizes": [_call(X, [2, 3], 1)],
    "split_with_sizes.default": [_call(X, [4, 1], -1)],
    "chunk.default": [_call(X, 2, 1)],
    "tensor_split.sections": [_call(X, 2, 1)],
    "tensor_split.indices": [_call(X, [1, 3], 1)],
    "unbind.int": [_call(X, 0), _call(X, 1)],
    "glu.default": [_call(CUBE), _call(SQUARE, 0)],
    "cat.default": [_call([X, Y], 1), _call([HALF, X]), _call([X], 0)],
    "concat.default": [_call([X, Y])],
    "concatenate.default": [_call([X, Y], -1)],
    "stack.default": [_call([X, Y]), _call([X, Y], -1)],
    "index.Tensor": [
        _call(X, [torch.arange(3), LABELS]), _call(X, [torch.arange(3), LABELS - 5]),
        _call(X, [None, torch.tensor([0, -1])]),
        _call(X, [torch.tensor([2, 0])]), _call(CUBE, [torch.arange(2), torch.tensor([1, 0])]),
        _call(CUBE, [torch.arange(2)[:, None], torch.arange(3)[None], torch.tensor([[0, 1, 2], [3, 2, -1]])]),
    ],
    "gather.default": [_call(X, 1, LABELS[:, None]), _call(X, 0, torch.tensor([[2, 0, 1]]))],
    "index_select.default": [_call(X, 1, torch.tensor([4, 0])), _call(CUBE, 0, torch.tensor([1]))],
    "take_along_dim.default": [_call(X, LABELS[:, None], 1), _call(X, LABELS[:, None] - 5, 1)],
    "scatter.value": [_call(torch.zeros(3, 5), 1, LABELS[:, None], 1.0), _call(X, -1, LABELS[:, None], 2)],
    "scatter.src": [_call(X, 1, LABELS[:, None], POSITIVE[:, :1].clone())],
    "tril.default": [_call(SQUARE), _call(CUBE, 1), _call(torch.ones(4, 4, dtype=torch.bool))],
    "triu.default": [_call(SQUARE), _call(CUBE, -1)],
    "eye.default": [_call(4), _call(3, dtype=torch.bool)],
    "eye.m": [_call(3, 5)],
    "diagonal.default": [_call(SQUARE), _call(X), _call(SQUARE, 1), _call(SQUARE, -1), _call(X, 1), _call(X.T, -1)],
    "diag.default": [_call(SQUARE), _call(X, -1), _call(X.T, 1)],
    "one_hot.default": [_call(LABELS, 5)],
    "repeat.default": [_call(X[:1], [4, 1]), _call(ROW, [2, 3, 1])],
    "tile.default": [_call(ROW, [2, 1])],
}  # fmt: skip
