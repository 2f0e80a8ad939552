"""Files of rows that are hostile, broken or no files at all; rows that come back as they were."""

import gzip
import json
import os
import socket
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Json, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from prefsearch.cli import entry
from prefsearch.storage import text_files
from rewardmodel.cli.models import load_responses
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_demonstrations, load_preferences, load_prompts
from rewardmodel.data.rankings import load_rankings
from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.data.sources import csv_rows, json_rows
from rewardmodel.data.sources.files import read_file
from rewardmodel.data.steps import load_steps
from rewardmodel.models.verifiers import load_references

GOOD = '{"prompt": "good"}\n'
MIB = 2**20
GzipOf = Callable[[bytes], bytes]


def save(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return path


def refused(path: Path | str, load: Callable[..., Any] = load_prompts, **options: Any) -> str:
    with pytest.raises(PreferenceDataError) as caught:
        load(path, **options)
    return str(caught.value)


BAD_JSON = {
    "surrogate": r'{"prompt": "a\ud800b"}',
    "surrogate in a name": r'{"prompt": "a", "\udfff": 1}',
    "surrogate deep down": r'{"prompt": "a", "more": [{"x": ["\udc00"]}]}',
    "NUL": r'{"prompt": "a\u0000"}',
    "key twice": '{"prompt": "a", "prompt": "b"}',
    "key twice inside": '{"prompt": "a", "more": {"x": 1, "x": 1}}',
    "NaN": '{"prompt": "a", "x": NaN}',
    "infinity": '{"prompt": "a", "x": [-Infinity]}',
    "beyond floats": '{"prompt": "a", "x": 1e999}',
    "too many digits": '{"prompt": "a", "x": ' + "7" * 5000 + "}",
    "deep": '{"prompt": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep enough to parse": '{"prompt": "a", "x": ' + "[" * 300 + "]" * 300 + "}",
    "raw control character": '{"prompt": "a\x0b"}',
    "not an object": '["prompt"]',
}


@pytest.mark.parametrize("line", BAD_JSON.values(), ids=BAD_JSON)
def test_json_line_without_one_meaning_is_a_bad_row_with_its_line(
    line: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "p.jsonl", f"{GOOD}{line}\n{GOOD}")
    assert refused(path).startswith(f"{path}:2: ")
    assert load_prompts(path, on_bad_row="skip") == ["good", "good"]


# Where an element ends, the reader does not know of one that it cannot read at all.
@pytest.mark.parametrize("name", sorted(set(BAD_JSON) - {"deep", "raw control character"}))
def test_element_of_a_json_list_without_one_meaning_is_a_bad_row_with_its_line(
    name: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "p.json", f"[{GOOD},\n\n{BAD_JSON[name]},\n{GOOD}]\n")
    place = r"\[1\]" if name == "not an object" else ":4"
    with pytest.raises(PreferenceDataError, match=rf"p\.json{place}: "):
        load_prompts(path)
    assert load_prompts(path, on_bad_row="skip") == ["good", "good"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"prompt": "good"},\n' + "[" * 100_000, ":2: .*nested too deep"),
        ('[{"prompt": "good"},\n{"prompt":', ":2: not JSON"),
        ('[{"prompt": "good"}\n{"prompt": "b"}]', r":2: not JSON \('{' in place of ','"),
        ('[{"prompt": "good"},\n]', ":2: not JSON"),
        ('[{"prompt": "good"}\n] [', ":2: not JSON .*behind the list"),
        ('[{"prompt": "good"}\n', ":2: not JSON .*the end of the file"),
        ('[{"prompt": "good"},\n{"prompt": "a\x0b"}]', ":2: not JSON"),
    ],
)
def test_json_list_that_breaks_off_names_the_line_and_keeps_what_is_before(
    text: str, place: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "p.json", text)
    with pytest.raises(PreferenceDataError, match=rf"p\.json{place}"):
        load_prompts(path)
    assert load_prompts(path, on_bad_row="skip") == ["good"]


