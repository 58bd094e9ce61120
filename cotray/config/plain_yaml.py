"""YAML whose plain words mean what people mean by them, as in YAML 1.2: only `true` and `false` are booleans
(`no`, `off` and dates stay words), and 1e-3 is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))
_TIME = "tag:yaml.org,2002:timestamp"
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag not in (_BOOL, _INT, _FLOAT, _TIME)]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or this loader would not read as a word."""


_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _NUMBER, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """The document's value; None where it is empty. Raises ValueError where it is not YAML."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def dump_yaml(tree: dict[str, Any]) -> str:
    """Text that :func:`parse_yaml` and any YAML 1.1 reader read back alike, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
