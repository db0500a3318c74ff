"""A name is a file's name; what was described can be built again."""

import re
import sys
from pathlib import Path

import pytest

from langevin.diffusion.parametrization import Karras, LearnedVariance, Parametrization, V
from langevin.diffusion.process import GaussianDiffusion, Process
from langevin.diffusion.schedules import VE, Schedule, Shifted, Tabulated
from langevin.diffusion.times import LogNormal, TimeLaw
from langevin.diffusion.weights import MinSNR, Weight
from langevin.errors import UsageError
from langevin.registry import build, describe, find, name_of, names
from langevin.solvers.base import Solver
from langevin.solvers.ddim import DDIM
from langevin.solvers.grids import Grid

ROOMS = [
    ("langevin.solvers", Solver),
    ("langevin.solvers.grids", Grid),
    ("langevin.diffusion.schedules", Schedule),
    ("langevin.diffusion.process", Process),
    ("langevin.diffusion.parametrization", Parametrization),
    ("langevin.diffusion.weights", Weight),
    ("langevin.diffusion.times", TimeLaw),
]


@pytest.mark.parametrize(("room", "base"), ROOMS)
def test_names_and_classes_are_one_to_one(room: str, base: type) -> None:
    found = names(room, base)
    assert found and len(set(found.values())) == len(found)
    for name, cls in found.items():
        assert find(room, name, base) is cls
        assert name_of(cls) == name


def test_every_file_with_a_solver_is_found() -> None:
    """Read from the text: classes that derive from Solver, or from one that does, and that no other derives from."""
    folder = Path(sys.modules[DDIM.__module__].__file__ or "").parent
    files = {p.stem: re.findall(r"^class (\w+)\((\w+)", p.read_text(), re.MULTILINE) for p in folder.glob("*.py")}
    kinds = {"Solver"}
    for _ in range(3):
        kinds |= {name for classes in files.values() for name, base in classes if base in kinds}
    leaves = kinds - {base for classes in files.values() for _, base in classes}
    assert {f for f, classes in files.items() if leaves & dict(classes).keys()} == set(
        names("langevin.solvers", Solver)
    )


def test_a_new_file_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "a_room_of_ours"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "mine.py").write_text("from langevin.diffusion.schedules import VE\n\n\nclass Mine(VE):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = names("a_room_of_ours", Schedule)
    assert list(found) == ["mine"] and issubclass(found["mine"], VE)
    assert find("langevin.diffusion.schedules", "a_room_of_ours.mine:Mine", Schedule) is found["mine"]
    assert name_of(found["mine"]) == "a_room_of_ours.mine:Mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ddmi", "did you mean `ddim`"),
        ("nowhere.at_all:Thing", "cannot be found"),
        ("langevin.errors:Thing", "cannot be found"),
        ("langevin.errors:DataError", "is not a Solver"),
    ],
)
def test_a_wrong_name_is_a_usage_error(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find("langevin.solvers", name, Solver)


@pytest.mark.parametrize(
    ("thing", "base"),
    [
        (VE(0.01, 50.0), Schedule),
        (Shifted(Tabulated((0.1, 0.2, 1.0)), 3.0), Schedule),
        (GaussianDiffusion(Shifted(VE(), 2.0)), Process),
        (LearnedVariance(Karras(0.7)), Parametrization),
        (V(), Parametrization),
        (MinSNR(3.0), Weight),
        (LogNormal(0.1, 2.0), TimeLaw),
        (DDIM(0.25), Solver),
    ],
)
def test_what_is_described_is_built_again(thing: object, base: type) -> None:
    import json

    assert build(json.loads(json.dumps(describe(thing))), base) == thing


def test_a_description_cannot_name_foreign_code() -> None:
    with pytest.raises(UsageError, match="outside langevin"):
        build({"name": "os:system"}, Schedule)
    with pytest.raises(UsageError, match="outside langevin"):
        build({"name": "shifted", "base": {"name": "os:system"}}, Schedule)
    with pytest.raises(UsageError, match=r"no setting `sigma_mx`.*`sigma_max`"):
        build({"name": "ve", "sigma_mx": 3.0}, Schedule)