def test_json_list_is_read_in_pieces_that_cut_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"{i} ü 中 \u2028 😀 \"' \\ \n" * (i % 7 + 1), "n": -i} for i in range(60)]
    path = save(tmp_path / "p.json", "\ufeff " + json.dumps(rows, ensure_ascii=False, indent=1))
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_rows, "_CHUNK_BYTES", size)
        assert [row for _, row in read_file(path)] == rows


@pytest.mark.parametrize(
    ("name", "data", "kept"),
    [
        ("p.txt", b"a\nb\xff\nc\n", ["a", "c"]),
        ("p.txt", b"a\nb\0\nc\n", ["a", "c"]),
        ("p.csv", b"prompt\nb\xff\nc\n", ["c"]),
        ("p.csv", b"prompt\nb\0\nc\n", ["c"]),
        ("p.csv", b'prompt,other\n"b"x,1\nc,2\n', ["c"]),
        ("p.csv", b"prompt,other\nb\nc,2\n", ["c"]),
        ("p.csv", b"prompt,other\nb\rx,1\nc,2\n", ["c"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xed\xa0\x80"}\n', ["a"]),
        ("p.json", b'[{"prompt": "a"},\n{"prompt": "\xff"}]', ["a"]),
    ],
)
def test_bytes_that_are_no_text_are_a_bad_row_with_its_line(
    name: str, data: bytes, kept: list[str], tmp_path: Path
) -> None:
    path = save(tmp_path / name, data)
    found = refused(path)
    assert found.startswith(f"{path}:2: ")
    if name != "p.json":  # read in pieces: a bad byte is a lone surrogate there
        assert ("not UTF-8" in found) == (b"\xff" in data or b"\xed" in data)
    assert load_prompts(path, on_bad_row="skip") == kept


def test_parquet_and_saved_datasets_hold_bad_texts_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["good", "a\0"]}), tmp_path / "p.parquet")
    assert refused(tmp_path / "p.parquet").startswith(f"{tmp_path}/p.parquet[1]: 'prompt' holds")
    assert load_prompts(tmp_path / "p.parquet", on_bad_row="skip") == ["good"]
    pq.write_table(pa.table([["a"], ["b"]], names=["prompt", "prompt"]), tmp_path / "two.parquet")
    assert "two.parquet: column 'prompt' is there more than" in refused(tmp_path / "two.parquet")
    messages = [[{"role": "user", "content": text}] for text in ("good", "\0")]
    saved = Dataset.from_dict({"prompt": messages}, features=Features({"prompt": List(Json())}))
    saved.save_to_disk(tmp_path / "saved")
    message = refused(tmp_path / "saved", keep_messages=True)
    assert "saved[1]: 'prompt'[0]['content'] holds a NUL character" in message
    assert len(load_prompts(tmp_path / "saved", keep_messages=True, on_bad_row="skip")) == 1


ROWS: dict[Callable[..., Any], dict[str, Any]] = {
    load_preferences: {"prompt": "a", "chosen": "b", "rejected": "c"},
    load_demonstrations: {"prompt": "a", "completion": "b"},
    load_rankings: {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2]},
    load_references: {"prompt": "a", "answer": "b"},
    load_steps: {"prompt": "a", "completions": ["b"], "labels": [1.0]},
    load_responses: {"prompt": "a", "responses": ["b"], "tools": '[{"name": "x"}]'},
}


@pytest.mark.parametrize("load", ROWS, ids=lambda load: load.__name__)
@pytest.mark.parametrize("bad", ["\ud800", "\0"])
def test_every_loader_refuses_a_bad_text_in_any_field(
    load: Callable[..., Any], bad: str, tmp_path: Path
) -> None:
    good = ROWS[load]
    for name, value in good.items():
        if not isinstance(value, str | list):
            continue
        worse = [bad, *value[1:]] if isinstance(value, list) else value + bad
        lines = [json.dumps(row) for row in (good, {**good, name: worse})]
        path = save(tmp_path / "p.jsonl", "\n".join(lines))
        with pytest.raises(PreferenceDataError, match=r"p\.jsonl:2: "):
            load(path)
        assert len(load(path, on_bad_row="skip")) == 1


