"""Bad input: one line on standard error that says what is wrong, and exit code 2."""

from __future__ import annotations

import pytest
from captures import frames, read_pcap, write_pcap


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["forward", "sim:a"], "Missing argument 'B'"),
        (["forward", "sim:a", "sim:b", "--frob"], "No such option"),
        (
            ["forward", "sim:a", "eth0"],
            "or sim:NAME or xdp:eth0 or packet:eth0 or vhost-user:/path/to/socket",
        ),
        (["forward", "sim:a", "fffe:ff:1f.7"], "fffe:ff:1f.7: no such PCI device"),
        (["forward", "sim:a,gen=60", "sim:a,sink=a"], "sim:a is open already"),
        (["echo", "sim:"], "not a simulated card"),
        (["echo", "sim:a,colour=red"], "'colour=red' is no option"),
        (["echo", "sim:a,gen=5"], "gen 5: 60 to 1514 are possible"),
        (["echo", "sim:b,sink=a"], "sim:b,sink=a: open "),
        (["echo", "sim:a,gen=60", "--batch", "0"], "--batch 0: 1 to 4096 are possible"),
        (["echo", "sim:a,gen=60", "--batch", "65", "--ring", "64"], "batch 65: 1 to 64 are possible"),
        (["generate", "sim:a,cable=b", "--batch", "0.5"], "--batch 0.5: 1 to 4096 are possible"),
        (["capture", "sim:a,gen=60", "out.pcap", "--batch", "513"], "batch 513: 1 to 512 are possible"),
        (["echo", "sim:a,gen=60", "--ring", "100"], "ring 100: powers of two from 64 to 4096 are possible"),
        (["echo", "sim:a,gen=60", "--pool", "10"], "pool 10: 544 to 64000 are possible"),
        (["echo", "sim:a,gen=60", "--pool", "64001"], "--pool 64001: 1 to 64000 are possible"),
        (["echo", "sim:a,gen=60", "--count", "-1"], "--count -1: 1 to 1000000000000000 are possible"),
        (["echo", "sim:a,gen=60", "--seconds", "-1"], "--seconds -1.0: 0 to 1e+09 are possible"),
        (["capture", "sim:a,gen=60", "no/such/file.pcap"], "no/such/file.pcap: No such file or directory"),
        (["capture", "sim:a,gen=60", "out.pcap", "--snaplen", "262145"], "--snaplen 262145: 0 to 262144 are possible"),
        (["demo", "--size", "59"], "--size 59: 60 to 1514 are possible"),
        (["demo", "--count", "1.5e0"], "--count 1.5e0 is no whole number"),
        (["demo", "--count", "1e999"], "--count 1e999: 1 to 1000000000000000 are possible"),
        (["bind", "sim:a"], "'sim:a' is not a PCI address"),
        (["unbind", "fffe:ff:1f.7"], "fffe:ff:1f.7: no such PCI device"),
    ],
)
def test_refused(ixy, arguments, words):
    """Each is refused with a message of its own."""
    assert words in ixy(*arguments).complaint()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["forward", "vhost-user:no/such/socket", "eth0"], "eth0: no device address"),
        (["forward", "vhost-user:no/such/socket", "sim:b,colour=red"], "'colour=red' is no option"),
        (["capture", "vhost-user:no/such/socket", "no/such/file.pcap"], "no/such/file.pcap: No such file"),
        (["capture", "vhost-user:no/such/socket", "/etc/passwd/out.pcap"], "/etc/passwd/out.pcap: Not a directory"),
        (["capture", "vhost-user:no/such/socket", "/etc"], "/etc: Is a directory"),
    ],
)
def test_refused_before_a_device_is_opened(ixy, arguments, words):
    """What can be seen to be wrong is, before opening takes its time: for a card's reset, its link, or compiling."""
    assert words in ixy(*arguments).complaint()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "in.pcap: No such file or directory"),
        (b"", "in.pcap: truncated: 0 bytes"),
        (b"GIF89a, and more bytes than a header", "in.pcap: not a pcap or pcapng file"),
        (bytes.fromhex("0a0d0d0a") + bytes(40), "in.pcap: damaged: a pcapng section of the byte order 00 00 00 00"),
    ],
)
def test_files_that_are_no_capture(ixy, tmp_path, content, words):
    """A file to replay that is missing, empty or something else."""
    if content is not None:
        (tmp_path / "in.pcap").write_bytes(content)
    assert words in ixy("echo", "sim:a,rx_pcap=in.pcap").complaint()


def test_wrong_link_type(ixy, tmp_path):
    """A capture of Wi-Fi frames, link type 105."""
    write_pcap(tmp_path / "in.pcap", frames(1), linktype=105)
    assert (
        "link type 105 (IEEE 802.11), which no Ethernet can be made of"
        in ixy("echo", "sim:a,rx_pcap=in.pcap").complaint()
    )


def test_truncated_capture_is_replayed_up_to_the_damage(ixy, tmp_path):
    """A file that was cut within its tenth packet: the nine before it are forwarded, and it is said."""
    write_pcap(tmp_path / "in.pcap", frames(10))
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole[:-5])
    ended = ixy("forward", "--one-way", "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", "--count", "9")
    assert ended.code == 0
    (line,) = ended.errors.splitlines()
    assert line.startswith("ixy: in.pcap: damaged, replaying the 9 packets before: packet 10 at byte ")
    assert read_pcap(tmp_path / "out.pcap") == frames(9)


def test_a_full_disk_behind_a_card(ixy):
    """What a card sends cannot be recorded: the summary is there, then one line, and exit code 2."""
    ended = ixy("generate", "sim:a,tx_pcap=/dev/full", "--count", "100")
    assert "disk full" in ended.complaint()


def test_an_existing_file_survives_a_device_that_cannot_be_opened(ixy, tmp_path):
    """The capture's file is emptied only when there is something to capture from."""
    write_pcap(tmp_path / "out.pcap", frames(5))
    ixy("capture", "eth0", "out.pcap").complaint()
    assert read_pcap(tmp_path / "out.pcap") == frames(5)
