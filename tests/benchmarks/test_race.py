"""The race's own arithmetic: what it takes the median of, what it does again, and from when its budget counts."""

import importlib
import itertools
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("a source distribution has no benchmarks", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))  # by its place: other packages bring a `benchmarks` of their own
try:
    race, race_peers, race_sets = (importlib.import_module(name) for name in ("race", "race_peers", "race_sets"))
finally:
    sys.path.remove(str(BENCHMARKS))

# A peer of one number, in the place of a real one, in a process that needs a second to start.
PEER = """
import sys, time
time.sleep(1.0)
sys.path.insert(0, {folder!r})
import torch
import race_peers

def tiny(side, channels):
    net = torch.nn.Linear(1, 1)
    loss = lambda x: net(x.mean().view(1, 1)).square().mean()
    draw = lambda n, steps: torch.zeros(n, channels, side, side)
    return race_peers.Peer(net, torch.optim.SGD(net.parameters(), lr=1e-3), loss, lambda steps: None, draw, 3, ())

race_peers.PEERS["tiny"] = tiny
race_peers.main()
"""


def row(side: str, minutes: float, seed: int, fd: float, **other: object) -> dict[str, object]:
    return {"side": side, "minutes": minutes, "seed": seed, "quality": {"n": 9, "fd": fd}, "train_s": 60.0, **other}


def images(path: Path) -> Path:
    path.write_bytes(b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in (70, 4, 4)) + bytes(70 * 16))
    return path


def test_the_table_has_medians_of_what_succeeded() -> None:
    rows = [row("a", 1, seed, fd) for seed, fd in enumerate([9.0, 1.0, 4.0])]
    rows += [row("a", 1, 3, 0.0) | {"error": "broke"}, row("b", 1, 0, 5.0), row("b", 1, 1, 8.0)]
    rows += [row("b", 10, 0, 3.0), {"side": "c", "minutes": 1.0, "seed": 0, "error": "no such module"}]
    found = race.medians(rows)
    assert {at: (m["fd"], m["count"]) for at, m in found.items()} == {
        ("a", 1): (4.0, 3),
        ("b", 1): (6.5, 2),
        ("b", 10): (3.0, 1),
    }
    lines = race.table(rows, {"n": 9, "fd": 2.0}).splitlines()
    assert lines[0].startswith("| minutes | side | seeds | fd | train s |")
    assert [line[:17] for line in lines[2:6]] == [
        "| 1 | a | 3 | 4 |",
        "| 1 | b | 2 | 6.5",
        "| 10 | b | 1 | 3 ",
        "| | real, unseen ",
    ]
    assert {line for line in lines if line.startswith("failed")} == {
        "failed: a, 1 min, seed 3: broke",
        "failed: c, 1 min, seed 0: no such module",
    }


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, float, int]] = []

    def fake(side: str, minutes: float, seed: int, given: object, target: Path) -> dict[str, object]:
        ran.append((side, minutes, seed))
        if len(ran) == 2:
            raise KeyboardInterrupt
        if len(ran) == 3:
            raise RuntimeError("broke")
        return {"sample_s": 2.0}

    monkeypatch.setattr(race, "ours", fake)
    monkeypatch.setattr(race, "peer", fake)
    monkeypatch.setattr(race, "score", lambda given, *what: {"n": 9, "fd": 1.0})
    command = ["--out", str(tmp_path), "--data", "x", "--quality", "y", "--minutes", "3", "1", "--seeds", "0"]
    command += ["--sides", "langevin", "edm", "--samples", "10"]
    with pytest.raises(KeyboardInterrupt):
        race.main(command)
    race.main(command)
    race.main(command)
    race.main(command)
    first, second = [("langevin", 1.0, 0), ("edm", 1.0, 0)], [("langevin", 3.0, 0), ("edm", 3.0, 0)]
    assert ran == [*first, ("edm", 1.0, 0), *second, ("edm", 1.0, 0)]  # cut off, failed, done
    kept = [json.loads(line) for line in (tmp_path / "race.jsonl").read_text().splitlines()]
    assert [(r["side"], r["minutes"], "error" in r) for r in kept] == [
        ("langevin", 1.0, False),
        ("edm", 1.0, True),
        ("langevin", 3.0, False),
        ("edm", 3.0, False),
        ("edm", 1.0, False),
    ]
    assert kept[0]["samples_per_s"] == 5.0


