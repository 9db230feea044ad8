"""`ixy evaluate`, by the section that takes no time."""

from __future__ import annotations

import json


def test_the_report_is_written_where_it_is_asked_for(ixy, tmp_path):
    """A new directory gets the files, and standard output says which."""
    ended = ixy("evaluate", "--only", "unsafe", "--quick", "--output", "new/report")
    assert (ended.code, ended.errors) == (0, "")
    directory = tmp_path / "new" / "report"
    assert {path.name for path in directory.iterdir()} == {"evaluation.html", "evaluation.md", "evaluation"}
    assert "evaluation.html" in ended.output
    text = (directory / "evaluation.md").read_text()
    assert "Redox" in text
    assert "Python 3." in text


def test_objects_for_programs(ixy):
    """First the machine, then an object a row."""
    ended = ixy("evaluate", "--only", "unsafe", "--json")
    assert ended.code == 0
    machine, *rows = [json.loads(line) for line in ended.output.splitlines() if "A quiet machine" not in line]
    assert machine["type"] == "machine"
    assert {row["table"] for row in rows} == {"unsafe_code"}
    assert [row["lines of code"] for row in rows[1:]] == [1306, 393, 362]


def test_a_section_that_is_not_there_is_refused(ixy):
    """By name, with those that are."""
    complaint = ixy("evaluate", "--only", "unsafe,colour").complaint()
    assert "--only 'colour': there are throughput, " in complaint


def test_an_output_that_cannot_be_written_is_refused(ixy, tmp_path):
    """Before anything is measured: below a file, and on a full disk."""
    (tmp_path / "file").touch()
    complaint = ixy("evaluate", "--output", "file/report").complaint()
    assert "the report cannot be written into file/report: Not a directory" in complaint
    (tmp_path / "evaluation.md.part").symlink_to("/dev/full")
    assert "cannot be written into .: No space left on device" in ixy("evaluate").complaint()
