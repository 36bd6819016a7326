"""The package as a whole: its version, its names, its docstrings, and what importing it costs."""

import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jaxhinge
from jaxhinge import losses

PUBLIC = [
    (module.__name__, name)
    for module in (jaxhinge, losses)
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
]


def test_version():
    assert jaxhinge.__version__ == importlib.metadata.version("jaxhinge")
    assert f"## [{jaxhinge.__version__}]" in (Path(__file__).parents[1] / "CHANGELOG.md").read_text()


def test_a_loss_that_is_asked_of_the_package_is_shown_its_place():
    with pytest.raises(AttributeError, match=r"it is jaxhinge\.losses\.hinge_loss\."):
        jaxhinge.hinge_loss  # noqa: B018
    assert not hasattr(jaxhinge, "no_such_name")


def test_types_are_shipped():
    assert (Path(jaxhinge.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("module", [jaxhinge, losses], ids=lambda module: module.__name__)
def test_all_is_sorted_and_complete(module):
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (not inspect.ismodule(value) or name in ("losses", "sklearn", "plot"))
    }
    # The extras are imported by whoever asks for them, perhaps by another test.
    assert set(module.__all__) | {"sklearn", "plot"} >= public >= set(module.__all__)
    assert module.__all__ == sorted(module.__all__)


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    docstring = inspect.getdoc(value) or ""
    assert docstring, f"{name} has no docstring"
    if inspect.isfunction(value):
        assert ">>> " in docstring, f"{name} shows no example"
        for parameter in inspect.signature(value).parameters:
            assert parameter in docstring, f"{name} does not speak of {parameter}"


@pytest.mark.parametrize("name", losses.__all__)
def test_options_of_losses_are_keyword_only(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert {"subgradient", "kink_tol", "margin"} - parameters.keys() <= {"margin"}
    for parameter in parameters.values():
        has_default = parameter.default is not inspect.Parameter.empty
        assert has_default == (parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def test_importing_brings_in_no_extra():
    code = "import sys, jax, optax; before = set(sys.modules); import jaxhinge; print(*set(sys.modules) - before)"
    new = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    packages = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
    assert "jaxhinge" in packages
    # A part of JAX that nobody had imported yet is no extra.
    assert packages <= {"jax", "jaxhinge", "numpy", "tqdm"}
