"""Archives: valid ones are extracted, and each hostile or damaged one is refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest.sources.archives import (
    ArchiveError,
    archive_kind,
    extract,
    member_parts,
)
from regraft_core.formats.options.ingest import IngestOptions

OPTIONS = IngestOptions()


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def require_refused(archive: Path, message: str, options: IngestOptions = OPTIONS) -> None:
    """Assert that the archive is refused and that nothing was written outside the folder."""
    parent = archive.parent / "parent"
    (parent / "folder").mkdir(parents=True)
    with pytest.raises(ArchiveError, match=message):
        extract(archive, parent / "folder", options)
    assert [path.name for path in parent.iterdir()] == ["folder"]


def extracted(archive: Path, options: IngestOptions = OPTIONS) -> tuple[dict[str, bytes], int]:
    folder = archive.parent / "extracted"
    folder.mkdir()
    ignored, _ = extract(archive, folder, options)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return files, ignored


MEMBERS = {"top/cat/1.jpg": b"one", "top/dog/ü 2.jpg": b"two" * 1000, "top/dog/3": b""}
SYSTEM_FILES = {
    "__MACOSX/top/cat/._1.jpg": b"x", "top/.DS_Store": b"x", "top/cat/Thumbs.db": b"x",
    "top/.git/config": b"x",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_valid_archives_are_extracted_without_system_files(tmp_path: Path, mode: str) -> None:
    # The kind is detected by the first bytes, not by the name.
    path = tmp_path / "archive.bin"
    members = {"./" + name: data for name, data in (MEMBERS | SYSTEM_FILES).items()}
    archive = make_zip(path, members) if mode == "zip" else make_tar(path, members, mode)
    assert archive_kind(archive) == ("zip" if mode == "zip" else "tar")
    assert extracted(archive) == (MEMBERS, 4)


UNSAFE_NAMES = [
    "../up.jpg", "a/../../up.jpg", "/etc/absolute.jpg", "C:/drive.jpg", "c:drive.jpg",
    "a\\..\\b.jpg", "..\\up.jpg", "a/\x1b[31m.jpg", "a/" + "x" * 300, "__MACOSX/../../up.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unsafe_names_reject_the_archive(
    tmp_path: Path, name: str, make: Callable[..., Path]
) -> None:
    archive = make(tmp_path / "a", {"good/1.jpg": b"1", name: b"2"})
    require_refused(archive, "^a: member ")


@pytest.mark.parametrize(
    ("first", "second"),
    [("a/X.jpg", "a/x.jpg"), ("a/\u00e9.jpg", "a/e\u0301.jpg"), ("A/1.jpg", "a/2.jpg"),
     ("a", "a/b.jpg"), ("a/b.jpg", "a"), ("a/b.jpg", "a/b.jpg"), ("a/ß.jpg", "a/SS.jpg")],
)  # fmt: skip
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide_are_refused(
    tmp_path: Path, first: str, second: str, make: Callable[..., Path]
) -> None:
    if first == second:
        archive = tmp_path / "a"
        if make is make_zip:
            with zipfile.ZipFile(archive, "w") as opened:
                opened.writestr(first, b"1")
                opened.writestr(second, b"2")
        else:
            make_tar(archive, {first: b"1"}, "w")
            with tarfile.open(archive, "a") as opened_tar:
                info = tarfile.TarInfo(second)
                opened_tar.addfile(info)
    else:
        archive = make(tmp_path / "a", {first: b"1", second: b"2"})
    require_refused(archive, "collides with another")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("cat/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    require_refused(tmp_path / "a.tar", r"'cat/1\.jpg' is a link or a special file")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("cat/1.jpg")
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, "/etc/passwd")
    require_refused(tmp_path / "a.zip", r"'cat/1\.jpg' is a link or a special file")


def test_extraction_stops_at_the_limit_of_bytes(tmp_path: Path) -> None:
    options = IngestOptions(max_archive_bytes=5 << 20)
    zeros = {"cat/1.bmp": bytes(4 << 20), "cat/2.bmp": bytes(4 << 20)}
    require_refused(
        make_zip(tmp_path / "a.zip", zeros), "at most 5242880 bytes when extracted", options
    )
    (tmp_path / "tar").mkdir()
    archive = make_tar(tmp_path / "tar" / "a.tgz", zeros)
    require_refused(archive, "at most 5242880 bytes when extracted", options)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.bmp"))
    assert written <= 5 << 20


def test_the_ratio_is_limited(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"cat/{n}.bmp": bytes(16 << 20) for n in range(20)})
    assert archive.stat().st_size < 1 << 20
    require_refused(archive, "at most 268435456 bytes when extracted, found 335544320")


def test_a_zip_with_incorrect_sizes_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"cat/1.bmp": bytes(1 << 20)})
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 1000)))
    require_refused(archive, r"'cat/1\.bmp' is damaged")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"cat/1.bmp": bytes(1000), "cat/2.bmp": bytes(1000)})
    data = bytearray(archive.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)
    archive.write_bytes(data)
    require_refused(archive, "overlaps another")


def test_a_million_members_are_refused_before_they_are_read(tmp_path: Path) -> None:
    name = b"a/000000"
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
    entry = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        b"PK\x01\x02",
        20,
        20,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        len(name),
        0,
        0,
        0,
        0,
        0,
        0,
    )
    count = 1_000_001
    directory = (entry + name) * count
    start = len(local) + len(name)
    record = struct.pack(
        "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(directory), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    archive = tmp_path / "a.zip"
    archive.write_bytes(local + name + directory + record + locator + end)
    require_refused(archive, "at most 1000000 members, found 1000001")


def test_too_many_members_of_a_tar_are_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tgz", {f"cat/{n}.jpg": b"" for n in range(101)})
    require_refused(
        archive, "at most 100 members, found 101", IngestOptions(max_archive_members=100)
    )


def test_an_incorrect_closing_record_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"cat/{n:04d}": b"" for n in range(30_000)})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<HH", data, data.rfind(b"PK\x05\x06") + 8, 1, 1)
    archive.write_bytes(data)
    require_refused(archive, "a directory of .* bytes for 1 members")


def test_nested_archives_are_never_opened(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"../up.jpg": b"x"}).read_bytes()
    archive = make_zip(tmp_path / "a.zip", {"cat/inner.zip": inner})
    assert extracted(archive) == ({"cat/inner.zip": inner}, 0)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"cat/1.jpg": b"secret"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    require_refused(archive, r"'cat/1\.jpg' is encrypted")


def test_incorrect_checksums_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"cat/1.jpg": b"image"}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"image", b"Image"))
    require_refused(archive, r"'cat/1\.jpg' is damaged: Bad CRC")


def test_incorrect_checksums_of_compressed_tars_are_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tgz", {"cat/1.jpg": b"image"})
    data = bytearray(archive.read_bytes())
    data[-8] ^= 1
    archive.write_bytes(data)
    require_refused(archive, "truncated or damaged tar: CRC check failed")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_truncated_archives_are_refused(tmp_path: Path, mode: str, fraction: float) -> None:
    members = {f"cat/{n}.jpg": os.urandom(3000) for n in range(20)}
    path = tmp_path / "a"
    archive = make_zip(path, members) if mode == "zip" else make_tar(path, members, mode)
    data = archive.read_bytes()
    if mode == "w":
        data = data[: 20 * (512 + 3072)]  # Without the closing blocks and their padding.
    archive.write_bytes(data[: int(len(data) * fraction)])
    require_refused(archive, "truncated|damaged|expected .* bytes, found|closing")


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {f"cat/{n}.jpg": b"x" * 512 for n in range(10)}, "w")
    archive.write_bytes(archive.read_bytes()[: 5 * 1024])
    require_refused(archive, "it has no closing block")


def test_a_header_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(1 << 20))
    require_refused(tmp_path / "a.tgz", "a header of .* bytes")


def test_bytes_after_the_members_are_counted(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "inner.tar", {"cat/1.jpg": b"1"}, "w").read_bytes()
    (tmp_path / "bomb").mkdir()
    archive = tmp_path / "bomb" / "a.tbz"
    archive.write_bytes(bz2.compress(tar + bytes(32 << 20)))
    require_refused(archive, "when extracted", IngestOptions(max_archive_bytes=4 << 20))


def test_damaged_headers_are_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"cat/1.jpg": b"x" * 512, "cat/2.jpg": b"y"}, "w")
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 1
    archive.write_bytes(data)
    require_refused(archive, "damaged tar")
    (tmp_path / "more").mkdir()
    not_a_tar = tmp_path / "more" / "a.gz"
    not_a_tar.write_bytes(gzip.compress(b"no tar at all"))
    require_refused(not_a_tar, "damaged tar")


NAME_PARTS = st.sampled_from(
    ["..", ".", "", "a", "B", "C:", "\\", "a\\b", "/", "é", "\x00", "x" * 260, " ", "...", "~"]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(NAME_PARTS, max_size=6).map("/".join)))
def test_a_name_is_below_the_target_or_is_refused(name: str) -> None:
    target = Path("/target/folder")
    try:
        parts = member_parts(name)
    except ArchiveError:
        return
    path = target.joinpath(*parts)
    assert Path(os.path.normpath(path)) == path
    assert path == target or target in path.parents
    assert "\\" not in name
    assert "\x00" not in name


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9"]),
)
def test_arbitrary_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    archive = folder / "a"
    archive.write_bytes(magic + data)
    target = folder / "out"
    target.mkdir()
    with pytest.raises(ArchiveError):
        extract(archive, target, OPTIONS)


def test_memory_is_bounded_by_the_blocks(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"cat/1.bmp": bytes(200 << 20)})
    (tmp_path / "out").mkdir()
    code = (
        "import sys, resource; from pathlib import Path;"
        "from regraft_core.formats.options.ingest import IngestOptions;"
        "from components.ingest.sources.archives import extract;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), IngestOptions());"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert int(run.stdout) < 20 * 1024


class RawName(zipfile.ZipInfo):
    """A member whose name is written as given bytes, without the flag of UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


