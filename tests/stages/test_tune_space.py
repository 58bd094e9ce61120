from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cotray.config import Config, describe, load_config
from cotray.errors import ConfigError, CotrayError, InvalidValueError, UnknownKeyError
from cotray.stages.tune_space import (
    BEFORE,
    SELECTION,
    given_point,
    make_space,
    needs_pipeline,
    parse_spec,
    setting,
    split_spec,
    tidy,
    with_settings,
)

RIGHT = {
    "sca.a=1..4": FloatDistribution(1.0, 4.0),
    " sca.a = 1 .. 4 ": FloatDistribution(1.0, 4.0),
    "abhc.beta_max=1e-3..0.1:log": FloatDistribution(0.001, 0.1, log=True),
    "abhc.beta_max=.001...1:log": FloatDistribution(0.001, 0.1, log=True),
    "sca.agents=10..40": IntDistribution(10, 40),
    "sca.agents=10..40:int": IntDistribution(10, 40),
    "sca.agents=10..40:log:int": IntDistribution(10, 40, log=True),
    "abhc.p=1..4:int": IntDistribution(1, 4),
    "select.max_features=5..10": IntDistribution(5, 10),
    "select.max_features=null,10": CategoricalDistribution([None, 10]),
    "sca.transfer=sigmoid,vshaped,v2": CategoricalDistribution(["sigmoid", "vshaped", "v2"]),
    "sca.greedy=true,false": CategoricalDistribution([True, False]),
    "fitness.soft=0,0.5": CategoricalDistribution([0, 0.5]),
    "backbone.train.lr=1e-4..1e-2:log": FloatDistribution(1e-4, 1e-2, log=True),
}


@pytest.mark.parametrize("text", RIGHT)
def test_a_spec_is_a_range_or_choices_of_the_settings_kind(text: str) -> None:
    assert parse_spec(*split_spec(text), Config()) == RIGHT[text]


WRONG: dict[str, tuple[type[CotrayError], str]] = {
    "sca.agent=1..4": (UnknownKeyError, "Did you mean 'agents'?"),
    "agents=1,2": (UnknownKeyError, "Did you mean 'sca.agents'?"),
    "scaa.agents=1,2": (UnknownKeyError, "Did you mean 'sca'?"),
    "sca=1..4": (InvalidValueError, "'sca'"),
    "sca.agents=1..40": (InvalidValueError, "greater than or equal to 2"),
    "sca.agents=2.5..4": (InvalidValueError, "whole numbers"),
    "sca.a=few..many": (InvalidValueError, "numbers"),
    "sca.a=4..1": (InvalidValueError, "lower number first"),
    "sca.a=1..1": (InvalidValueError, "lower number first"),
    "sca.a=1..inf": (InvalidValueError, "lower number first"),
    "abhc.beta_min=0..0.1:log": (InvalidValueError, "above 0"),
    "sca.a=1..4:lgo": (InvalidValueError, "needs"),
    "sca.transfer=sigmoid": (InvalidValueError, "at least two choices"),
    "sca.transfer=sigmoid,sigmoid": (InvalidValueError, "each choice once"),
    "sca.transfer=sigmoid,": (InvalidValueError, "at least two choices"),
    "sca.transfer=sigmoid,foo": (InvalidValueError, "'foo'"),
    "sca.transfer=1..2": (InvalidValueError, "sca.transfer"),
    "seed=1,2": (InvalidValueError, "cannot be tuned"),
    "split.mode=disjoint,leaky": (InvalidValueError, "cannot be tuned"),
    "hdlc.dropout=0.1..0.2": (InvalidValueError, "cannot be tuned"),
    "select.evaluator=ray,serial": (InvalidValueError, "cannot be tuned"),
    "tune.trials=1..2": (InvalidValueError, "cannot be tuned"),
    "sca.a": (ConfigError, "KEY=1..4"),
    "sca.a=": (ConfigError, "KEY=1..4"),
    "=1..4": (ConfigError, "KEY=1..4"),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_spec_is_refused_with_a_cure(text: str) -> None:
    kind, words = WRONG[text]
    with pytest.raises(kind) as error:
        parse_spec(*split_spec(text), Config())
    assert type(error.value) is kind
    assert words in str(error.value)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_the_default_space_holds_the_settings_given(preset: str) -> None:
    overrides = ["sca.a=7", "abhc.beta_max=0.5", "abhc.beta_min=0", "sca.transfer=s3"]
    for config in (load_config(preset), load_config(preset, None, overrides)):
        space = make_space(config)
        assert {"sca.a", "sca.agents", "sca.transfer", "sca.init", "abhc.p", "abhc.beta_min"} < set(space)
        point = given_point(space, config)
        assert point == {key: setting(config, key) for key in space}
        assert with_settings(config, point) == config


def test_the_default_space_varies_only_what_matters() -> None:
    assert "abhc.steps" not in make_space(Config())
    assert "abhc.steps" in make_space(load_config(overrides=["select.budget=100 evaluations"]))
    assert not any(key.startswith("abhc") for key in make_space(load_config(overrides=["abhc.when=off"])))
    assert set(make_space(load_config(overrides=["select.optimizer=ga"]))) == {"sca.agents", "sca.init"}


def test_settings_outside_of_the_space_are_no_point_of_it() -> None:
    config = load_config(overrides=["tune.search={sca.a: 3..4, sca.init: 'random,ranked'}"])
    assert given_point(make_space(config), config) is None


def test_stages_before_the_selection_are_told_from_it() -> None:
    assert needs_pipeline(["sca.a", "backbone.layers"]) and not needs_pipeline(["sca.a", "fitness.k"])
    sections = {key.split(".")[0] for key, _, _ in describe() if "." in key}
    assert set(SELECTION + BEFORE) <= sections


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(1e-3, 10, allow_nan=False).map(tidy),
    width=st.floats(1e-2, 10).map(tidy),
    share=st.floats(0, 1),
    log=st.booleans(),
)
def test_whatever_lies_in_a_range_is_a_setting(low: float, width: float, share: float, log: bool) -> None:
    high = tidy(low + width)
    found = parse_spec("sca.a", f"{low}..{high}{':log' if log else ''}", Config())
    assert found == FloatDistribution(low, high, log=log)
    value = min(high, max(low, low + share * (high - low)))
    tried: Any = with_settings(Config(), {"sca.a": value, "sca.transfer": "v4"})
    assert tried.sca.a == pytest.approx(value, rel=1e-5)
    assert tried.sca.transfer == "v4" and tried.sca.agents == Config().sca.agents
