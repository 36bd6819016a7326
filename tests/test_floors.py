"""The house: which module lives in which room, on which floor, and that every import points down.

A new module is placed here first. Modules of one room may import each other; rooms of one floor may not.
"""

import ast
import sys
from pathlib import Path

import pytest

import jaxhinge

PACKAGE = Path(jaxhinge.__file__).parent

# floor, room, modules (a prefix that ends in * takes what begins with it)
HOUSE = [
    (0, "checks", ["_checks", "_host_checks"]),
    (0, "kink", ["_kink"]),
    (1, "losses", ["losses", "losses.*"]),
    (1, "mesh", ["_mesh"]),
    (2, "objective", ["_objective", "_one_pass"]),
    (3, "training", ["_train", "_batches", "_hoist", "_optimizer", "_epochs"]),
    (3, "scale", ["_checkpoint", "_files", "_prefetch", "_blocks", "_waiting"]),
    (3, "certificate", ["_certificate*", "_precision"]),
    (
        4,
        "solver",
        [
            "_solve*",
            "_gap",
            "_problem",
            "_rows",
            "_core",
            "_ascent",
            "_interior_*",
            "_newton",
            "_cholesky",
            "_implicit",
            "_multiclass_*",
            "_stream*",
            "_lanes",
        ],
    ),
    (5, "fit", ["_fit*"]),
    (5, "sweep", ["_sweep*", "_path", "_folds", "_scores"]),
    (5, "diagnose", ["_diagnose*"]),
    (6, "sklearn", ["sklearn", "sklearn.*"]),
    (6, "plot", ["plot", "plot.*"]),
]
# On the ground floor the kink checks its arguments; nothing else looks sideways.
SIDEWAYS = {("kink", "checks")}
# What a room may import from outside, beyond the standard library.
EVERYWHERE = {"jax", "numpy"}
OUTSIDE = {
    "training": {"optax"},
    "scale": {"orbax"},
    "fit": {"tqdm"},
    "sweep": {"tqdm"},
    "solver": {"tqdm"},
    "diagnose": {"tqdm", "matplotlib"},
    "sklearn": {"sklearn", "scipy"},
    "plot": {"matplotlib"},
}
# The front door re-exports what the rooms hold, and is entered from outside only.
FRONT_DOOR = ""


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def placed(module):
    """Floor and room of a module, or None."""
    for floor, room, patterns in HOUSE:
        for pattern in patterns:
            if module == pattern or (pattern.endswith("*") and module.startswith(pattern[:-1])):
                return floor, room
    return None


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
    floor, room = placed(module)
    for name in imports(source, module):
        target = inner(name)
        if target is None:
            outside = name.split(".")[0]
            if outside not in EVERYWHERE | OUTSIDE.get(room, set()) and outside not in sys.stdlib_module_names:
                yield f"{module} imports {outside}"
        elif target == FRONT_DOOR:
            yield f"{module} imports {name} through the front door"
        else:
            other_floor, other_room = placed(target)
            if room != other_room and other_floor >= floor and (room, other_room) not in SIDEWAYS:
                yield f"{module} (floor {floor}) imports {target} (floor {other_floor})"


ROOMS = [module for module in MODULES if module != FRONT_DOOR]


@pytest.mark.parametrize("module", ROOMS)
def test_every_module_has_its_room(module):
    assert placed(module), f"jaxhinge.{module} is in no room: place it in HOUSE of {Path(__file__).name}"


@pytest.mark.parametrize("module", ROOMS)
def test_imports_point_down(module):
    assert list(complaints(MODULES[module].read_text(), module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_kink", "import optax"),
        ("_kink", "from jaxhinge.losses import hinge_loss"),
        ("_checks", "from jaxhinge import _kink"),
        ("losses._binary", "def f():\n    from jaxhinge import _objective"),
        ("_objective", "import jaxhinge"),
        ("_objective", "from jaxhinge import hinge"),
        ("_objective", "from sklearn.svm import LinearSVC"),
        ("_objective", "import optax.losses"),
    ],
)
def test_an_arrow_that_points_up_is_seen(module, source):
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
