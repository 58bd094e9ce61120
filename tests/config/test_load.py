from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cotray.config import (
    PRESETS,
    AbhcConfig,
    Config,
    describe,
    load_config,
    merge,
    parse_override,
    to_yaml,
    validate,
)
from cotray.errors import ConfigError, InvalidValueError, UnknownKeyError, UnknownNameError

LEAVES = {key: default for key, _, default in describe()}


def at(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


# ---- presets ---------------------------------------------------------------------------------------


def test_tiny_is_what_the_tree_defaults_to() -> None:
    assert load_config() == load_config("tiny") == Config()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_load_and_round_trip(preset: str) -> None:
    config = load_config(preset)
    assert config.preset == preset
    assert load_config(yaml_text=to_yaml(config)) == config


def test_presets_say_what_differs_and_leave_the_rest() -> None:
    paper = load_config("paper")
    assert (paper.backbone.layers, paper.backbone.patch, paper.gan.image_size) == (12, 16, 256)
    assert paper.roi == Config().roi
    assert load_config("small").segment.heads == 6


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'tinny'.*Did you mean 'tiny'\?.*paper, small, tiny"):
        load_config("tinny")


def test_the_preset_may_come_from_yaml_or_an_override_and_the_argument_wins() -> None:
    assert load_config(yaml_text="preset: small").backbone.layers == 6
    assert load_config(overrides=["preset=paper"]).backbone.layers == 12
    both = load_config("small", "preset: paper")
    assert both.preset == "small" and both.backbone.layers == 6


# ---- layers ----------------------------------------------------------------------------------------


def test_yaml_overrules_the_preset_and_overrides_overrule_yaml() -> None:
    text = "backbone: {layers: 3, heads: 6}\nseed: 4"
    config = load_config("small", text, ["backbone.layers=4", "backbone.layers=5"])
    assert (config.backbone.layers, config.backbone.heads, config.seed) == (5, 6, 4)
    assert config.backbone.image_size == 160, "the rest stays the preset's"


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("section", ["segment", "gan", "backbone", "hdlc"])
def test_one_setting_of_a_training_leaves_its_others_alone(preset: str, section: str) -> None:
    before = at(load_config(preset), f"{section}.train")
    after = at(load_config(preset, overrides=[f"{section}.train.epochs=3"]), f"{section}.train")
    assert after == before.model_copy(update={"epochs": 3})


def test_the_class_map_is_replaced_whole() -> None:
    text = "dataset: {class_map: {Benign: 0, Early: 1}}"
    assert load_config(yaml_text=text).dataset.class_map == {"Benign": 0, "Early": 1}
    config = load_config(yaml_text=text, overrides=["dataset.class_map={Healthy: 0, Blast: 1}"])
    assert config.dataset.class_map == {"Healthy": 0, "Blast": 1}


def test_merge_leaves_its_inputs_alone() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    over = {"a": {"b": 9}, "e": {"f": 1}}
    assert merge(base, over) == {"a": {"b": 9, "c": 2}, "d": 3, "e": {"f": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3} and over == {"a": {"b": 9}, "e": {"f": 1}}


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5E+4", -2.5e4),
        (".5", 0.5),
        ("7", 7),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1, 2]", [1, 2]),
        ("{Benign: 0}", {"Benign": 0}),
        ("off", "off"),
        ("no", "no"),
        ("none", "none"),
        ("2024-01-31", "2024-01-31"),
        ("12:30", "12:30"),
        ("s3://bucket/a=b", "s3://bucket/a=b"),
        ("'1e-3'", "1e-3"),
        ("[", "["),
    ],
)
def test_override_values_are_read_as_people_mean_them(text: str, value: object) -> None:
    read = parse_override(f" a.b ={text}")
    assert read == {"a": {"b": value}} and type(read["a"]["b"]) is type(value)


def test_words_that_old_yaml_took_for_booleans_are_words() -> None:
    config = load_config(yaml_text="abhc: {when: off}", overrides=["compute.gpu=no", "tracking.enabled=no"])
    assert (config.abhc.when, config.compute.gpu, config.tracking.enabled) == ("off", "no", False)


def test_scientific_numbers_are_numbers_in_yaml_too() -> None:
    assert load_config(yaml_text="grafr: {eps: 1e-5}").grafr.eps == 1e-5


