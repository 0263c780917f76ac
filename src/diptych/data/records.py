"""Reads csv, tsv, jsonl and json files as records: a place for people, and values by column."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from diptych.core.errors import UserError
from diptych.data.formats import PICTURE_SUFFIXES

Record = tuple[str, Mapping[str, Any]]
Complain = Callable[[str, str], None]

_LONGEST_CELL = 2**20


def read_csv(path: Path, complain: Complain) -> Iterator[Record]:
    """Read a table with a header line, its cells parted by commas, semicolons, tabs or bars, whichever it has most of.

    Args:
        path: the file; `.gz` is unpacked.
        complain: takes the place and nature of each line that is left out.

    Raises:
        UserError: for a file without a header.
    """
    with _text(path) as stream:
        header = stream.readline()
        delimiter = max(",;\t|", key=lambda sign: _outside_quotes(header).count(sign))
        names = _header(next(csv.reader([header], delimiter=delimiter), []), path)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        while True:
            begun = reader.line_num + 2  # of the line to come; the header is line 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f"line {begun}" if reader.line_num < begun else f"lines {begun} to {reader.line_num + 1}"
                complain(f"{path.name} {lines}", f"not readable as csv ({error}); is a quote left open?")
                continue
            yield from _record(path, begun, names, cells, complain)


def read_tsv(path: Path, complain: Complain) -> Iterator[Record]:
    """Read a table with a header line and tabs; every line is a record, and a quote within a cell is a quote.

    Raises:
        UserError: for a file without a header.
    """
    with _text(path) as stream:
        names = _header(_tab_cells(stream.readline()), path)
        for number, line in enumerate(stream, start=2):
            cells = _tab_cells(line)
            yield from _record(path, number, names, cells, complain)


def read_jsonl(path: Path, complain: Complain) -> Iterator[Record]:
    """Read one JSON object a line."""
    with _binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{path.name} line {number}"
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not line:
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                complain(place, _not_utf8(error.object[error.start]))
            except ValueError as error:
                complain(place, f"not a JSON object: {error}")
            else:
                if isinstance(record, dict):
                    yield place, record
                else:
                    complain(place, f"a JSON object was expected, not {type(record).__name__}")


def read_json(path: Path, complain: Complain) -> Iterable[Record]:
    """Read a JSON file: COCO captions, Karpathy's splits, a list of objects, or captions by picture.

    Raises:
        UserError: for JSON that is none of these, or no JSON.
    """
    with _binary(path) as stream:
        data = stream.read()
    try:
        whole = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is {_not_utf8(error.object[error.start])}") from None
    except ValueError as error:
        if "Extra data" in str(error):
            return read_jsonl(path, complain)
        raise UserError(f"{path.name} is not valid JSON: {error}") from None
    if isinstance(whole, dict) and isinstance(whole.get("images"), list):
        return _coco(path, whole, complain)
    if isinstance(whole, list) and all(isinstance(item, dict) for item in whole):
        return ((f"{path.name} item {place + 1}", item) for place, item in enumerate(whole))
    if isinstance(whole, dict) and all(isinstance(value, str | list) for value in whole.values()):
        return ((f"{path.name} {key}", {"image": key, "captions": value}) for key, value in whole.items())
    raise UserError(
        f"{path.name} is no JSON that holds captions; allowed are COCO (images and annotations), a list of objects, "
        f"or captions by picture"
    )


def _coco(path: Path, whole: Mapping[str, Any], complain: Complain) -> Iterator[Record]:
    captions: dict[Any, list[str]] = {}
    for annotation in whole.get("annotations", []):
        if "caption" in annotation:
            captions.setdefault(annotation.get("image_id"), []).append(str(annotation["caption"]))
    known = set()
    for image in whole["images"]:
        name = image.get("file_name") or image.get("filename")
        place = f"{path.name} image {image.get('id', image.get('imgid', name))}"
        if not name:
            complain(place, "it has no file_name")
            continue
        known.add(image.get("id"))
        folder = image.get("filepath")  # in Karpathy's form
        record: dict[str, Any] = {"image": f"{folder}/{name}" if folder else name}
        own = [sentence.get("raw", "") for sentence in image.get("sentences", [])]
        record["captions"] = captions.get(image.get("id"), []) + own
        if "split" in image:
            record["split"] = image["split"]
        yield place, record
    for stray in captions.keys() - known:
        complain(f"{path.name} image_id {stray}", "captions of a picture that is not in the list of images")


def _header(names: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in names]
    if not any(names):
        raise UserError(f"{path.name} is empty; its first line should name the columns, such as image,caption")
    if Path(names[0].split("#")[0]).suffix.lower() in PICTURE_SUFFIXES:
        raise UserError(
            f"the first line of {path.name} looks like data ({names[0]!r}); put a line with the names of the columns "
            f"before it, such as image,caption"
        )
    return [name or f"column_{place + 1}" for place, name in enumerate(names)]


def _record(path: Path, number: int, names: list[str], cells: list[str], complain: Complain) -> Iterator[Record]:
    place = f"{path.name} line {number}"
    if not any(cell.strip() for cell in cells):
        return
    bad = next((sign for cell in cells for sign in cell if "\udc80" <= sign <= "\udcff"), None)
    if bad is not None:
        complain(place, _not_utf8(ord(bad) - 0xDC00))
    elif len(cells) != len(names):
        complain(place, f"it has {len(cells)} cells where the header has {len(names)}; does a text need quotes?")
    elif max(map(len, cells)) > _LONGEST_CELL:
        complain(place, f"a cell of more than {_LONGEST_CELL:,} characters; is a quote left open?")
    else:
        yield place, dict(zip(names, cells, strict=True))


def _not_utf8(byte: int) -> str:
    return f"not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"


def _tab_cells(line: str) -> list[str]:
    """Part a line at its tabs; a cell is quoted only when the quotes hold all of it."""
    cells = re.findall(r'("(?:[^"]|"")*"|[^\t]*)(?:\t|$)', line.rstrip("\r\n") + "\t")[:-1]
    return [cell[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', cell) else cell for cell in cells]


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _text(path: Path) -> io.TextIOWrapper:
    with _binary(path) as stream:
        wide = stream.read(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if wide else "utf-8-sig"
    # bytes that are not UTF-8 come through as lone surrogates, so that only their lines are left out
    return io.TextIOWrapper(
        cast("io.BufferedReader", _binary(path)), encoding=encoding, errors="surrogateescape", newline=""
    )
