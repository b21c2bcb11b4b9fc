"""Makes reos/auth/common_password_variants.txt.gz: well-known passwords that meet the policy.

Lists of common passwords come from breaches of services without a policy, so they hold few entries with a
capital, a digit and a special character. People who are asked for those take a common word and do the
expected things to it. This writes them down: frequent words, their usual letter-for-sign swaps, and the usual
endings, in lower case (the comparison ignores case). The output depends on nothing but this file and the list
beside it.
"""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path

AUTH = Path(__file__).parent.parent / "reos" / "auth"
MIN_LENGTH = 8
WORDS_FROM_LIST = 150

WORDS = """
password passwort pass passwd welcome admin administrator login letmein changeme secret master default temp
temporary guest user test testing hello summer winter spring autumn january february march april june july august
september october november december monday tuesday wednesday thursday friday saturday sunday london paris berlin
newyork chicago america realestate property broker realtor homes house company office manager system server
support service computer internet football baseball soccer basketball qwerty qwertz azerty asdf abcd dragon monkey
princess sunshine superman batman starwars pokemon iloveyou jesus freedom whatever trustno internet google
facebook microsoft windows linux oracle cisco root super database access security
"""

FIXED = """
1qaz@wsx 1qaz!qaz !qaz2wsx !qaz1qaz zaq1@wsx zaq!2wsx zaq1!qaz 1qaz2wsx! 1q2w3e4r! 1q2w3e4r5t! 1q2w3e! q1w2e3r4! q1w2e3!
q1w2e3r4t5! qwe123!@# qwer123! qwer1234! qwer!234 qwer1234@ qwert123! qwerty!@#123 asd123!@# asdf123! asdf1234! zxc123!@#
zxcv1234! abc123!@# abc@1234 abc123!! abc!1234 abc@123! abcd123! abcd@1234 abcd1234! abcd1234@ abcd1234# abcd!234
a1b2c3d4! a1b2c3! aa123456! aa123456@ aa@123456 aa!123456 a123456! a123456@ a@123456 a12345678! 1234abcd! 1234@abcd
12345aa! 123456aa! 123456a@ 123456aa@ 123qwe!@# 123qwe!! 123qweasd! 1234qwer! 123abc!! pa$$w0rd pa$$w0rd1 pa$$w0rd! pa$$word1
p@$$w0rd p@$$w0rd1 p@$$w0rd! p@$$word1 p@ssw0rd p@ssw0rd1 p@ssw0rd! p@55w0rd p@55word p@55w0rd! p4$$w0rd p4$$word
trustno1! trustn01! ch@ngeme1 ch@ng3m3 ch4ngem3! l3tm31n! letme1n! le7mein! w3lc0me! w3lcome! w3lc0m3! 4dm1n123! @dm1n123
r00tr00t! t3mp123! t3st123! s3cr3t123! s3cur1ty! m@ster123 h3ll0w0rld! hell0w0rld! helloworld1! iloveyou2! ilov3you! 1loveyou!
"""

DIGITS = "1 2 3 12 123 1234 12345 01 11 2020 2021 2022 2023 2024 2025 2026 2027"
SIGNS = "! @ # $ * . ? !!"
SIGNS_BEFORE_DIGITS = "! @ # $"
SHORT_ENDINGS = "1 12 123 1234 ! 1! 12! 123! 1234! @1 @123 #1 2024! 2025! 2026! 2027!"
SWAPS = (("a", "@"), ("o", "0"), ("ao", "@0"), ("e", "3"), ("i", "1"), ("s", "$"), ("aso", "@$0"))


def common_words() -> list[str]:
    """Our own words and the list's most frequent ones that are made of letters alone."""
    lines = gzip.decompress((AUTH / "common_passwords.txt.gz").read_bytes()).decode().splitlines()
    frequent = [line for line in lines if len(line) >= 4 and line.isascii() and line.isalpha()]
    return list(dict.fromkeys([*WORDS.split(), *frequent[:WORDS_FROM_LIST]]))


def variants(words: list[str]) -> set[str]:
    endings = [*product(DIGITS.split(), SIGNS.split()), *product(SIGNS_BEFORE_DIGITS.split(), DIGITS.split())]
    found = set(FIXED.split())
    found.update(word + first + last for word in words for first, last in endings)
    for word, swaps, ending in product(words, SWAPS, ["", *SHORT_ENDINGS.split()]):
        found.add(word.translate(str.maketrans(*swaps)) + ending)
    return {password for password in found if meets_policy(password)}


def meets_policy(password: str) -> bool:
    """Whether some spelling with capitals meets the default policy: two letters, a digit and a sign."""
    letters = sum(c.isalpha() for c in password)
    has_digit = any(c.isdigit() for c in password)
    return len(password) >= MIN_LENGTH and letters >= 2 and has_digit and not password.isalnum()


def main() -> None:
    text = "".join(f"{password}\n" for password in sorted(variants(common_words())))
    (AUTH / "common_password_variants.txt.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
