"""Each finding on a machine whose fault is known because the test made it."""

import importlib.metadata
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from langevin.recipes import doctor
from langevin.recipes.doctor import Finding
from langevin.recipes.machine import Memory

GIB = 2**30


def fake_torch(cuda=None, gpus=(), mps=False, vectors="AVX2"):
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda, hip=None),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_properties=lambda i: SimpleNamespace(name=gpus[i], total_memory=80 * GIB),
        ),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_available=lambda: mps), cpu=SimpleNamespace(get_cpu_capability=lambda: vectors)
        ),
    )


def test_diagnose_looks_at_this_machine_and_needs_no_torchvision_here(tmp_path):
    found = {f.what: f for f in doctor.diagnose(tmp_path, tmp_path / "cache")}
    assert found["python"].value == sys.version.split()[0].rstrip("+")
    assert found["torch"].value.startswith(torch.__version__)
    assert found["threads"].value.startswith(f"{torch.get_num_threads()} on ")
    assert {"memory", "malloc", "vectors", "torchvision", "disk, working folder", "disk, cache"} <= set(found)
    assert "torchvision" not in sys.modules
    assert not (tmp_path / "cache").exists()  # looking changes nothing


def test_an_old_python_is_bad():
    assert doctor.python((3, 10, 4)).state == "bad"
    assert doctor.python((3, 11, 0)) == Finding("python", "3.11.0")


@pytest.mark.parametrize(
    ("build", "has_driver", "states", "advice"),
    [
        (fake_torch(), False, ["ok", "ok"], ""),
        (fake_torch(), True, ["ok", "warn"], "CUDA build"),
        (fake_torch("13.0"), False, ["warn", "ok"], "CPU build"),
        (fake_torch("13.0"), True, ["ok", "warn"], "nvidia-smi"),
        (fake_torch("13.0", ["H100", "H100"]), True, ["ok", "ok", "ok"], ""),
        (fake_torch(mps=True), False, ["ok", "ok"], ""),
    ],
)
def test_build_of_torch_against_the_machine(tmp_path, build, has_driver, states, advice):
    driver = tmp_path / "version"
    if has_driver:
        driver.touch()
    found = doctor.device(build, driver)
    assert [f.state for f in found] == states
    assert advice in " ".join(f.advice for f in found)
    assert any("80 GiB" in f.value for f in found) == (len(states) == 3)


@pytest.mark.parametrize(
    ("number", "available", "set_by_user", "state"),
    [
        (2, 2.0, False, "ok"),
        (16, 2.0, False, "warn"),
        (2, 1.5, False, "ok"),
        (3, 1.5, False, "warn"),
        (1, 8.0, True, "warn"),
    ],
)
def test_threads_against_cores(monkeypatch, number, available, set_by_user, state):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_by_user:
        monkeypatch.setenv("OMP_NUM_THREADS", str(number))
    found = doctor.threads(number, available)
    assert found.state == state
    assert ("OMP_NUM_THREADS=" in found.advice) == (state == "warn")


def test_vectors_and_bf16(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu avx2 avx512_bf16\n")
    assert doctor.vectors(fake_torch(), cpuinfo).value.endswith("bf16 in hardware")
    cpuinfo.write_text("processor : 0\nflags : fpu avx2\n")
    assert "float32" in doctor.vectors(fake_torch(), cpuinfo).advice


@pytest.mark.parametrize(("free", "state"), [(0.5, "bad"), (2, "warn"), (16, "ok")])
def test_memory(free, state):
    assert doctor.memory_left(Memory(24 * GIB, int(free * GIB))).state == state


def test_an_allocator_that_was_loaded_is_named(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 00:00 0 /usr/lib/libjemalloc.so.2\n")
    assert doctor.allocator(maps).value == "jemalloc"


@pytest.mark.parametrize(("free", "state"), [(0.1, "bad"), (2, "warn"), (50, "ok")])
def test_disk_space_is_that_of_the_nearest_folder_there_is(tmp_path, monkeypatch, free, state):
    asked = []
    usage = SimpleNamespace(free=int(free * GIB))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert doctor.disk("disk", tmp_path / "a" / "b").state == state
    assert asked == [tmp_path]


def test_a_folder_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert doctor.disk("disk", tmp_path).state == "bad"


def plant(folder: Path, name: str, source: str, monkeypatch) -> None:
    """An installed distribution whose module is that source, seen by this process and by its children."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)
    info = folder / f"{name}-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.28.0\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("source", "state", "says"),
    [
        ("", "ok", "0.28.0 imports"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "warn", "torchvision::nms"),
        ("import os; os._exit(11)", "warn", "exit 11"),
        ("import time; time.sleep(60)", "warn", "no answer within 2 s"),
    ],
)
def test_torchvision_is_tried_in_another_process(tmp_path, monkeypatch, source, state, says):
    plant(tmp_path / "site", "torchvision", source, monkeypatch)
    found = doctor.torchvision(timeout=2)
    assert (found.state, "pip uninstall torchvision" in found.advice) == (state, state == "warn")
    assert says in found.value
    assert "torchvision" not in sys.modules


def test_extras_are_those_that_the_package_declares(tmp_path, monkeypatch):
    plant(tmp_path / "site", "toy", "", monkeypatch)
    metadata = tmp_path / "site" / "toy-0.28.0.dist-info" / "METADATA"
    metadata.write_text(
        metadata.read_text() + "Provides-Extra: here\nProvides-Extra: gone\n"
        "Requires-Dist: numpy>=1.26 ; extra == 'here'\nRequires-Dist: numpy>=1; extra == 'gone'\n"
        'Requires-Dist: no-such-package[all]>=2; python_version > "3" and extra == "gone"\n'
    )
    gone, here = doctor.extras("toy")
    assert here == Finding("extra `here`", "there")
    assert gone == Finding("extra `gone`", "missing no-such-package", "ok", "pip install 'toy[gone]'")


def test_a_package_that_is_not_installed_says_so():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("no-such-package")
    assert doctor.extras("no-such-package")[0].state == "warn"


def test_table_says_everything():
    findings = [Finding("a [b]", "1.5 [x]", "warn", "do [this]"), Finding("c", "fine")]
    words = [line.split() for line in doctor.table(findings).splitlines()]
    assert words == [["warn", "a", "[b]", "1.5", "[x]"], ["->", "do", "[this]"], ["ok", "c", "fine"]]
