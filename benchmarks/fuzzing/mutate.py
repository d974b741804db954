"""Files broken at random: bytes, tokens of their format, and the values of their structure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import yaml

__all__ = ["break_bytes", "break_json", "break_lines", "break_safetensors", "break_toml", "break_yaml"]

# A folder beside the one that is read; nothing in it may ever turn up.
OUTSIDE = "../outside"

_NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, 1e-320, 0.5, float("nan"), float("inf"))
_TEXTS = ("", " ", OUTSIDE, f"{OUTSIDE}.safetensors", f"{OUTSIDE}/model.safetensors", "/etc/passwd", "~nobody/x", "~")
_TEXTS += (
    "a\0b",
    "x" * 5000,
    "\ud800",
    "é漢\u202e",
    "\x1b[31m",
    "{{",
    "a/b",
    "..",
    "none",
    "F64",
    "BF16",
    "F8_E4M3",
    "C64",
)
_TEXTS += ("(", "(a+)+$", "(.*)*x", "weight", "__metadata__", "1e3", "nan", "model+a+b", "U64", "F4")
_OTHERS = (None, True, False, [], {}, [[]], [0, 0], [-1], [2**40, 2**40], {"a": 1}, [None], {"": {}})
_VALUES = (*_NUMBERS, *_TEXTS, *_OTHERS)

_BYTES = (
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\r",
    b"\n\n",
    b"\x80\x04",
    b"PK\x03\x04",
)
_JSON = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b'"\\ud800"',
    b"/**/",
)
_JSON += (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"-0",
    b"01",
    b"'",
    b'{"a": 1, "a": 2}',
    b"GGUF",
    b"version https://git-lfs",
)
_YAML = (
    b"&a [*a]",
    b"*a",
    b"<<: ",
    b"<<: *a",
    b"- ",
    b": ",
    b"? ",
    b"|\n ",
    b"> ",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n---\n",
    b"\t",
)
_YAML += (
    b"!!python/object/apply:os.system ['touch pwned']",
    b"!!binary |\n",
    b"!!set {a}",
    b"!!float x",
    b"!!int 0x",
    b"!x ",
)
_YAML += (
    b"2024-99-99",
    b"2024-01-01",
    b"0o9",
    b"1:99",
    b".inf",
    b".nan",
    b"~",
    b"yes",
    b"=",
    b"{[1]: 2}",
    b"1: 2",
    b"null: 1",
)
_YAML += (b"#", b"@", b"`", b"%", b"\xc2\x85", b"[" * 60, b"{a: " * 60, b"a: &a {b: 1}\n", b"? [a]\n: b\n")
_TOML = (
    b"[a]\n",
    b"[[a]]\n",
    b"=",
    b'"""',
    b"'''",
    b"1979-05-27",
    b"inf",
    b"nan",
    b"a.b = 1\n",
    b"a = 1\n",
    b"[" * 20_000,
    b"0x",
    b"_",
)

