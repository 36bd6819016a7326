"""scikit-learn estimators: hinge-loss machines that are solved, not iterated until patience ends.

They need scikit-learn 1.6 or newer: `pip install jaxhinge[sklearn]`.
"""

try:
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401
except ImportError as _error:
    raise ImportError("jaxhinge.sklearn needs scikit-learn 1.6 or newer: pip install jaxhinge[sklearn]") from _error

from jaxhinge.sklearn._classifier import HingeClassifier
from jaxhinge.sklearn._classifier_cv import HingeClassifierCV
from jaxhinge.sklearn._onnx import register_onnx_converters
from jaxhinge.sklearn._regressor import HingeRegressor

__all__ = ["HingeClassifier", "HingeClassifierCV", "HingeRegressor", "register_onnx_converters"]