def raw_zip(path: Path, names: list[bytes], extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = RawName(str(number))
            info.raw, info.extra = name, extra
            archive.writestr(info, b"data")
    return path


@pytest.mark.parametrize(
    ("written", "encoding", "read", "warns"),
    [
        ("utf-8", "", "café/1", False), ("cp437", "", "café/1", True),
        ("cp1252", "", "cafΘ/1", True), ("cp1252", "cp1252", "café/1", False),
        ("utf-8", "utf-8", "café/1", False),
    ],
)  # fmt: skip
def test_names_without_the_flag_of_utf8(
    tmp_path: Path, written: str, encoding: str, read: str, warns: bool
) -> None:
    archive = raw_zip(tmp_path / "a.zip", ["café/1".encode(written), b"dog/1"])
    (tmp_path / "out").mkdir()
    options = OPTIONS.model_copy(update={"archive_encoding": encoding})
    found = extract(archive, tmp_path / "out", options)
    assert (tmp_path / "out" / read).is_file()
    assert len(found.warnings) == warns
    if warns:
        assert "1 names are not UTF-8 and were read as cp437" in found.warnings[0]
        assert "--archive-encoding" in found.warnings[0]


def test_a_name_in_an_extra_field_is_used(tmp_path: Path) -> None:
    raw = "café/1".encode("cp437")
    content = b"\1" + struct.pack("<I", zlib.crc32(raw)) + b"kaffee/1"
    extra = struct.pack("<HH", 0x7075, len(content)) + content
    assert list(extracted(raw_zip(tmp_path / "a.zip", [raw], extra))[0]) == ["kaffee/1"]


def test_names_in_another_code_page_than_stated_are_refused(tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"archive_encoding": "cp932"})
    archive = raw_zip(tmp_path / "a.zip", [b"caf\x85\xff/1"])
    require_refused(archive, r"expected a name in cp932; .*--archive-encoding", options)


