"""Runs that write about pictures and answer questions, untrained and small, and a server for them in this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import uvicorn

from diptych.core.batch import DataSpec
from diptych.data.scene_graph import COLOURS
from diptych.data.tokenizer import Tokenizer
from diptych.models.answer import attention_vqa
from diptych.models.caption import cnn_captioner
from diptych.models.generate import gan_cls
from diptych.predictor import Predictor
from diptych.serve.app import make_app
from diptych.serve.run import listen
from diptych.serve.settings import ServeSettings
from tests.models.systems import SMALL_GAN

TEXTS = ["a red circle above a blue square", "what colour is the circle?", "a small green star"]
COLOURED = tuple(COLOURS)
SMALL = {"image_width": 8, "image_blocks": (1, 1), "heads": 2, "hidden": 24, "dim": 12}


def _ready(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return model.eval()


def _spec(tokenizer: Tokenizer, **facts: object) -> DataSpec:
    marks = {name: getattr(tokenizer, name) for name in ("pad_id", "bos_id", "eos_id", "unk_id")}
    return DataSpec(image_size=32, vocabulary=tokenizer.vocabulary, context=16, **marks, **facts)


def writer() -> Predictor:
    tokenizer = Tokenizer.train(TEXTS * 2, vocabulary=300)
    spec = _spec(tokenizer)
    model = cnn_captioner.build(cnn_captioner.Config(**SMALL, text_context=10), spec)
    return Predictor(_ready(model), tokenizer, spec, system="cnn_captioner")


def answerer(answers: tuple[str, ...] = ("red", "blue", "two", "圆", "yes", "no")) -> Predictor:
    tokenizer = Tokenizer.train(TEXTS * 2, vocabulary=300)
    spec = _spec(tokenizer, answers=answers)
    config = attention_vqa.Config(**SMALL, text_dim=16, text_layers=1, text_heads=2, layers=1)
    return Predictor(_ready(attention_vqa.build(config, spec)), tokenizer, spec, system="attention_vqa")


def drawer() -> Predictor:
    tokenizer = Tokenizer.train(TEXTS * 2, vocabulary=300)
    spec = _spec(tokenizer).model_copy(update={"image_size": 16})
    config = gan_cls.Config(**SMALL_GAN, text_dim=16, text_layers=1, text_heads=2)
    return Predictor(_ready(gan_cls.build(config, spec)), tokenizer, spec, system="gan_cls")


@dataclass(frozen=True)
class Here:
    """A server in a thread of this process."""

    address: str


@contextmanager
def served(predictor: Predictor) -> Iterator[Here]:
    opened = listen("127.0.0.1", 0)
    app = make_app(predictor, None, ServeSettings.parse({}))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield Here(f"http://127.0.0.1:{opened.getsockname()[1]}")
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
