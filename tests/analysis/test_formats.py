"""Numbers as the commands print them."""

from __future__ import annotations

import pytest

from exporter.analysis.formats import percent


@pytest.mark.parametrize(
    ("part", "text"), [(0.0, "0%"), (-1e-3, "0%"), (4e-3, "0%"), (-0.5, "-50%"), (0.995, "100%"), (1.25, "125%")]
)
def test_a_share_never_has_a_sign_of_nothing(part: float, text: str) -> None:
    assert percent(part, 1.0) == text


def test_a_share_of_nothing_is_none() -> None:
    assert percent(0.0, 0.0) == ""
