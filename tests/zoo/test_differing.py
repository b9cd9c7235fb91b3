"""Which settings set runs of one label apart."""

from __future__ import annotations

from mtl.zoo.settings import differing, settings_text


def test_within_a_label_and_where_one_lacks_a_setting() -> None:
    found = differing(
        ["a", "a", "b"], [{"lr": 1, "seeded": True, "same": 0}, {"lr": 2, "same": 0}, {"lr": 3}]
    )
    assert found == [{"lr": 1, "seeded": True}, {"lr": 2, "seeded": None}, {}]
    assert settings_text(found[0]) == "lr=1, seeded=True"
