"""The estimators as ONNX graphs, through skl2onnx: a product with the weights, and what is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from jaxhinge._base.arrays import NDArray
from jaxhinge.sklearn._classifier import HingeClassifier
from jaxhinge.sklearn._classifier_cv import HingeClassifierCV
from jaxhinge.sklearn._regressor import HingeRegressor


def register_onnx_converters() -> None:
    """Tell `skl2onnx` how to convert the estimators of this module, alone or within a `Pipeline`.

    A converted classifier has the outputs `label`, and `probabilities` `(n, k)` where it was fitted with
    `probability=True`, else `scores`, those of `decision_function`. A regressor has `variable`, `(n, 1)`. The graph
    computes in the type of its input, float32 or float64. It takes effect once for the process; again is harmless.

    Raises
    ------
    ImportError
        Without skl2onnx.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from jaxhinge.sklearn import HingeClassifier, register_onnx_converters
    >>> x, y = load_iris(return_X_y=True)
    >>> model = HingeClassifier(C=10).fit(x, y)
    >>> import skl2onnx
    >>> register_onnx_converters()
    >>> onnx = skl2onnx.to_onnx(model, x[:1].astype(np.float32))
    >>> [output.name for output in onnx.graph.output]
    ['label', 'scores']
    """
    try:
        import skl2onnx
    except ImportError as error:
        raise ImportError("The conversion to ONNX needs skl2onnx: pip install skl2onnx") from error
    for kind in (HingeClassifier, HingeClassifierCV):
        skl2onnx.update_registered_converter(
            kind, f"Jaxhinge{kind.__name__}", _classifier_shapes, _convert_classifier, parser=_parse_classifier
        )
    skl2onnx.update_registered_converter(
        HingeRegressor, "JaxhingeHingeRegressor", _regressor_shapes, _convert_regressor
    )


def _parse_classifier(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """A label, and scores or probabilities as an array: nothing is put into dictionaries."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType, guess_tensor_type

    operator = scope.declare_local_operator(f"Jaxhinge{type(model).__name__}", model)
    operator.inputs = inputs
    label = StringTensorType() if _has_names(model) else Int64TensorType()
    second = "probabilities" if hasattr(model, "probA_") else "scores"
    operator.outputs.append(scope.declare_local_variable("label", label))
    operator.outputs.append(scope.declare_local_variable(second, guess_tensor_type(inputs[0].type)))
    return operator.outputs


def _classifier_shapes(operator: Any) -> None:
    model, count = operator.raw_operator, operator.inputs[0].get_first_dimension()
    columns = [] if len(model.classes_) == 2 and not hasattr(model, "probA_") else [len(model.classes_)]
    operator.outputs[0].type.shape = [count]
    operator.outputs[1].type.shape = [count, *columns]


def _regressor_shapes(operator: Any) -> None:
    operator.outputs[0].type.shape = [operator.inputs[0].get_first_dimension(), 1]


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    scores, _ = _scores(operator, container, model.coef_[None], np.array([model.intercept_]))
    _named(scores, operator.outputs[0], container).add_to(scope, container)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.algebra.onnx_ops import OnnxArgMax, OnnxCast, OnnxGather, OnnxGreater, OnnxReshape
    from skl2onnx.proto import TensorProto

    model, version = operator.raw_operator, {"op_version": container.target_opset}
    coef = model.coef_.toarray() if sparse.issparse(model.coef_) else model.coef_
    scores, dtype = _scores(operator, container, coef, model.intercept_)
    column = np.array([-1], np.int64)
    if len(model.classes_) == 2:
        positive = OnnxCast(OnnxGreater(scores, np.zeros(1, dtype), **version), to=TensorProto.INT64, **version)
        number = OnnxReshape(positive, column, **version)
    else:
        number = OnnxArgMax(scores, axis=1, keepdims=0, **version)
    classes = model.classes_.astype(str if _has_names(model) else np.int64)
    label = OnnxGather(classes, number, output_names=operator.outputs[:1], **version)
    if hasattr(model, "probA_"):
        second = _probabilities(scores, model.probA_.astype(dtype), model.probB_.astype(dtype), version)
    else:
        second = OnnxReshape(scores, column, **version) if len(model.classes_) == 2 else scores
    for node in (label, _named(second, operator.outputs[1], container)):
        node.add_to(scope, container)


def _scores(operator: Any, container: Any, coef: NDArray, intercept: NDArray) -> tuple[Any, Any]:
    """`x @ coef.T + intercept`, `(n, k)`, and the type in which it is computed."""
    from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxCast, OnnxMatMul
    from skl2onnx.common.data_types import guess_numpy_type
    from skl2onnx.proto import TensorProto

    x, version = operator.inputs[0], {"op_version": container.target_opset}
    dtype = guess_numpy_type(x.type)
    if dtype not in (np.float32, np.float64):
        x, dtype = OnnxCast(x, to=TensorProto.FLOAT, **version), np.float32
    return OnnxAdd(OnnxMatMul(x, coef.T.astype(dtype), **version), intercept.astype(dtype), **version), dtype


def _probabilities(scores: Any, A: NDArray, B: NDArray, version: dict[str, Any]) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxConcat, OnnxDiv, OnnxMul, OnnxNeg, OnnxReduceSum, OnnxSigmoid

    exponent = OnnxAdd(OnnxMul(scores, A, **version), B, **version)
    chances = OnnxSigmoid(OnnxNeg(exponent, **version), **version)
    if len(A) == 1:
        return OnnxConcat(OnnxSigmoid(exponent, **version), chances, axis=1, **version)
    return OnnxDiv(chances, OnnxReduceSum(chances, np.array([1], np.int64), keepdims=1, **version), **version)


def _named(node: Any, output: Any, container: Any) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxIdentity

    return OnnxIdentity(node, output_names=[output], op_version=container.target_opset)


def _has_names(model: Any) -> bool:
    """Whether the classes are strings; else they are integers, perhaps of another type."""
    return model.classes_.dtype.kind not in "biuf"