@pytest.mark.parametrize(
    "column",
    [
        r'[{"role": "user", "content": "\ud800"}]',
        '[{"role": "user", "content": "a", "content": "b"}]',
        r'[{"role": "user", "role\ud800": "user", "content": "b"}]',
    ],
)
def test_messages_in_the_json_text_of_a_column_are_read_as_strictly(
    column: str, tmp_path: Path
) -> None:
    table = pa.table({"prompt": ["good", column]})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(PreferenceDataError, match=r"p\.parquet\[1\]: the text .*messages as JSON"):
        load_prompts(tmp_path / "p.parquet", keep_messages=True)


def test_text_that_merely_looks_like_json_stays_text(tmp_path: Path) -> None:
    texts = ['[{"a": NaN}] is no JSON', '[{"a": NaN}]', "[{" * 5000, '[{"a": 1, "a": 2}]']
    path = save(tmp_path / "p.jsonl", "".join(json.dumps({"prompt": t}) + "\n" for t in texts))
    assert load_prompts(path) == texts


def test_tools_in_json_text_are_read_as_strictly(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}]
    for tools in ('[{"name": "x", "name": "y"}]', "[" * 50_000, "[" + "9" * 5000 + "]", "[NaN]"):
        row = {"prompt": messages, "tools": tools}
        path = save(tmp_path / "p.jsonl", json.dumps(row))
        with pytest.raises(PreferenceDataError, match=r"p\.jsonl:1: column 'tools' holds str"):
            load_prompts(path, keep_messages=True)


NUMBERS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (load_preferences, {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1}),
    (load_preferences, {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_probability": 1}),
    (load_preferences, {"prompt": "a", "chosen": "b", "rejected": "c", "confidence": 1}),
    (load_rankings, {"prompt": "a", "responses": ["b", "c"], "scores": [2, 1]}),
    (load_rankings, {"prompt": "a", "responses": ["b", "c"], "ranks": [2, 1]}),
    (load_references, {"prompt": "a", "answer": 1}),
    (load_steps, {"prompt": "a", "completions": ["b"], "labels": [1]}),
    (load_demonstrations, {"prompt": "a", "completion": "b", "finished": 1}),
    (load_responses, {"prompt": "a", "response": "b", "more": 1}),
]


@pytest.mark.parametrize(("load", "good"), NUMBERS)
@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 4000, "1e400", "2" * 309])
def test_number_beyond_floats_is_a_bad_row(
    load: Callable[..., Any], good: dict[str, Any], number: str, tmp_path: Path
) -> None:
    line = json.dumps(good)
    huge = "".join(line.rsplit("1", 1)[:1]) + number + line.rsplit("1", 1)[1]
    path = save(tmp_path / "p.jsonl", f"{line}\n{huge}\n")
    with pytest.raises(PreferenceDataError, match=r"p\.jsonl:2: .*a number that is too large"):
        load(path)
    assert len(load(path, on_bad_row="skip")) == 1


