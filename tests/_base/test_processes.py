"""Solvers in other processes and threads, before and after they ran in the parent: the same bits, and no hang."""

import os
import signal
import subprocess
import sys

# Several times what it takes beside busy cores; without a hang it is never reached.
LIMIT = 600

SCRIPT = """
import hashlib, warnings
import joblib
import numpy as np
import jaxhinge as jh
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV
from sklearn.model_selection import GridSearchCV

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
x = rng.normal(size=(300, 4))
y = np.where(x @ [1.0, -1.0, 0.5, 0.0] + rng.normal(size=300) > 0, 1, -1)


def bits(seed):
    solution = jh.solve(x, y, l2=0.01 * (seed + 1), as_numpy=True)
    model = HingeClassifierCV(Cs=[0.1, 1.0], cv=3).fit(x, (np.arange(300) + y) % 3)
    parts = (solution.params.w, solution.dual, model.coef_, model.scores_)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def in_workers(backend):
    with joblib.parallel_backend(backend, n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(bits)(seed % 2) for seed in range(4))
        search = GridSearchCV(HingeClassifier(), {"C": [0.1, 1.0]}, cv=3, n_jobs=2).fit(x, y)
    return found, search


# Processes are forked before threads have solved anything here.
BACKENDS = "multiprocessing", "loky", "threading"


def main():
    before = [in_workers(backend) for backend in BACKENDS]
    import jax

    # JAX has compiled and run, with threads of its own, before any fork.
    jax.block_until_ready(jax.jit(lambda x: jh.losses.hinge_loss(x[:, 0], y))(x))
    expected = [bits(seed % 2) for seed in range(4)]
    after = [in_workers(backend) for backend in BACKENDS]
    alone = GridSearchCV(HingeClassifier(), {"C": [0.1, 1.0]}, cv=3).fit(x, y)
    for found, search in before + after:
        assert found == expected, (found, expected)
        assert (search.cv_results_["mean_test_score"] == alone.cv_results_["mean_test_score"]).all()
        assert (search.best_estimator_.coef_ == alone.best_estimator_.coef_).all()
    print("the same bits")


if __name__ == "__main__":
    main()
"""


def last_line_of(path):
    """What the script printed last; where it takes too long, its whole process group is killed."""
    command = [sys.executable, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return output.decode().strip().splitlines()[-1]


def test_workers_give_the_same_bits(tmp_path):
    # A file, which loky's workers can read again.
    script = tmp_path / "work.py"
    script.write_text(SCRIPT)
    assert last_line_of(script) == "the same bits"
