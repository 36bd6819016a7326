"""The estimators as ONNX graphs give what they predict."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import skl2onnx
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor, register_onnx_converters

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.argmax(X[:, :3] + 0.5 * RNG.normal(size=(60, 3)), axis=1)


def outputs(model, x):
    """What ONNX Runtime computes, by the names of the outputs."""
    register_onnx_converters()
    graph = skl2onnx.to_onnx(model, x[:1])
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier(classes, names, dtype):
    y, x = np.minimum(Y, classes - 1), X.astype(dtype)
    y = y if names is None else np.array(names)[y]
    model = HingeClassifier().fit(X, y)
    found = outputs(model, x)
    assert list(found) == ["label", "scores"]
    np.testing.assert_array_equal(found["label"], model.predict(x))
    assert found["scores"].dtype == dtype
    rounding = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(found["scores"], model.decision_function(x), rtol=rounding, atol=rounding)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_within_a_pipeline(classes):
    y, x = np.minimum(Y, classes - 1), X.astype(np.float32)
    search = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, probability=True)
    model = make_pipeline(StandardScaler(), search).fit(X, y)
    found = outputs(model, x)
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_array_equal(found["label"], model.predict(x))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), atol=1e-6)


def test_a_regressor_and_sparse_weights_and_integer_features():
    model = make_pipeline(StandardScaler(), HingeRegressor()).fit(X, X @ [1.0, 2.0, 0.0, -1.0])
    np.testing.assert_allclose(outputs(model, X)["variable"][:, 0], model.predict(X), rtol=1e-12, atol=1e-12)
    x = RNG.integers(-5, 5, size=(60, 4))
    thin = HingeClassifier(multi_class="crammer_singer").fit(x, Y).sparsify()
    np.testing.assert_allclose(outputs(thin, x)["scores"], thin.decision_function(x), rtol=1e-5, atol=1e-5)


def test_without_skl2onnx_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['skl2onnx'] = None\n"
        "from jaxhinge.sklearn import register_onnx_converters\n"
        "try:\n"
        "    register_onnx_converters()\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install skl2onnx" in done.stdout