@pytest.mark.parametrize("rank", [2**63, 10**30, 1e308])
def test_rank_beyond_whole_numbers_is_a_bad_row(rank: float, tmp_path: Path) -> None:
    row = {"prompt": "a", "responses": ["b", "c"], "ranks": [1, rank]}
    path = save(tmp_path / "p.jsonl", json.dumps(row))
    assert "'ranks' holds list" in refused(path, load_rankings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,prompt\na,b\n", r"p\.csv:1: the header names column 'prompt' more than once"),
        ("prompt,x,x,y,y\n1,2,3,4,5\n", r"p\.csv:1: .*columns 'x', 'y' more than once"),
        ('prompt,x\n"a,1\nb,2\n', r"p\.csv:2: found a quoted field that does not end"),
        ('"prompt\na\n', r"p\.csv:1: found a quoted field that does not end"),
        ("prompt\ra\rb\r", r"p\.csv:1: not CSV .*end with a line feed"),
        ("\n\n", "holds no row"),
        ("prompt\n", "holds no row"),
    ],
)
def test_table_that_is_no_table_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "p.csv", text)
    for mode in ("error", "skip"):
        with pytest.raises(PreferenceDataError, match=message):
            load_prompts(path, on_bad_row=mode)
    # Blank lines before the header are no mistake.
    assert load_prompts(save(tmp_path / "p.csv", "\n\r\nprompt\na\n")) == ["a"]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json", "p.txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_are_named(name: str, encoding: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, GOOD.encode(encoding))
    wide = encoding.upper()[:6]
    assert f"{path}: found {wide} text by the first bytes; required is UTF-8" in refused(path)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (text_files, json_rows, csv_rows):
        monkeypatch.setattr(module, "MOST_LINE_BYTES", MIB)
    return MIB


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.txt"])
@pytest.mark.parametrize("begin", [b"", b'[{"a": "', b"[[", b'"'])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_endless_line_is_refused_without_reading_on(
    name: str, begin: bytes, ending: str, tmp_path: Path, small_limit: int
) -> None:
    data = begin + b"a" * (3 * small_limit) + b"\xff broken behind the limit"
    path = save(tmp_path / f"{name}{ending}", gzip.compress(data) if ending else data)
    with pytest.raises(PreferenceDataError, match=r":1: .*(longer than 1 MiB|Expecting value)"):
        load_prompts(path)


def test_gzip_bomb_ends_within_little_memory(tmp_path: Path) -> None:
    import resource

    path = save(tmp_path / "bomb.jsonl.gz", gzip.compress(b'{"prompt": "' + b" " * (300 * MIB)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    assert "bomb.jsonl.gz:1: the line is longer than 64 MiB" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.jsonl", b"\n" * 5000 + GOOD.encode()),
        ("p.json", b"\n" * 5000 + b"[]"),
        ("p.csv", b"prompt\n" + b"\n" * 5000),
        ("p.txt", b" \n" * 5000 + b"a\n"),
        ("p.csv", b'prompt\n"' + b"a\n" * 5000),
    ],
)
def test_endless_blank_lines_or_an_endless_field_are_refused(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "MOST_BLANK_LINES", 1000)
    monkeypatch.setattr(csv_rows, "_MOST_ROW_LINES", 1000)
    with pytest.raises(PreferenceDataError, match=r"blank lines|does not end"):
        load_prompts(save(tmp_path / name, data))


COMPRESSED: dict[str, tuple[str, bytes, str]] = {
    "no gzip": ("p.jsonl.gz", GOOD.encode(), "not gzip data"),
    "gzip without its name": ("p.jsonl", gzip.compress(GOOD.encode()), "found gzip data"),
    "gzip twice": (
        "p.jsonl.gz",
        gzip.compress(gzip.compress(GOOD.encode())),
        "found gzip data inside the gzip file",
    ),
    "gzip twice by name": ("p.jsonl.gz.gz", gzip.compress(b""), "compressed twice"),
    "cut": ("p.csv.gz", gzip.compress(b"prompt\n" + b"a\n" * 9000)[:40], "unreadable from here"),
    "zip": ("p.csv", b"PK\x03\x04rest", "found a zip archive"),
    "xz": ("p.txt", b"\xfd7zXZ\0\0", "found xz data"),
    "bzip2": ("p.json", b"BZh91AY&SYrest", "found bzip2 data"),
    "zstandard": ("p.jsonl", b"(\xb5/\xfdrest", "found zstandard data"),
}


@pytest.mark.parametrize(("name", "data", "message"), COMPRESSED.values(), ids=COMPRESSED)
def test_data_that_is_no_text_is_named(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / name, data)
    found = refused(path)
    assert str(path) in found
    assert message in found


