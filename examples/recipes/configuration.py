"""Configuration that several people and programs change: no change is lost, none is a surprise.

python examples/recipes/configuration.py
"""

from __future__ import annotations

from typing import Any

from persidict import ETAG_IS_THE_SAME, FileDirDict


def main() -> None:
    """Change one setting without losing others', and refuse to overwrite what one has not seen."""
    settings = FileDirDict[dict[str, Any]](base_dir="settings", serialization_format="json")
    settings["service"] = {"workers": 4, "log_level": "INFO"}

    # a program changes one setting: computed again if somebody was faster
    def more_workers(current: dict[str, Any]) -> dict[str, Any]:
        return {**current, "workers": current["workers"] + 1}

    settings.transform_item("service", transformer=more_workers)

    # a person has the settings open in an editor ...
    seen = settings.get_with_etag("service")
    edited = {**seen.new_value, "log_level": "DEBUG"}

    # ... while somebody else changes them
    settings["service"] = {**settings["service"], "region": "north"}

    saved = settings.set_item_if(
        "service", value=edited, condition=ETAG_IS_THE_SAME, expected_etag=seen.actual_etag
    )
    assert not saved.condition_was_satisfied
    print("not saved; there is now:", saved.new_value)


if __name__ == "__main__":
    main()
