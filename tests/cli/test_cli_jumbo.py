"""Jumbo frames by the commands: `--mtu 9000` takes them whole, both ways."""

from __future__ import annotations

from random import Random

from captures import read_pcap, write_pcap

SIZES = [60, 1514, 1515, 2048, 2049, 4097, 8192, 9000, 9014]
JUMBO = ("--mtu", "9000")


def jumbo_frames() -> list[bytes]:
    """Fewer than a ring has room for, however the threads are scheduled."""
    chance = Random(5)
    return [chance.randbytes(12) + b"\x88\xb5" + chance.randbytes(size - 14) for size in SIZES * 4]


def received(frames: list[bytes]) -> list[bytes]:
    """With addresses that a card takes for no group's."""
    return [bytes([data[0] & 0xFE]) + data[1:] for data in frames]


def test_forward_passes_frames_on_whole(ixy, tmp_path):
    frames = received(jumbo_frames())
    write_pcap(tmp_path / "in.pcap", frames)
    count = ("--count", str(len(frames)))
    ended = ixy("forward", "--one-way", *JUMBO, "sim:a,rx_pcap=in.pcap", "sim:b,tx_pcap=out.pcap", *count)
    assert ended.code == 0, ended.errors
    assert read_pcap(tmp_path / "out.pcap") == frames


def test_capture_and_dump_write_whole_frames(ixy, tmp_path):
    """Without the option they are errors that the card counts; a filter sees how long they are."""
    frames = received(jumbo_frames())
    write_pcap(tmp_path / "in.pcap", frames)
    long = [data for data in frames if len(data) >= 2049]
    count, device = ("--count", str(len(long))), "sim:a,rx_pcap=in.pcap"
    for command in (
        ("capture", device, "out.pcap", "greater 2049"),
        ("dump", "-w", "out.pcap", device, "greater 2049"),
    ):
        ended = ixy(*command, *JUMBO, *count)
        assert ended.code == 0, ended.errors
        assert read_pcap(tmp_path / "out.pcap") == long
        (tmp_path / "out.pcap").unlink()


def test_replay_sends_whole_frames(ixy, tmp_path):
    """As they were, and with a tag more; what is longer still is left out, and that is said."""
    frames = [*jumbo_frames(), bytes(9023)]
    write_pcap(tmp_path / "in.pcap", frames)
    ended = ixy("replay", *JUMBO, "in.pcap", "sim:a,tx_pcap=out.pcap", "--topspeed", "--json")
    assert (ended.code, ended.summary["sent"], ended.summary["left_out"]) == (0, len(frames) - 1, 1)
    assert read_pcap(tmp_path / "out.pcap") == frames[:-1]
    ended = ixy("replay", *JUMBO, "in.pcap", "sim:a,tx_pcap=out.pcap", "--topspeed", "--vlan", "5")
    assert ended.code == 0, ended.errors
    tagged = [data[:12] + bytes.fromhex("81000005") + data[12:] for data in frames[:-1]]
    assert read_pcap(tmp_path / "out.pcap") == tagged


def test_an_mtu_that_a_device_cannot_have(ixy):
    """One line says what it can."""
    assert "mtu 9711: 68 to 9710 are possible" in ixy("echo", "--mtu", "9711", "sim:a").complaint()
    assert "--mtu 67" in ixy("echo", "--mtu", "67", "sim:a").complaint()
