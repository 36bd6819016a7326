"""From raw text to a certified classifier: which library is a docstring from, by its words, and which words tell.

The corpus is real and needs no download: docstrings of installed packages, read from their files without an import.
Each is a row of tf-idf in a pipeline with HingeClassifierCV, beside LinearSVC at the C that was chosen. The names of
the packages are taken out of the text. The picture shows the words with the largest weights for each library.

    python experiments/text_classification.py            # about a minute
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from jaxhinge.sklearn import HingeClassifierCV

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib", "jax")
# Names that would give a library away without a look at what it is about.
NAMES = re.compile(r"\b(numpy|np|scipy|sp|sklearn|scikit|matplotlib|mpl|pyplot|plt|jax|jnp|lax|optax)\b", re.IGNORECASE)
FEWEST_WORDS = 15


def docstrings(package: str, most: int) -> list[str]:
    """Docstrings of functions and classes, in the order of the files, without repetitions."""
    origin = importlib.util.find_spec(package).origin  # type: ignore[union-attr]
    found: dict[str, None] = {}
    for path in sorted(Path(str(origin)).parent.rglob("*.py")):
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = NAMES.sub(" ", ast.get_docstring(node) or "")
                if len(text.split()) >= FEWEST_WORDS:
                    found[text] = None
    texts = list(found)
    chosen = np.random.default_rng(0).permutation(len(texts))[:most]
    return [texts[i] for i in sorted(chosen)]


def draw(words: Any, model: Any, out: Path, count: int = 10) -> None:
    figure, panels = plt.subplots(1, len(PACKAGES), figsize=(2.6 * len(PACKAGES), 3.6))
    for panel, package, w in zip(panels, model.classes_, model.coef_, strict=True):
        top = np.argsort(w)[-count:]
        panel.barh(words[top], w[top], color="#0072B2")
        panel.set_title(package)
        panel.tick_params(labelsize=8)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.supxlabel("weight of the word", fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=2000, help="docstrings for each package")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()
    texts, labels = [], []
    for package in PACKAGES:
        of_one = docstrings(package, args.most)
        texts += of_one
        labels += [package] * len(of_one)
    split = train_test_split(texts, labels, test_size=0.25, random_state=0, stratify=labels)
    train, test, y_train, y_test = split

    began = time.perf_counter()
    words = TfidfVectorizer(sublinear_tf=True, min_df=2)
    model = HingeClassifierCV(Cs=[0.1, 1, 10], cv=3, tol=1e-4)
    pipeline = make_pipeline(words, model).fit(train, y_train)
    ours = time.perf_counter() - began
    peer = make_pipeline(clone(words), LinearSVC(loss="hinge", C=model.C_, max_iter=5000)).fit(train, y_train)
    rows, features = pipeline[0].transform(train).shape
    print(f"\n{rows} docstrings of {len(PACKAGES)} libraries, {features} words\n")
    print("| | C | accuracy on new docstrings | duality gap |")
    print("|---|---|---|---|")
    score, of_peer = pipeline.score(test, y_test), peer.score(test, y_test)
    print(f"| HingeClassifierCV, {ours:.1f} s with its search | {model.C_:g} | {score:.4f} | {model.dual_gap_:.1e} |")
    print(f"| LinearSVC at that C | {model.C_:g} | {of_peer:.4f} | unknown |\n")
    names = words.get_feature_names_out()
    for package, w in zip(model.classes_, model.coef_, strict=True):
        print(f"{package}: {', '.join(names[np.argsort(w)[:-9:-1]])}")
    draw(names, model, args.out)
    print(f"\nPicture: {args.out}")


if __name__ == "__main__":
    main()
