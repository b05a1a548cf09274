"""corpus/personal_data.py: addresses that may be somebody's are masked, and nothing else."""

import pytest

from xlmr_jax.corpus.personal_data import mask


@pytest.mark.parametrize(
  "text, masked",
  [
    ("Mail a.b+c@mail.example.org, or <x@y.de>.", "Mail email@example.com, or <email@example.com>."),
    ("почта@пример.рф и name@host.co.uk.", "email@example.com и email@example.com."),
    ("8.8.8.8, (1.1.1.1:80) http://9.9.9.9/x", "192.0.2.1, (192.0.2.1:80) http://192.0.2.1/x"),
    ("Ende 8.8.8.8. Neu", "Ende 192.0.2.1. Neu"),
    ("2001:4860:4860::8888 und 2a00:1450:4001:81b:1:2:3:200e", "2001:db8::1 und 2001:db8::1"),
  ],
)
def test_addresses_are_masked(text, masked):
  found, counts = mask(text)
  assert found == masked and counts.total() == masked.count("example.com") + masked.count("192.0.2") + masked.count(
    "2001:db8"
  )
  assert mask(found) == (found, counts) or mask(found)[0] == found


@pytest.mark.parametrize(
  "text",
  [
    "10.1.2.3 127.0.0.1 192.168.0.1/24 169.254.1.1 0.0.0.0 255.255.255.255 224.0.0.1",
    "1.2.3.4-beta, 5.4.3.2.1, v1.2.3.4, version 8.8.4.4, 1.2.3.4.5, 999.1.1.1, 8.8.8.08",
    "fe80::1 ::1 fc00::7 12:30:45 std::vector a::b 2001:db8::5",
    "@user foo@bar a@b @ 3.4.5. und Kapitel 1.2.3",
    "",
  ],
)
def test_the_rest_stays(text):
  assert mask(text) == (text, {})


def test_counts_by_kind():
  assert mask("a@b.org 8.8.8.8 2001:4860:4860::8888 c@d.net")[1] == {"email": 2, "ipv4": 1, "ipv6": 1}
