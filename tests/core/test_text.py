from hypothesis import given
from hypothesis import strategies as st

from countermark.core.text import printable


@given(st.text())
def test_whatever_is_shown_is_printable_and_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_escapes_and_bidirectional_marks_become_visible() -> None:
    assert printable("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u202ec\\n"
    assert printable("猫.png") == "猫.png"
