"""gdb_uffd.dataclass is dataclasses.dataclass, but later."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import Any, Callable, List, Optional, Tuple

import pytest

from gdb_uffd import dataclass
from gdb_uffd.dataclass import dataclass as later

Decorator = Callable[..., Any]


def classes(decorate: Decorator) -> List[Any]:
    """One of each kind that the package has."""

    @decorate(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: Tuple[str, ...] = ()

    @decorate
    class Bag:
        name: str
        items: List[int] = dataclasses.field(default_factory=list)
        seen: int = dataclasses.field(default=0, compare=False, repr=False)
        made: List[int] = dataclasses.field(default_factory=list, init=False)
        late: Optional[int] = dataclasses.field(init=False, compare=False, repr=False)

        def __post_init__(self) -> None:
            if not self.name:
                raise ValueError("no name")
            self.made.append(len(self.items))

    @decorate(frozen=True)
    class Point3(Point):
        z: int = 3
        y: int = 5

        @functools.cached_property
        def total(self) -> int:
            return self.x + self.y + self.z

    @decorate(frozen=True)
    class Named:
        name: str

        def __repr__(self) -> str:
            return f"<{self.name}>"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self))

        def __hash__(self) -> int:
            return 7

    return [Point, Bag, Point3, Named]


def said(deed: Callable[[], Any]) -> str:
    """What it gives, or how it fails; without what is worded by Python."""
    try:
        return repr(deed())
    except Exception as error:
        return type(error).__name__


def uses(made: List[Any]) -> List[str]:
    point, bag, point3, named = made
    return [
        said(deed)
        for deed in (
            lambda: point(1),
            lambda: point(1, 3, ("a",)) == point(1, y=3, tags=("a",)),
            lambda: point(1) == point(2),
            lambda: point(1) == point3(1, 2),
            lambda: point(1).__eq__(3),
            lambda: hash(point(1)) == hash(point(1)),
            lambda: hash(bag("a")),
            lambda: point(),
            lambda: point(1, 2, (), 4),
            lambda: point(1, w=3),
            lambda: point(1, x=3),
            lambda: setattr(point(1), "x", 3),
            lambda: setattr(point(1), "other", 3),
            lambda: delattr(point(1), "x"),
            lambda: bag(""),
            lambda: bag("a", [1, 2]).made,
            lambda: bag("a").items is bag("a").items,
            lambda: bag("a", seen=1) == bag("a", seen=2),
            lambda: bag("a", late=3),
            lambda: bag("a", made=[]),
            lambda: bag("a").late,
            lambda: setattr(bag("a"), "name", "b"),
            lambda: point3(1),
            lambda: point3(1).total,
            lambda: dataclasses.replace(point3(1), z=9),
            lambda: dataclasses.replace(point(1), w=9),
            lambda: dataclasses.asdict(bag("a", [1])),
            lambda: [each.name for each in dataclasses.fields(point3)],
            lambda: named("a") == named("b"),
            lambda: (named("a"), hash(named("a"))),
        )
    ]


def test_it_does_what_the_librarys_does() -> None:
    assert uses(classes(later)) == uses(classes(dataclasses.dataclass))


@pytest.mark.parametrize("which", [0, 2])
def test_its_fields_are_there_before_an_instance_is(which: int) -> None:
    for ask in (dataclasses.fields, dataclasses.is_dataclass):
        ours = classes(later)[which]
        theirs = classes(dataclasses.dataclass)[which]
        assert str(ask(ours)).count("name=") == str(ask(theirs)).count("name=")
        assert repr(ours(1)) == repr(theirs(1))


def test_threads_that_are_the_first_at_once() -> None:
    """Each has its instance, however they meet."""
    for _ in range(50):
        point3 = classes(later)[2]
        start, made = threading.Barrier(4), []

        def make(point3: Any = point3, start: Any = start, made: Any = made) -> None:
            start.wait()
            made.append(point3(1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [(each.x, each.y, each.z) for each in made] == [(1, 5, 3)] * 4


def test_whoever_has_time_makes_them_complete() -> None:
    """All that there are, each once; one that is in use is left as it is."""
    while dataclass.complete_one():
        pass
    made = classes(later)
    assert made[0](1).x == 1
    init = made[0].__init__
    assert sum(1 for _ in iter(dataclass.complete_one, False)) == len(made)
    assert made[0].__init__ is init and uses(made) == uses(classes(dataclasses.dataclass))
    assert not dataclass.complete_one()
