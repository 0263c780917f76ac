"""A CLIP and a GAN on real files go on bit for bit after kill -9, inside an epoch and with two reading threads."""

import io
import json
import signal
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.train import child
from tests.train.test_resume import assert_same, everything

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "grey")
SETTINGS = {"steps": 100, "save_every": 13, "batch_size": 8, "workers": 2, "augment": "crop", "lr": 1e-3, "ema": 0.9}
SETTINGS |= {"image_size": 16, "image_dim": 16, "image_layers": 1, "image_heads": 2, "dim": 8, "dropout": 0.2}
SETTINGS |= {"text_dim": 16, "text_layers": 1, "text_heads": 2, "text_vocabulary": 300, "evaluate_every": 2}

GAN = {name: SETTINGS[name] for name in SETTINGS if name not in ("dim", "dropout", "evaluate_every")}
GAN |= {"system": "gan_cls", "generator_width": 4, "critic_width": 4, "noise": 6, "text_code": 6}


def pictures(count=60):
    """Draw blots of four colours, with two captions each."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 60, (24, 24, 3), dtype=np.uint8)
        pixels[4:20, 4:20, number % 3] += np.uint8(190)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg")
        colour = COLOURS[number % 3]
        yield f"{number:04d}", file.getvalue(), [f"a {colour} blot {number}", f"{number} is {colour}"]


def as_files(folder):
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (key, jpeg, captions) in enumerate(pictures()):
        (folder / "images" / f"{key}.jpg").write_bytes(jpeg)
        split = "train" if number < 48 else "dev" if number < 54 else "test"
        lines.append(json.dumps({"image": f"{key}.jpg", "captions": captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder / "captions.jsonl"


def as_shards(folder):
    folder.mkdir(parents=True)
    every = list(pictures())
    for shard in range(2):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for key, jpeg, captions in every[shard::2]:
                for name, content in ((f"{key}.jpg", jpeg), (f"{key}.txt", "\n".join(captions).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize(("make", "system"), [(as_files, SETTINGS), (as_shards, SETTINGS), (as_files, GAN)])
def test_kill_in_the_middle_of_an_epoch(tmp_path, make, system):
    settings = {"data": str(make(tmp_path / "data")), **system}
    ((code, text),) = child.run("pairs", tmp_path / "killed", {**settings, "kill_at": 54})
    assert code == -signal.SIGKILL, text
    (state,) = (tmp_path / "killed" / "resume").iterdir()
    place = json.loads((state / "state.json").read_text())["place"]
    assert place["step"] == 52
    assert place["batch"] > 0  # not at the end of an epoch
    for out in ("killed", "unbroken"):
        ((code, text),) = child.run("pairs", tmp_path / out, settings)
        assert code == 0, text
    killed, unbroken = everything(tmp_path / "killed"), everything(tmp_path / "unbroken")
    assert_same(killed, unbroken)
    assert unbroken[1]["place"]["step"] == 100
