"""What version 0.1 has pickled and saved is read: its names lead to where the modules are now."""

import importlib
import pickle
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxhinge
from jaxhinge._base.old_names import MOVED
from jaxhinge.sklearn import HingeClassifier

WRITTEN = Path(__file__).with_name("written_by_0_1")
X = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [-1.0, -1.0], [1.5, 1.0], [-0.5, -2.0]])
Y = np.array([1, 1, -1, -1, 1, -1])


def test_results_of_the_old_version_are_unpickled():
    found = pickle.loads((WRITTEN / "results.pickle").read_bytes())
    assert type(found["solution"]) is jaxhinge.Solution
    assert type(found["solution"].params) is jaxhinge.LinearParams
    assert type(found["sweep"]) is jaxhinge.Sweep
    assert type(found["path"]) is jaxhinge.Path
    assert found["status"] is jaxhinge.Status.STALLED
    assert found["loss"] is jaxhinge.loss
    assert found["hinge"] is jaxhinge.hinge
    assert type(found["checkpoints"]) is jaxhinge.Checkpoints
    assert type(found["estimator"]) is HingeClassifier
    assert (found["estimator"].predict(X) == Y).all()
    again = jaxhinge.solve(X, Y, l2=0.1)
    np.testing.assert_allclose(found["solution"].primal_value, again.primal_value, rtol=2e-4)  # both within tol


def test_a_run_of_the_old_version_goes_on_from_its_checkpoint(tmp_path):
    shutil.copytree(WRITTEN / "checkpoint", tmp_path / "run")
    checkpoints = jaxhinge.Checkpoints(tmp_path / "run", every_seconds=0)
    result = jaxhinge.fit(
        X, Y, l2=0.1, epochs=6, loss_fn=jaxhinge.losses.smooth_hinge_loss, width=0.5, key=jax.random.key(0),
        checkpoint=checkpoints,
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["4", "5", "6"]
    with np.load(WRITTEN / "fit.npz") as written:
        # The same steps: what XLA makes of them may differ in the last digit from one of its versions to the next.
        np.testing.assert_allclose(result.params.w, written["w"], rtol=1e-6)
        np.testing.assert_allclose(result.params.b, written["b"], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in jaxhinge.__all__ if isinstance(getattr(jaxhinge, name), type)])
def test_public_types_are_pickled_by_their_public_names(name):
    assert f"{getattr(jaxhinge, name).__module__}.{name}" == f"jaxhinge.{name}"
    assert pickle.loads(pickle.dumps(getattr(jaxhinge, name))) is getattr(jaxhinge, name)


@pytest.mark.parametrize("old", MOVED)
def test_old_modules_are_found_and_hold_no_other_names(old):
    module = importlib.import_module(old)
    assert importlib.import_module(MOVED[old])
    with pytest.raises(AttributeError):
        module.there_is_no_such_name  # noqa: B018
