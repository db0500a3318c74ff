"""The schema: unknown names are errors with the nearest right one; text settings are read as YAML."""

import pytest

from langevin.config import parse, read_yaml, with_settings, write_yaml
from langevin.errors import UsageError

DATA = {"data": {"path": "x"}}


def test_unknown_setting_names_place_and_nearest(tmp_path):
    file = tmp_path / "photos.yaml"
    file.write_text("data: {path: x}\noptimizer: {lrr: 1e-3}\n")
    with pytest.raises(UsageError) as caught:
        parse(read_yaml(file), where=str(file))
    assert "unknown setting `optimizer.lrr`" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "did you mean `optimizer.lr`?" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("optimizer.lr", "-1", "greater than 0"),
        ("batch", "zero", "must be a whole number, not 'zero'"),
        ("batch", "true", "must be a number, not True"),
        ("steps", "1e300", "is too large"),
        ("steps", "100000000000000000", "less than or equal to"),
        ("minutes", ".inf", "must be a finite number, not inf"),
        ("optimizer.lr", "1e400", "must be a finite number, not inf"),
        ("optimizer.betas", "[0.9, .nan]", "`optimizer.betas.1`"),
        ("private.noise", "1e-320", "greater than or equal to 0.01"),
        ("channels_last", "1.5", "must be true or false or 'auto', not 1.5"),
        ("sampling.solver", "[1, 2]", "must be text or a mapping of settings, not [1, 2]"),
        ("optimizer", ".inf", "must be a mapping of settings, not inf"),
        ("data", "{size: 8}", "`data.path` is missing"),
        ("dropout", "1.5", "less than 1"),
        ("data.fit", "stretch", "'crop', 'pad' or 'skip'"),
    ],
)
def test_values_out_of_range_are_named(setting, value, said):
    with pytest.raises(UsageError) as caught:
        parse(with_settings(DATA, {setting: value}))
    assert f"`{setting}" in str(caught.value)
    assert said in str(caught.value)


def test_minutes_and_steps_are_one_budget():
    with pytest.raises(UsageError, match="minutes or steps"):
        parse({**DATA, "minutes": 1, "steps": 5})


def test_settings_are_laid_over_and_yaml_round_trips(tmp_path):
    config = parse(with_settings(DATA, {"optimizer.lr": "1e-3", "network": "{name: unet, widths: [8]}", "batch": "7"}))
    assert config.optimizer.lr == 1e-3
    assert config.network == {"name": "unet", "widths": [8]}
    assert DATA == {"data": {"path": "x"}}
    (tmp_path / "c.yaml").write_text(write_yaml(config))
    assert parse(read_yaml(tmp_path / "c.yaml")) == config


def test_a_folder_is_no_file_of_settings(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_yaml_that_would_build_objects_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("!!python/object/apply:os.system [touch ran]")
    with pytest.raises(UsageError):
        read_yaml(tmp_path / "c.yaml")


def test_an_unbounded_gradient_may_be_asked_for():
    assert parse(with_settings(DATA, {"optimizer.clip": ".inf"})).optimizer.clip == float("inf")
