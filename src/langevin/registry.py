"""Names. A solver, schedule, network, codec, modality or metric is one file in its folder; its name is its file's name.

`find("langevin.solvers", "ddim", Solver)` imports `langevin/solvers/ddim.py` and gives the one public class in it that
derives from `Solver`; in a module that is not a folder the name is the class's own, in lower case. Third parties write
"package.module:Class". Nothing registers itself and there is no list to keep.

`describe` turns a frozen dataclass into JSON-ready values and `build` makes the object again; that is how a model
folder remembers its process, parametrization, network and codec without anything in it that can execute.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from langevin.errors import UsageError, nearest

T = TypeVar("T")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _members(module: ModuleType, base: type[T]) -> list[type[T]]:
    return [
        c
        for c in vars(module).values()
        if inspect.isclass(c)
        and issubclass(c, base)
        and not inspect.isabstract(c)
        and c.__module__ == module.__name__
        and not c.__name__.startswith("_")
    ]


def names(room: str, base: type[T]) -> dict[str, type[T]]:
    """Every name in a room (a package or a module) with its class; imports all of the room's files."""
    module = importlib.import_module(room)
    if not hasattr(module, "__path__"):
        return {_snake(c.__name__): c for c in _members(module, base)}
    found: dict[str, type[T]] = {}
    for info in pkgutil.iter_modules(module.__path__):
        classes = _members(importlib.import_module(f"{room}.{info.name}"), base)
        if len(classes) == 1:
            found[info.name] = classes[0]
        elif classes:  # a file that holds a family: each member by its own name
            found |= {_snake(c.__name__): c for c in classes}
    return found


def find(room: str, name: str, base: type[T]) -> type[T]:
    """The class of that name. Raises UsageError with the nearest known name."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"`{name}` cannot be found: {error}", help="write package.module:Class") from error
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise UsageError(f"`{name}` is not a {base.__name__}")
        return found
    known = names(room, base)
    if name not in known:
        raise UsageError(f"unknown {_snake(base.__name__).replace('_', ' ')} `{name}`", help=nearest(name, known))
    return known[name]


def name_of(cls: type) -> str:
    """The name by which `find` gives this class again."""
    if not cls.__module__.startswith("langevin."):
        return f"{cls.__module__}:{cls.__qualname__}"
    module = importlib.import_module(cls.__module__)
    room = importlib.import_module(cls.__module__.rpartition(".")[0])
    bases = [b for b in cls.__mro__[1:] if inspect.isabstract(b)]
    is_file_of_a_room = hasattr(room, "__path__") and bases and len(_members(module, bases[-1])) == 1
    return cls.__module__.rpartition(".")[2] if is_file_of_a_room else _snake(cls.__name__)


def room_of(base: type) -> str:
    """The room in which the kinds of a base class live: the module that defines it, or its folder."""
    return base.__module__.removesuffix(".base")


def describe(thing: Any) -> Any:
    """A noun as JSON-ready values: {"name": ..., setting: value, ...}.

    A noun is a frozen dataclass, nested or not, or an object whose `config` holds its constructor's arguments.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.init}
        return {"name": name_of(type(thing)), **fields}
    if isinstance(config := getattr(thing, "config", None), dict):
        return {"name": name_of(type(thing)), **config}
    return [describe(v) for v in thing] if isinstance(thing, tuple | list) else thing


def build(spec: dict[str, Any], base: type[T], *, foreign: bool = False) -> T:
    """The noun that `describe` described.

    Args:
        foreign: whether "package.module:Class" may name code outside langevin. Never for what a file says.

    Raises:
        UsageError: unknown name, unknown setting or a value that cannot be.
    """
    name, settings = spec.get("name", ""), {k: v for k, v in spec.items() if k != "name"}
    if not isinstance(name, str) or (":" in name and not foreign):
        raise UsageError(f"`{name}` names code outside langevin", help="only your own program may choose such code")
    cls = find(room_of(base), name, base)
    known = inspect.signature(cls).parameters
    for key in settings:
        if key not in known:
            raise UsageError(f"`{name}` has no setting `{key}`", help=nearest(key, known))
    if dataclasses.is_dataclass(cls):
        kinds = get_type_hints(cls)
        for key, value in settings.items():
            if isinstance(value, dict):
                if not inspect.isabstract(kinds.get(key)):
                    raise UsageError(f"setting `{key}` of `{name}` is a value, not a noun")
                settings[key] = build(value, kinds[key], foreign=foreign)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    try:
        return cls(**settings)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"`{name}`: {error}") from error