def test_the_budget_counts_from_the_start_of_the_process(tmp_path: Path) -> None:
    began = time.time()
    command = ["tiny", "--images", images(tmp_path / "images-idx3-ubyte"), "--minutes", 0.9 / 60, "--samples", 4]
    command += ["--out", tmp_path / "made.npz", "--threads", 1, "--began", began]
    code = [sys.executable, "-c", PEER.format(folder=str(BENCHMARKS)), *map(str, command)]
    made = json.loads(subprocess.run(code, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert made["steps"] == made["pictures"] == 0  # it was spent before the first step
    assert 1.0 < made["train_s"] < time.time() - began


def test_training_and_its_rate_follow_the_clock() -> None:
    net, steps = torch.nn.Linear(1, 1), []
    optimizer = torch.optim.SGD(net.parameters(), lr=2.0)

    def loss(x: torch.Tensor) -> torch.Tensor:
        steps.append((budget.spent(), optimizer.param_groups[0]["lr"]))
        return 1e-6 * net(x).square().mean()

    peer = race_peers.Peer(net, optimizer, loss, lambda steps: None, lambda n, steps: torch.zeros(n), 1, ())
    budget = race_peers.Budget(time.time(), 0.5)
    made = race_peers.train(peer, itertools.repeat(torch.ones(1, 1)), budget, torch.float32)
    assert made == len(steps) > 10
    assert budget.spent() >= 1 > steps[-2][0]  # the last one may begin before the end and be seen after it
    law = lambda share: min(share / 0.05, 1) * (1 + math.cos(math.pi * max(share - 0.05, 0) / 0.95))  # noqa: E731
    near = sorted(abs(rate - law(share)) for share, rate in steps)
    assert near[len(near) // 2] < 0.01  # the clock goes on between the two looks at it


def test_a_side_that_fails_leaves_its_last_words() -> None:
    with pytest.raises(RuntimeError, match="exit code 3: at last"):
        race.call([sys.executable, "-c", "import sys; print('first\\nat last', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(RuntimeError, match="no-such"):
        race.call(["/no-such/python"])


def test_the_training_pair_is_found_beside_the_test_files(tmp_path: Path) -> None:
    names = [f"{part}-{what}-ubyte.gz" for part in ("t10k", "train") for what in ("images-idx3", "labels-idx1")]
    for name in names:
        (tmp_path / name).touch()
    assert race.pair([tmp_path]) == (tmp_path / names[2], tmp_path / names[3])
    assert race.pair([tmp_path / names[2]]) == (tmp_path / names[2], None)
    with pytest.raises(SystemExit):
        race.pair([tmp_path / names[0]])


def test_peers_learn_from_arrays_as_from_idx_files(tmp_path: Path) -> None:
    some = np.arange(70 * 16, dtype=np.uint32).astype(np.uint8).reshape(70, 4, 4)
    (tmp_path / "images").write_bytes(
        b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in some.shape) + some.tobytes()
    )
    np.save(tmp_path / "images.npy", some[..., None])
    for file in ("images", "images.npy"):
        assert np.array_equal(race_peers.pictures_of(tmp_path / file), some[..., None])
    np.save(tmp_path / "wrong.npy", some.astype(np.float32))
    with pytest.raises(ValueError, match="uint8 wanted"):
        race_peers.pictures_of(tmp_path / "wrong.npy")
    batch = next(race_peers.batches(some[..., None], 70))
    assert batch.shape == (70, 1, 4, 4)
    assert sorted(batch.flatten().tolist()) == pytest.approx(sorted((some / 127.5 - 1).flatten().tolist()), abs=1e-6)


def test_each_set_has_its_sides_and_its_floor() -> None:
    of = lambda name, side, value: {  # noqa: E731
        "set": name, "side": side, "minutes": 10, "steps": 1234, "figures": {"f": value}, "floors": {"f": 0.5}
    }  # fmt: skip
    rows = [
        of("a", "langevin", 1.0),
        of("b", "langevin", 2.0),
        {"set": "b", "side": "edm", "error": "broke"},
        of("a", "edm", 3.0),
    ]
    assert race_sets.table(rows).splitlines()[2:] == [
        "| a | 10 | langevin | 1,234 | 1 |",
        "| a | 10 | edm | 1,234 | 3 |",
        "| a | | real, unseen (the floor) | | 0.5 |",
        "| b | 10 | langevin | 1,234 | 2 |",
        "| b | | real, unseen (the floor) | | 0.5 |",
    ]
