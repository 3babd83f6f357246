"""The embedding store stays within its limit, is shared fairly, and outlives full disks and killed processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sam_endpoint.model.embeddings import Store, quota
from sam_endpoint.model.embeddings.store import MAX_QUEUE
from sam_endpoint.model.segmenter import Embedding

KILOBYTES = 16


def embedding(value: float = 0.0) -> Embedding:
    return Embedding((torch.full((1, 4, 32, 32), value),), (480, 640), "m")  # 16 KB


def keys(tenant: str, count: int) -> list[str]:
    return [f"{tenant}\0model\0{i}" for i in range(count)]


def save(store: Store, *names: str) -> None:
    """Save embeddings one after the other, each a moment after the last."""
    for name in names:
        store.save(name, embedding())
        store.flush()


def stored(store: Store, *names: str) -> list[bool]:
    return [store.load(name) is not None for name in names]


def files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def nbytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in files(folder))


def test_a_full_store_deletes_what_was_used_longest_ago(tmp_path: Path) -> None:
    store, names = Store(str(tmp_path), max_bytes=200_000), keys("tenant", 10)
    save(store, *names)
    assert stored(store, names[0])  # read, so that it is the newest
    time.sleep(0.01)
    save(store, *keys("tenant", 14)[10:])
    kept = stored(store, *keys("tenant", 14))
    assert nbytes(tmp_path) <= 200_000
    assert kept[0] and not kept[1] and kept[-1]


def test_one_tenant_cannot_delete_what_others_store_within_their_shares(tmp_path: Path) -> None:
    store, mine = Store(str(tmp_path), max_bytes=200_000), keys("tenant", 3)
    save(store, *mine)
    for i in range(5):
        store.save_name(f"tenant\0model\0name {i}", "key")
    store.flush()
    for _ in range(2):
        save(store, *keys("another", 40))
        store = Store(str(tmp_path), max_bytes=200_000)  # a new process knows whose the files are
    assert stored(store, *mine) == [True] * 3
    assert nbytes(tmp_path) <= 200_000


def test_names_count_as_much_as_they_take_on_a_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path), max_bytes=100_000)
    for i in range(100):
        store.save_name(f"tenant\0model\0{i}", "key")
        store.flush()
    assert len(files(tmp_path)) <= 100_000 // 4096


def test_two_processes_share_the_limit(tmp_path: Path) -> None:
    first, second = (Store(str(tmp_path), max_bytes=200_000) for _ in range(2))
    for i in range(30):
        save(first if i % 2 else second, f"{i}\0model\0key")
    assert nbytes(tmp_path) <= 220_000  # each may write a tenth before it looks again
    assert stored(first, "29\0model\0key") == [True]


def test_other_files_in_the_folder_are_not_deleted(tmp_path: Path) -> None:
    others = [tmp_path / "photo.safetensors", tmp_path / "ab" / "model.safetensors", tmp_path / "notes.part"]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(100_000))
        os.utime(file, (0, 0))
    save(Store(str(tmp_path), max_bytes=50_000), *keys("tenant", 20))
    assert all(file.exists() for file in others)


def test_files_left_by_killed_processes_are_deleted_after_an_hour(tmp_path: Path) -> None:
    old, young = tmp_path / f"{'a' * 32}.part", tmp_path / f"{'b' * 32}.part"
    for file in (old, young):
        file.write_bytes(b"")
    os.utime(old, (time.time() - 2 * quota.PART_SECONDS,) * 2)
    save(Store(str(tmp_path)), "key")
    assert not old.exists() and young.exists()


def test_a_store_in_memory_has_a_limit_too() -> None:
    store = Store("memory://limited", max_bytes=100_000)
    save(store, *keys("tenant", 20))
    assert sum(store.fs.find(store.root, detail=True)[path]["size"] for path in store.fs.find(store.root)) <= 100_000
    assert stored(store, keys("tenant", 20)[-1]) == [True]


def test_one_tenant_has_at_most_half_of_the_queue(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, going_on = Store(str(tmp_path)), threading.Event()
    store._submit("", "first", lambda: (going_on.wait(60), b"")[1])
    with caplog.at_level(logging.WARNING):
        for key in (*keys("tenant", MAX_QUEUE), *keys("another", 3)):
            store.save(key, embedding())
    going_on.set()
    store.flush()
    assert stored(store, *keys("another", 3)) == [True] * 3
    assert sum(stored(store, *keys("tenant", MAX_QUEUE))) == MAX_QUEUE // 2


def test_the_queue_is_limited_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_endpoint.model.embeddings.store.MAX_QUEUE_BYTES", 100_000)
    store, going_on = Store(str(tmp_path)), threading.Event()
    store._submit("", "first", lambda: (going_on.wait(60), b"")[1])
    for key in keys("tenant", 10):
        store.save(key, embedding())
    going_on.set()
    store.flush()
    assert sum(stored(store, *keys("tenant", 10))) == 50_000 // (KILOBYTES * 1024)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_is_never_filled_and_shared_between_tenants(small_disk: Path) -> None:
    store = Store(str(small_disk))
    save(store, *keys("tenant", 5), *keys("another", 300))
    assert stored(store, *keys("tenant", 5)) == [True] * 5
    assert stored(store, keys("another", 300)[-1]) == [True]
    usage = os.statvfs(small_disk)
    assert usage.f_bavail * usage.f_frsize > 50_000


def test_a_disk_that_others_fill_leaves_no_parts_and_is_used_again(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filling = small_disk / "of others"
    with pytest.raises(OSError, match="No space left"):
        filling.write_bytes(bytes(3_000_000))
    store = Store(str(small_disk), max_bytes=10_000_000)
    with caplog.at_level(logging.WARNING):
        save(store, "a", "b")
    assert not list(small_disk.glob("*.part")) and stored(store, "a", "b") == [False, False]
    assert len(caplog.records) == 1
    filling.unlink()
    save(store, "a")
    assert stored(store, "a") == [True]


def test_a_process_killed_while_it_writes_leaves_whole_files(tmp_path: Path) -> None:
    script = (
        "import itertools, sys; from tests.model.test_quota import *\n"
        "store = Store(sys.argv[1]); save(store, 'begun')\n"
        "print(flush=True)\n"
        "for i in itertools.count(): save(store, str(i % 5))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.kill()
    store = Store(str(tmp_path))
    assert stored(store, "begun") == [True]
    for name in map(str, range(5)):
        found = store.load(name)
        assert found is None or torch.equal(found.features[0], embedding().features[0])


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root may mount a folder read-only")
    save(Store(str(tmp_path)), "a")
    script = "from tests.model.test_quota import *; s = Store(sys.argv[1]); save(s, 'b'); print(stored(s, 'a', 'b'))"
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "[True, False]", done.stderr[-2000:]