EMPTY = {
    **dict.fromkeys(["p.jsonl", "p.json", "p.csv"], b""),
    "p.jsonl.gz": gzip.compress(b""),
    "p.txt": b"\n \t\n\x0c\n",
    "list.json": b"[]",
}


@pytest.mark.parametrize(("name", "data"), EMPTY.items(), ids=EMPTY)
@pytest.mark.parametrize("mode", ["error", "skip"])
def test_empty_file_is_named(name: str, data: bytes, mode: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, data)
    assert f"{path}: the file holds no row" in refused(path, on_bad_row=mode)


def test_what_is_no_regular_file_is_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "lost.jsonl").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(os.path.relpath(tmp_path / "socket.jsonl"))
    expected = {
        "pipe.jsonl": "a pipe, which can be read only once",
        "loop.jsonl": "a link to .*cannot be followed",
        "lost.jsonl": "a link to 'nowhere', which does not exist",
        "socket.jsonl": "a socket",
    }
    for name, found in expected.items():
        with pytest.raises(PreferenceDataError, match=rf"{name}: found {found}.*; required is a"):
            load_prompts(tmp_path / name)
    for device in ("/dev/zero", "/dev/full", "/dev/null"):
        with pytest.raises(PreferenceDataError, match=rf"{device}: found a device"):
            load_prompts(device)
    for nothing in ("-", ""):
        with pytest.raises(PreferenceDataError, match="Write standard input to a file"):
            load_prompts(nothing)
    with pytest.raises(PreferenceDataError, match="no file can have"):
        load_prompts("a\0b.jsonl")
    with pytest.raises(PreferenceDataError, match="cannot be looked at"):
        load_prompts("x" * 5000 + ".jsonl")


@pytest.mark.parametrize("special", ["pipe", "lost link"])
def test_folder_with_something_else_among_its_files_is_refused(
    special: str, tmp_path: Path
) -> None:
    save(tmp_path / "train-0.jsonl", GOOD)
    other = tmp_path / "train-1.jsonl"
    os.mkfifo(other) if special == "pipe" else other.symlink_to("blob")
    assert f"{other}: found a" in refused(tmp_path)
    saved = tmp_path / "saved"
    Dataset.from_dict({"prompt": ["a"]}).save_to_disk(saved)
    (saved / "state.json").rename(saved / "kept")
    state = saved / "dataset_info.json"
    state.unlink()
    os.mkfifo(state) if special == "pipe" else state.symlink_to("blob")
    (saved / "kept").rename(saved / "state.json")
    assert f"{state}: found a" in refused(saved)


def test_process_substitution_and_pipes_end_with_one_line(capfd: pytest.CaptureFixture) -> None:
    read, write = os.pipe()
    os.write(write, GOOD.encode())
    path = f"/dev/fd/{read}"
    code = entry.main(["reward", "convert", "--dataset", path, "--out", "/tmp/x.jsonl"])
    os.close(read)
    os.close(write)
    assert code == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: {path}: found a pipe")
    assert error.count("\n") == 1


# Everything but surrogates and NUL, line breaks of every kind often.
TEXT = st.text(
    st.one_of(
        st.sampled_from("\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff\"',\\ a"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(TEXT, st.one_of(TEXT, st.lists(TEXT)), min_size=1), min_size=1))
def test_rows_of_any_text_come_back_from_json_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name in ("p.jsonl", "p.jsonl.gz", "p.json"):
        text = json.dumps(rows, ensure_ascii=False) if name == "p.json" else json_lines(rows)
        data = text.encode("utf-8")
        path = save(folder / name, gzip.compress(data) if name.endswith("gz") else data)
        assert [row for _, row in read_file(path)] == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_rows_of_any_text_come_back_from_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    import csv

    path = tmp_path_factory.mktemp("rows") / "p.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("prompt", "other"), *rows])
    assert [tuple(row.values()) for _, row in read_file(path)] == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT.map(lambda text: text.replace("\n", "")), min_size=1))
