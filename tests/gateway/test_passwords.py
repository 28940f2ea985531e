"""Which passwords are refused."""

import pytest

from app import passwords
from app.errors import Problem


@pytest.mark.parametrize(
    "password",
    [
        *("12345678", "87654321", "password", "Password1", "P@ssw0rd!", "password2024", "qwertyui"),
        *(
            "iloveyou1",
            "letmein!!",
            "abcdefgh",
            "zxcvbnm1",
            "1q1q1q1q",
            "Admin123!",
            "qwerty123456",
        ),
        *("dora.long", "dora.long@example.org", "short", "x" * 300),
    ],
)
def test_what_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(Problem) as refused:
        passwords.check(password, "dora.long@example.org")
    assert refused.value.code == "weak_password"


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "password of nobody else",
        "test 83647193 55",
        "ärger im büro",
        "🐎" * 3 + "12345",
    ],
)
def test_what_is_not_is_taken(password: str) -> None:
    passwords.check(password, "dora@example.org")
