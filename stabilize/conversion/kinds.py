"""Operators that stay float32 whatever their operands are, and why."""

from __future__ import annotations

from typing import Final

_ACCUMULATES: Final = "it accumulates a sum of exponentials or squares in its own format"
_STEEP: Final = "it is steep: rounding its operand or its result costs many digits"
_STEPS: Final = "it adds up what it rounds, step by step"
_DISCRETE: Final = "it takes whole numbers from floats"
_QUANTIZED: Final = "it has scales of an integer format"
_DRAWS: Final = "it draws random numbers: in another format they are others"

#: Operator → why it stays float32. Elsewhere the numbers decide.
KINDS: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            "Softmax",
            "LogSoftmax",
            "Hardmax",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceProd",
            "LayerNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "RMSNormalization",
            "MeanVarianceNormalization",
            "LpNormalization",
            "LpPool",
            "GlobalLpPool",
            "LRN",
            "SoftmaxCrossEntropyLoss",
            "NegativeLogLikelihoodLoss",
            "Attention",
            "LinearAttention",
            "Det",
            "DFT",
            "STFT",
        ],
        _ACCUMULATES,
    ),
    **dict.fromkeys(["Exp", "Log", "Pow", "Tan", "Sinh", "Cosh", "Acos", "Asin", "Acosh", "Atanh"], _STEEP),
    **dict.fromkeys(["LSTM", "GRU", "RNN", "CumSum", "CumProd"], _STEPS),
    **dict.fromkeys(["Floor", "Ceil", "Round", "Mod", "Equal", "OneHot"], _DISCRETE),
    **dict.fromkeys(["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"], _QUANTIZED),
    **dict.fromkeys(["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"], _DRAWS),
}

#: Sums of products: hardware accumulates them in float32. What a model is converted for.
PRODUCTS: Final = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"))

#: Sums of many numbers in their own format.
SUMS: Final = frozenset(("ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool", "ReduceL1"))

#: Where an error of the operand is an error of the result, not a relative one.
PERIODIC: Final = frozenset(("Sin", "Cos", "Tan"))

#: Operators whose operand is what they give, elsewhere or scaled: an error of the result is one of the operand.
CARRIERS: Final = frozenset(
    [
        "Identity",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Expand",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "Tile",
        "Pad",
        "Where",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Abs",
        "Sum",
        "Dropout",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