def test_prompts_of_a_text_file_come_back_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str]
) -> None:
    path = save(tmp_path_factory.mktemp("rows") / "p.txt", "x\n" + "\n".join(prompts) + "\n")
    kept = [prompt.removesuffix("\r") for prompt in prompts if prompt.encode().strip()]
    assert load_prompts(path) == ["x", *kept]


SPOKEN = TEXT.filter(lambda text: text.strip(string.whitespace) and not text.startswith("[{"))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(SPOKEN, SPOKEN, SPOKEN), min_size=2, max_size=4, unique_by=lambda r: r[0])
)
def test_converted_and_split_pairs_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    pairs = [{"prompt": p, "chosen": "+" + c, "rejected": "-" + r} for p, c, r in rows]
    source = save(folder / "p.jsonl", json_lines(pairs))
    out = ["--out", str(folder / "out.jsonl")]
    assert entry.main(["reward", "convert", "--dataset", str(source), *out]) == 0
    assert load_preferences(folder / "out.jsonl").to_list() == pairs
    out = ["--out", str(folder / "parts"), "--holdout", "0.5"]
    assert entry.main(["reward", "split", "--dataset", str(source), *out]) == 0
    parts = [load_preferences(folder / "parts" / f"{n}.jsonl") for n in ("train", "test")]
    assert sorted(map(str, [*parts[0], *parts[1]])) == sorted(map(str, pairs))


def test_values_of_tables_are_written_as_json_or_named() -> None:
    import datetime

    rows = [{"a": float("nan"), "when": datetime.date(2020, 1, 2), "more": [{"x": float("nan")}]}]
    assert json.loads(json_lines(rows)) == {"a": None, "when": "2020-01-02", "more": [{"x": None}]}
    for value in (float("inf"), b"x", object()):
        with pytest.raises(ValueError, match=r"row 1, 'b'\[0\] holds .*JSON cannot hold"):
            json_lines([{"b": "fine"}, {"b": [value]}])


def test_rows_that_could_not_be_written_again_are_bad_before_they_are_scored(
    tmp_path: Path,
) -> None:
    table = pa.table({"prompt": ["a", "b"], "response": ["x", "y"], "raw": [None, b"\xff"]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert "p.parquet[1]: the row['raw'] holds bytes" in refused(
        tmp_path / "p.parquet", load_responses
    )
    assert len(load_responses(str(tmp_path / "p.parquet"), on_bad_row="skip")) == 1


def test_only_bad_rows_and_no_rows_say_so(tmp_path: Path) -> None:
    path = save(tmp_path / "p.jsonl", '{"prompt": NaN}\n{"prompt": "\\ud800"}\n')
    found = refused(path, on_bad_row="skip")
    assert "no usable row. Skipped 1 x a number that is not finite, 1 x a lone surrogate" in found
    empty = Dataset.from_dict({"prompt": []}, features=Features({"prompt": Value("string")}))
    empty.to_parquet(tmp_path / "p.parquet")
    assert "holds no row" in refused(tmp_path / "p.parquet")


def test_label_reads_samples_as_every_other_command_reads_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = ['{"prompt": "a", "responses": ["\\ud800", "b"]}', '{"prompt": "a", "prompt": "b"}']
    for line in (*lines, "[" * 100_000, '{"prompt": "a", "responses": "b"}', '{"prompt": "a"}'):
        path = save(tmp_path / "s.jsonl", line)
        code = entry.main(["reward", "label", "--responses", str(path)])
        assert code == 2
        assert "s.jsonl:1: " in capsys.readouterr().err.replace("\n", "")
    good = '{"prompt": "a\u2028b", "responses": ["only one"], "finished": [true]}'
    path = save(tmp_path / "s.jsonl", f"{lines[0]}\n{good}\n")
    flags = ["--responses", str(path), "--on_bad_row", "skip"]
    assert entry.main(["reward", "label", *flags]) == 2
    assert "holds no pair" in capsys.readouterr().err