@pytest.mark.parametrize("override", ["backbone.layers", "=3", " =3", ""])
def test_an_override_needs_a_key_and_a_value(override: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config(overrides=[override])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbone.layers=0", "'backbone.layers' cannot be 0"),
        ("backbone.layers=many", "'backbone.layers' cannot be 'many'"),
        ("backbone.train.lr=.inf", "'backbone.train.lr' cannot be inf"),
        ("split.mode=random", "'disjoint' or 'leaky'"),
        ("backbone=3", "'backbone' cannot be 3"),
        ("seed.x=1", "'seed' cannot be"),
        ("dataset.class_map={Benign: ill}", "'dataset.class_map.Benign' cannot be 'ill'"),
        ("gan.image_size=70", "gan.image_size must be a multiple of 16"),
        ("backbone.heads=5", "backbone.heads must divide"),
    ],
)
def test_a_wrong_value_is_named(override: str, words: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        load_config(overrides=[override])
    assert words in str(caught.value) and "--help-text" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["a: [", "- a\n- b", "just words", "a: b: c", "{" * 5000])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="config file"):
        load_config(yaml_text=text)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}"])
def test_an_empty_file_changes_nothing(text: str) -> None:
    assert load_config(yaml_text=text) == Config()


# ---- unknown keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("backbone.layrs", "layers"),
        ("backbon.layers", "backbone"),
        ("dataset.nme", "name"),
        ("segment.train.epoch", "epochs"),
        ("layers", "backbone.layers"),
        ("backbone.epochs", "backbone.train.epochs"),
        ("hdlc.lr", "hdlc.train.lr"),
        ("select.iterations", "sca.iterations"),
        ("backbone.dropuot", "backbone.smod.dropout"),
        ("bootstrp", "evaluate.bootstrap"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_also_elsewhere(key: str, meant: str) -> None:
    with pytest.raises(UnknownKeyError) as caught:
        load_config(overrides=[f"{key}=1"])
    assert f"Did you mean '{meant}'?" in str(caught.value)
    assert f"'{key}'" in str(caught.value) or f"'{key.split('.')[0]}'" in str(caught.value)


def test_a_key_like_no_other_is_answered_with_what_there_is() -> None:
    with pytest.raises(UnknownKeyError, match=r"Valid names: .*blocks_per_cpu"):
        load_config(overrides=["ingest.qqqqqq=1"])


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError):
        load_config(yaml_text="1: 2")


# ---- the tree --------------------------------------------------------------------------------------


def test_the_tree_is_frozen() -> None:
    config = load_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.backbone.train.lr = 1.0


def test_every_setting_has_a_help_text_and_its_true_default() -> None:
    assert len(LEAVES) > 80
    assert [key for key, text, _ in describe() if not text] == []
    wrong = {key for key, default in LEAVES.items() if at(Config(), key) != default}
    assert wrong == set() and LEAVES["segment.train.epochs"] == Config().segment.train.epochs


def test_every_setting_can_be_overridden_by_its_key() -> None:
    tree = Config().model_dump(mode="json")
    for key in LEAVES:
        value = at(Config(), key)
        again = validate(merge(tree, parse_override(f"{key}={to_text(value)}")))
        assert at(again, key) == value, key


def to_text(value: object) -> str:
    if value is None:
        return "null"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def test_every_section_is_described() -> None:
    def count(section: BaseModel) -> int:
        values = [getattr(section, name) for name in type(section).model_fields]
        return sum(count(v) if isinstance(v, BaseModel) else 1 for v in values)

    assert len(LEAVES) == count(Config())


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
TRICKY = st.sampled_from(
    ["no", "off", "null", "~", "1e-3", "007", "1_000", "0x1f", "2024-01-31", "a: b", "'"]
)
FINITE = st.floats(1e-9, 1e9, allow_nan=False)
FRACTION = st.floats(0, 1, allow_nan=False)


@given(
    name=TEXT | TRICKY,
    root=st.none() | TEXT | TRICKY,
    classes=st.dictionaries(TEXT | TRICKY, st.integers(-5, 5), max_size=4),
    regions=st.lists(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), max_size=2),
    multi=st.sampled_from([None, True, False]),
    eps=FINITE,
    k=st.none() | st.integers(1, 10**12),
    when=st.sampled_from(["iteration", "end", "off"]),
    seed=st.integers(0, 2**63),
)
@settings(deadline=None, max_examples=60)
def test_yaml_round_trips(
    name: str,
    root: str | None,
    classes: dict[str, int],
    regions: list[tuple[float, float, float, float]],
    multi: bool | None,
    eps: float,
    k: int | None,
    when: str,
    seed: int,
) -> None:
    tree = {
        "seed": seed,
        "dataset": {"name": name, "root": root, "class_map": classes, "multi_cell": multi},
        "ingest": {"mask_regions": regions},
        "grafr": {"eps": eps, "k": k},
        "abhc": AbhcConfig.model_validate({"when": when}),
    }
    config = validate(tree)
    assert load_config(yaml_text=to_yaml(config)) == config