def test_names_of_tar_are_utf8_or_as_stated(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as opened:
        opened.addfile(tarfile.TarInfo("café"))
    require_refused(archive, r"member 'caf\\xe9': expected a name in utf-8; add or change")
    options = OPTIONS.model_copy(update={"archive_encoding": "cp1252"})
    assert list(extracted(archive, options)[0]) == ["café"]


def test_zip64_records_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    data = make_zip(tmp_path / "a.zip", {"a/1": b"x"}).read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HII", data, end + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    lie = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 32, offset)
    for before, valid in ((record, True), (lie, False)):
        # The locator names a record with small numbers; zipfile reads the one before the locator.
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        named = b"" if valid else record
        archive = tmp_path / f"{valid}.zip"
        archive.write_bytes(data[:end] + named + before + locator + data[end:])
        if valid:
            assert list(extracted(archive)[0]) == ["a/1"]
        else:
            require_refused(archive, "zip64 records contradict each other")


def test_long_numbers_in_the_headers_of_tar_are_refused(tmp_path: Path) -> None:
    for number, digits in enumerate((90, 120, 100_000)):
        info = tarfile.TarInfo("cat/1")
        info.pax_headers = {"comment": "1" * digits}
        archive = tmp_path / f"{number}.tar"
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as opened:
            opened.addfile(info)
        if digits > 100:
            with pytest.raises(ArchiveError, match="number of more than 100 digits"):
                extract(archive, tmp_path, OPTIONS)
        else:
            assert list(extracted(archive)[0]) == ["cat/1"]
