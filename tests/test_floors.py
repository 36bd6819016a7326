"""The house: which room stands on which floor, and that every import points down.

A folder is a room. Modules of one room may import each other; rooms of one floor may not.
"""

import ast
import sys
from pathlib import Path

import pytest

import jaxhinge

PACKAGE = Path(jaxhinge.__file__).parent

# A room is a folder. It imports from rooms on lower floors only, and beyond the standard library, JAX and NumPy what is
# named here.
HOUSE = {
    "_base": (0, {"orbax", "scipy", "threadpoolctl", "tqdm"}),
    "losses": (1, set()),
    "_rows": (1, set()),
    "_objective": (2, set()),
    "_methods": (2, {"scipy", "tqdm"}),
    "_diagnose": (2, {"tqdm", "matplotlib"}),
    "_solve": (3, set()),
    "plot": (3, {"matplotlib"}),
    "_train": (4, {"optax", "tqdm"}),
    "_sweep": (4, {"tqdm"}),
    "sklearn": (5, {"sklearn", "scipy", "skl2onnx"}),
}
EVERYWHERE = {"jax", "numpy"}
# The front door re-exports what the rooms hold, and is entered from outside only.
FRONT_DOOR = ""


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module):
    return module.split(".")[0]


def imports(source, module):
    """The full names that a source imports, those inside functions too; `from a import b` may mean module a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; write the name in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(name):
    """The module of this package that an imported name lies in, or None for the outside."""
    package, *parts = name.split(".")
    if package != "jaxhinge":
        return None
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts)


def complaints(source, module):
    """What is wrong with the imports of a module, in words."""
    floor, allowed = HOUSE[room_of(module)]
    for name in imports(source, module):
        target = inner(name)
        if target is None:
            outside = name.split(".")[0]
            if outside not in EVERYWHERE | allowed and outside not in sys.stdlib_module_names:
                yield f"{module} imports {outside}"
        elif target == FRONT_DOOR:
            yield f"{module} imports {name} through the front door"
        elif room_of(target) != room_of(module) and HOUSE[room_of(target)][0] >= floor:
            yield f"{module} (floor {floor}) imports {target} (floor {HOUSE[room_of(target)][0]})"


ROOMS = [module for module in MODULES if module != FRONT_DOOR]


def test_the_package_holds_its_rooms_and_nothing_else():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__.py", "py.typed", *HOUSE}, "a package file belongs into a folder of HOUSE"


@pytest.mark.parametrize("room", HOUSE)
def test_every_room_says_what_it_is_for(room):
    assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))


@pytest.mark.parametrize("module", ROOMS)
def test_imports_point_down(module):
    assert list(complaints(MODULES[module].read_text(), module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_base.arrays", "import optax"),
        ("_base.arrays", "from jaxhinge.losses import hinge_loss"),
        ("losses._binary", "from jaxhinge._rows import sharding"),
        ("losses._binary", "def f():\n    from jaxhinge._objective import objective"),
        ("_methods.stages", "from jaxhinge._objective.objective import LinearParams"),
        ("_objective.objective", "import jaxhinge"),
        ("_objective.objective", "from jaxhinge import hinge"),
        ("_solve.binary", "from sklearn.svm import LinearSVC"),
        ("_solve.binary", "import optax.losses"),
        ("_train.fit", "from jaxhinge._sweep.sweep import sweep"),
    ],
)
def test_an_import_that_does_not_point_down_is_found(module, source):
    assert len(list(complaints(source, module))) == 1


def test_modules_of_one_room_are_in_no_circle():
    edges = {
        module: {inner(name) for name in imports(MODULES[module].read_text(), module)} - {None, module}
        for module in ROOMS
    }
    while edges:
        leaves = {module for module, targets in edges.items() if not targets & edges.keys()}
        assert leaves, f"these import each other in a circle: {sorted(edges)}"
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
