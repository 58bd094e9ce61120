from __future__ import annotations

import pickle
import re

import pytest

from cotray import errors
from cotray.errors import CotrayError, DecodeError, UnknownKeyError, nearest

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CotrayError)]


def test_the_message_says_what_where_and_how_to_cure_it() -> None:
    error = DecodeError("This file is truncated.", where="a/b.png", cure="Copy it again.")
    assert str(error) == "This file is truncated. [a/b.png] Copy it again."
    assert (error.what, error.where, error.cure) == ("This file is truncated.", "a/b.png", "Copy it again.")


def test_where_and_cure_may_be_absent() -> None:
    assert str(DecodeError("This file is truncated.")) == "This file is truncated."
    assert str(DecodeError("Bad.", cure="Mend it.")) == "Bad. Mend it."
    assert DecodeError("Bad.", where=7).where == "7"


@pytest.mark.parametrize("kind", TREE)
def test_errors_survive_the_way_between_processes(kind: type[CotrayError]) -> None:
    error = kind("What.", where="where", cure="Cure.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) == "What. [where] Cure."
    assert (again.what, again.where, again.cure) == (error.what, error.where, error.cure)


@pytest.mark.parametrize("kind", TREE)
def test_every_error_ends_the_command_with_2(kind: type[CotrayError]) -> None:
    assert kind("x").exit_code == 2


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    trail: dict[int, str] = {}
    for prefix, name in re.findall(r"^    ([|` -]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE):
        trail[len(prefix)] = name
        drawn[name] = trail.get(len(prefix) - 4, "Exception")
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in TREE}


def test_nearest_names_what_is_close_and_what_is_valid() -> None:
    assert nearest("tinny", ["tiny", "small"]) == "Did you mean 'tiny'? Valid names: small, tiny."
    assert nearest("xyz", iter(["tiny", "small"])) == "Valid names: small, tiny."


def test_an_error_can_be_caught_by_any_of_its_ancestors() -> None:
    with pytest.raises(errors.ConfigError):
        raise UnknownKeyError("x")
    assert issubclass(UnknownKeyError, CotrayError) and not issubclass(UnknownKeyError, errors.DataError)
