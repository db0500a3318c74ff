"""The command line as a person meets it: help without torch, errors in one line, exit codes."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin.cli.main import run
from tests.models import small_model


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sample", "--help"], ["--version"]])
def test_import_and_help_do_not_import_torch(arguments):
    code = (
        "import sys, langevin\n"
        "from langevin.cli.main import run\n"
        f"assert run({arguments!r}) == 0\n"
        "assert not {'torch', 'numpy', 'scipy', 'PIL', 'matplotlib'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "x", "--minuts", "3"], "--minutes"),
        (["trian", "x"], '"train"'),
        (["sample", "r", "--stepz", "3"], "--steps"),
        (["data", "chek", "x"], '"check"'),
        (["train", "digits", "--set", "optmizer.lr=1e-3"], "did you mean `optimizer`?"),
        (["train", "digits", "--set", "optimizer.lrr=1e-3"], "did you mean `optimizer.lr`?"),
        (["train", "digits", "--set", "lr"], "NAME=VALUE"),
        (["train", "digits", "--steps", "3", "--set", "network={name: unett}"], "did you mean `unet`?"),
        (["train"], "no data given"),
        (["sample"], "no model given"),
        (["sample", "r", "--steps", "3", "--steps", "4"], "--compare"),
        (["sample", "r", "--guidance-interval", "3"], "LOW,HIGH"),
        (["train", "digits", "--minutes", "-1"], "`minutes`"),
        (["sample", "runs/nothing"], "no such model"),
        (["sample", "--replay", "nothing.png"], "no such picture"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_right_name_and_exit_code_2(in_tmp, capsys, arguments, said):
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_pickle_is_refused_with_exit_code_7_and_does_not_run(in_tmp, capsys):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (Path("ran"),))

    Path("model.pt").write_bytes(pickle.dumps(Payload()))
    assert run(["sample", "model.pt"]) == 7
    assert "can run code" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_unusable_data_are_exit_code_3(in_tmp, capsys):
    Path("empty").mkdir()
    Path("empty/readme.txt").write_text("nothing here")
    assert run(["train", "empty"]) == 3
    assert run(["data", "check", "empty"]) == 3
    Path("bad").mkdir()
    for k in range(5):
        Path(f"bad/{k}.jpg").write_text("<html>not found</html>")
    assert run(["train", "bad"]) == 3
    assert "NOT_AN_IMAGE" in capsys.readouterr().err


def test_sample_from_the_command_line_equals_sample_in_python(in_tmp, capsys):
    model = small_model()
    model.save(in_tmp / "m")
    assert run(["sample", "m", "-n", "3", "--seed", "5", "--label", "dog", "--steps", "3", "--out", "s.npz"]) == 0
    assert np.array_equal(np.load("s.npz")["images"], model.sample(3, seed=5, label="dog", steps=3))
    guided = ["--guidance", "3", "--guidance-interval", "0.1,9", "--guidance-rescale", "0.5", "--negative-label", "cat"]
    assert run(["sample", "m", "-n", "3", "--label", "dog", *guided, "--out", "g.npz"]) == 0
    same = {"guidance": 3, "guidance_interval": (0.1, 9), "guidance_rescale": 0.5, "negative_label": "cat"}
    assert np.array_equal(np.load("g.npz")["images"], model.sample(3, label="dog", **same))
    assert "made       s.npz" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="streams are closed otherwise there")
def test_with_closed_streams_it_works_and_nothing_is_written_into_its_files(in_tmp):
    """A file opened where there is no stdout would be it: what is said would stand in the file."""
    np.save("set.npy", np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8))
    code = "import os; os.closerange(0, 3)\nfrom langevin.cli import main; main(['data', 'check', 'set.npy', '--out', 's.png'])"
    assert _python(code).returncode == 0
    with Image.open("s.png") as sheet:
        sheet.load()
    assert not [p for p in in_tmp.rglob("*") if p.is_file() and b"fingerprint" in p.read_bytes()]


@pytest.mark.parametrize("command", ["ema", "checkpoints", "animate"])
def test_what_is_no_run_is_said_to_be_none(in_tmp, capsys, command):
    assert run([command, "nowhere"]) == 2
    assert "there is no such run   nowhere" in capsys.readouterr().err


def test_something_else_in_the_place_of_the_folder_of_runs_is_a_mistake(in_tmp, capsys):
    Path("runs").symlink_to("nowhere")
    assert run(["train", "digits", "--steps", "1"]) == 2
    assert "move it away" in capsys.readouterr().err


def test_data_check_says_what_training_would_do(in_tmp, capsys):
    assert run(["data", "check", "digits"]) == 0
    said = capsys.readouterr().out
    assert "1,797" in said
    assert "langevin train digits" in said
    assert Path("digits-contact-1.png").exists()


@pytest.mark.slow
def test_help_takes_less_than_half_a_second():
    times = []
    for _ in range(5):
        started = time.perf_counter()
        _python("from langevin.cli import main; main(['--help'])")
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def test_solvers_are_compared_from_the_command_line(in_tmp, capsys):
    small_model().save("m")
    given = ["--compare", "-n", "2", "--steps", "3", "--steps", "6", "--solver", "ddim", "--label", "dog"]
    assert run(["sample", "m", *given, "--out", "sheet.png"]) == 0
    said = capsys.readouterr().out
    assert "ddim" in said and "made       sheet.png" in said
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 64
