import pytest
from pydantic import Field

from diptych.core.config import Config
from diptych.core.errors import UserError, nearest, unknown


class Sample(Config):
    lr: float = Field(default=1e-3, gt=0)
    blocks: tuple[int, ...] = (1, 1)
    name: str = "vit"
    rates: dict[str, float] = Field(default={})


def test_words_become_values():
    config = Sample.parse({"lr": "3e-4", "blocks": "2, 2,3", "name": "a,b"})
    assert config == Sample(lr=3e-4, blocks=(2, 2, 3), name="a,b")
    assert Sample.parse({"blocks": "(4,)"}).blocks == (4,)
    assert Sample.parse({"blocks": [5]}).blocks == (5,)
    for typed in ("words: 0,reward:5e-2", '{"words": 0, "reward": 0.05}'):
        assert Sample.parse({"rates": typed}).rates == {"words": 0.0, "reward": 0.05}
    assert Sample.parse({"rates": "{}"}).rates == {}
    assert Sample.parse({"rates": {"a": 1}}).rates == {"a": 1.0}


def test_a_mapping_that_is_none_says_how_to_type_one():
    with pytest.raises(UserError, match=r"setting rates='reward=3' is not valid: give names .* such as rates=a:1,b:2"):
        Sample.parse({"rates": "reward=3"})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown setting 'blcks'; did you mean 'blocks'"):
        Sample.parse({"blcks": 1})


@pytest.mark.parametrize(("name", "value"), [("lr", "fast"), ("lr", 0), ("blocks", "1,x")])
def test_a_value_out_of_range_names_the_setting(name, value):
    with pytest.raises(UserError, match=f"setting {name}"):
        Sample.parse({name: value})


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Sample().lr = 1.0


def test_a_long_list_is_left_out_beside_a_suggestion_and_a_short_one_given():
    many = [f"setting{i}" for i in range(30)]
    assert "allowed" not in str(unknown("setting", "seting3", many))
    assert "(allowed: a, b)" in str(unknown("letter", "c", ["b", "a"]))
    assert nearest("zzz", ["clip"]) == ""
