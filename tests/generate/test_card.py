"""Every discovered generator, without naming it."""

from __future__ import annotations

import pytest

from normscan.errors import ConfigError, UsageError
from normscan.generate import generator, names


@pytest.mark.parametrize("name", names())
def test_the_card(name: str) -> None:
    card = generator(name)
    assert card.name == name
    assert card.paper
    assert set(card.config.presets) == {"paper", "small"}
    for preset in card.config.presets:
        card.config.preset(preset)
    card.config.parse(card.tiny)
    card.options.parse({})
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        card.config.parse({"sed": 1})
    with pytest.raises(UsageError):
        card.sources(None, None)


def test_an_unknown_generator() -> None:
    with pytest.raises(UsageError, match=r"'singam' does not exist; did you mean 'singan'"):
        generator("singam")
    with pytest.raises(UsageError, match="there are: "):
        generator("x")
