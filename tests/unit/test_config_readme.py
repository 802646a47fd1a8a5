import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from karyon.cohort.configuration import complete_config
from karyon.io.schemas import REPOSITORY, allowed_values, load_schema
from karyon.io.sheets import read_sheet

CONFIG = REPOSITORY / "config"


def keys(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key of the configuration with its dotted path, sections left out."""
    for name, rules in properties.items():
        if rules.get("type") == "object":
            yield from keys(rules["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, rules


def objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for rules in schema["properties"].values():
        if rules.get("type") == "object":
            yield from objects(rules)


def table(first_column: str) -> list[list[str]]:
    """The cells of the README's table whose first column has this name."""
    text = (CONFIG / "README.md").read_text(encoding="utf-8")
    lines = text[text.index(f"| {first_column} |") :].split("\n\n")[0].split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def plain(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)


@pytest.mark.parametrize("name", ["config", "cohort"])
def test_schemas_are_valid_closed_and_describe_every_key(name):
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    for part in objects(schema):
        assert part["additionalProperties"] is False
        for key, rules in part["properties"].items():
            assert len(rules["description"]) > 20, key
            assert ("default" in rules) != (key in part.get("required", []) or rules.get("type") == "object")


@pytest.mark.parametrize("name", ["config", "cohort"])
def test_defaults_are_allowed_by_their_own_schema(name):
    for key, rules in keys(load_schema(name)["properties"]):
        if "default" in rules:
            assert Draft202012Validator(rules).is_valid(rules["default"]), key


def test_the_readme_has_every_key_with_its_default_limits_and_meaning():
    expected = []
    for key, rules in keys(load_schema("config")["properties"]):
        default = f"`{plain(rules['default'])}`" if "default" in rules else "required"
        expected.append([f"`{key}`", default, allowed_values(rules), rules["description"]])
    assert table("key") == expected


def test_the_readme_has_every_column_with_its_aliases_default_limits_and_meaning():
    schema = load_schema("cohort")
    expected = []
    for column, rules in schema["properties"].items():
        aliases = ", ".join(f"`{alias}`" for alias in rules.get("x-aliases", []))
        empty = f"`{rules['default']}`" if rules.get("default") else "none"
        empty = "the file's own value" if column == "mpp" else empty
        empty = "an error: required" if column in schema["required"] else empty
        expected.append([f"`{column}`", aliases, empty, allowed_values(rules), rules["description"]])
    assert table("column") == expected


def test_config_yaml_has_every_default_and_says_what_the_schema_says():
    text = (CONFIG / "config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config == complete_config({"cohort": "my_cohort", "sheet": "config/cohorts/my_cohort.tsv"})
    comments = re.sub(r"\s+", " ", re.sub(r"^ *#", "", text, flags=re.MULTILINE))
    for key, rules in keys(load_schema("config")["properties"]):
        name = key.rsplit(".")[-1]
        assert f"{rules['description']} Allowed: {allowed_values(rules)}. {name}:" in comments


def test_the_readmes_overlay_is_a_valid_configuration():
    text = (CONFIG / "README.md").read_text(encoding="utf-8")
    overlay = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    complete = complete_config(overlay)
    assert complete["evaluate"]["radii_um"] == [4.0, 2.0]
    assert complete["nuclei"] == {"threshold": None, "csv": False, "geojson": True, "mask": False}


def test_the_example_sheet_is_the_readmes_and_has_no_mistakes_but_its_missing_files():
    path = CONFIG / "cohorts" / "example.tsv"
    assert path.read_text(encoding="utf-8") in (CONFIG / "README.md").read_text(encoding="utf-8")
    frame = read_sheet(path, check_files=False)
    assert frame["slide_id"].tolist() == ["breast_01", "breast_02", "bladder_ki67"]