_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def break_bytes(draw: Random, data: bytes, tokens: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """Change some bytes: flipped, cut, repeated, replaced by a token of the format or by part of another file."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        data = draw.choice(_EDITS)(draw, data, (*_BYTES, *tokens), others)
    return data


def break_json(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change values of a JSON document, or its bytes."""
    if draw.random() < 0.3:
        return break_bytes(draw, data, _JSON, others)
    return _dumped(draw, _edited(draw, json.loads(data))).encode(errors="surrogatepass")


def break_lines(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change one line of a file of JSON lines, or its bytes."""
    if draw.random() < 0.3:
        return break_bytes(draw, data, _JSON, others)
    lines = data.split(b"\n")
    place = draw.choice([place for place, line in enumerate(lines) if line.strip()])
    lines[place] = break_json(draw, lines[place], others).replace(b"\n", b"")
    return b"\n".join(lines)


def break_yaml(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change values of a YAML document, or its text; now and then as a bomb of references."""
    if draw.random() < 0.01:
        key = draw.choice(list(yaml.safe_load(data)))
        return data + f"\n{_LAUGHS}\n{key}: *a11\n".encode()
    if draw.random() < 0.5:
        return break_bytes(draw, data, (*_YAML, *_JSON[:9]), others)
    return _dumped(draw, _edited(draw, yaml.safe_load(data))).encode(errors="surrogatepass")


def break_toml(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change the text of a TOML document."""
    return break_bytes(draw, data, (*_TOML, *_JSON[:9]), others)


def break_safetensors(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change the header of a safetensors file with its length kept true or not, or any bytes."""
    kind = draw.random()
    length = int.from_bytes(data[:8], "little")
    header, values = data[8 : 8 + length], data[8 + length :]
    if kind < 0.2:
        return break_bytes(draw, data, _JSON, others)
    if kind < 0.3:
        return draw.choice((0, 1, 7, length - 1, length + 1, 2**32, 2**63, 2**64 - 1)).to_bytes(8, "little") + data[8:]
    if kind < 0.5:
        header = break_bytes(draw, header, _JSON)
    else:
        header = _dumped(draw, _retyped(draw, json.loads(header))).encode(errors="surrogatepass")
    told = length if draw.random() < 0.1 else len(header)
    return told.to_bytes(8, "little") + header + draw.choice((values, values, values, values[:-1], values + b"\0", b""))


def _retyped(draw: Random, header: dict[str, Any]) -> Any:
    """A header with other dtypes or shapes of the same size, which may be valid, or with any value changed."""
    if draw.random() < 0.5:
        return _edited(draw, header)
    entry = draw.choice([each for name, each in header.items() if name != "__metadata__"])
    kinds = {8: ("F64", "I64", "U64", "C64"), 4: ("F32", "I32", "U32"), 2: ("BF16", "F16", "I16", "U16")}
    kinds[1] = ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0")
    start, stop = entry["data_offsets"]
    size = draw.choice([size for size in kinds if (stop - start) % size == 0])
    count = (stop - start) // size
    entry["dtype"] = draw.choice(kinds[size])
    entry["shape"] = draw.choice(([count], [1, count, 1], [count // 2, 2], [-1, -count], [count, 1]))
    return header


def _edited(draw: Random, value: Any) -> Any:
    """A document with one to three of its values changed, removed, renamed or swapped."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return deepcopy(draw.choice(_VALUES))
        inside, key = draw.choice(places)
        edit = draw.randrange(5)
        if edit == 0:
            del inside[key]
        elif edit == 1 and isinstance(inside, dict):
            inside[str(draw.choice(_TEXTS))] = inside.pop(key)
        elif edit == 2:
            other, name = draw.choice(places)
            inside[key] = deepcopy(other[name]) if name in _keys(other) else None
        elif edit == 3 and isinstance(inside[key], int | float):
            inside[key] = draw.choice((inside[key] + 1, -inside[key], inside[key] * 8, str(inside[key])))
        else:
            inside[key] = deepcopy(draw.choice(_VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of a document: what it lies in, and its key or index there."""
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value: Any) -> list[Any]:
    """Keys of a mapping, indices of a list, nothing of anything else."""
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def _dumped(draw: Random, value: Any) -> str:
    """The document as text, now and then with a key given twice."""
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, None, 1)))
    if draw.random() < 0.05 and isinstance(value, dict) and value:
        key = draw.choice(list(value))
        text = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(draw.choice(_VALUES))}}}"
    return text


def _flip(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """One bit."""
    place = draw.randrange(len(data) or 1)
    return data[:place] + bytes(byte ^ (1 << draw.randrange(8)) for byte in data[place : place + 1]) + data[place + 1 :]


def _cut(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """The end."""
    return data[: draw.randrange(len(data) + 1)]


def _drop(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """A few bytes."""
    place = draw.randrange(len(data) + 1)
    return data[:place] + data[place + draw.choice((1, 2, 8, 40)) :]


def _repeat(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """A stretch once more, anywhere."""
    start, place = draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)
    return data[:place] + data[start : start + draw.choice((1, 4, 16, 100))] + data[place:]


def _insert(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """A token, in between or in place of what is there."""
    place, token = draw.randrange(len(data) + 1), draw.choice(tokens)
    return data[:place] + token + data[place + draw.choice((0, 0, len(token))) :]


def _splice(draw: Random, data: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """The beginning of this file and the end of another."""
    other = draw.choice(others) if others else data
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


_EDITS: tuple[Callable[[Random, bytes, Sequence[bytes], Sequence[bytes]], bytes], ...] = (
    *(_flip, _cut, _drop, _repeat, _insert, _insert, _splice),
)
