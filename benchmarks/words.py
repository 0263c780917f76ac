"""Skip-gram on captions: the time to a quality, against gensim's word2vec with one worker.

    python -m benchmarks.words CAPTIONS RATINGS [--texts FILE] [--json PATH] [--epochs N]

Both learn from the training captions of `CAPTIONS` (any data that `diptych train` takes) and the sentences of
`--texts`, with the same words, width, window, noise words and dropping of frequent words. Quality is Spearman's
correlation with `RATINGS` (lists as MEN: word, word, rating). Passes are set by `--epochs` and `--peer-epochs`, so that
qualities can be brought to meet. Times are CPU seconds of one thread, without reading and numbering the sentences. Our
rate was chosen on these lists, gensim's is its own default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diptych.core.runtime import seed_everything
from diptych.data.sources import open_data
from diptych.data.vocabulary import word_tokenizer
from diptych.metrics.similarity import read_rated, similarity
from diptych.models.words.skipgram import Config, Skipgram
from diptych.tasks.data import spec_for
from diptych.tasks.sentences import Corpus, SentenceBatches, lines_of
from diptych.tasks.task import Task
from diptych.train.config import TrainConfig
from diptych.train.trainer import train

THRESHOLD = 1e-3


def ours(corpus: Corpus, config: Config, spec: Any, settings: TrainConfig, batch: int) -> tuple[float, np.ndarray]:
    """Train in the one trainer; return seconds and vectors."""
    seed_everything(0)
    model = Skipgram(config, spec)
    counts = corpus.counts(spec.vocabulary)
    batches = SentenceBatches(corpus, counts, batch_size=batch, noise=32, threshold=THRESHOLD, seed=0, training=True)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(model, Task(spec, batches), settings, out=Path(folder) / "run", quiet=True)
        seconds = time.process_time() - start
    return seconds, model.word_vectors().detach().numpy()


def theirs(sentences: list[list[str]], config: Config, epochs: int) -> tuple[float, dict[str, int], np.ndarray] | None:
    """Train gensim's; return seconds, words and vectors; None where gensim is not installed."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        return None
    peer = Word2Vec(
        vector_size=config.dim,
        window=config.window,
        negative=config.noise,
        sg=1,
        sample=THRESHOLD,
        min_count=config.least,
        workers=1,
        seed=1,
    )
    peer.build_vocab(sentences)
    start = time.process_time()
    peer.train(sentences, total_examples=len(sentences), epochs=epochs)
    seconds = time.process_time() - start
    return seconds, peer.wv.key_to_index, peer.wv.vectors


def main() -> None:
    """Train both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions")
    parser.add_argument("ratings", type=Path, nargs="+")
    parser.add_argument("--texts", default="")
    parser.add_argument("--epochs", type=float, default=7)
    parser.add_argument("--peer-epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = open_data(asked.captions)
    texts = [*source.texts(source.rows("train")), *lines_of(asked.texts)]
    config = Config()
    tokenizer = word_tokenizer(texts, least=config.least)
    corpus, spec = Corpus.read(texts, tokenizer), spec_for(tokenizer)
    names = [str(tokenizer.backend.id_to_token(place)) for place in range(spec.vocabulary)]
    settings = TrainConfig(epochs=asked.epochs, lr=asked.lr, weight_decay=0, clip=0, save_minutes=0, device="cpu")
    seconds, vectors = ours(corpus, config, spec, settings, asked.batch)
    lists = [np.split(corpus.words, corpus.first[1:-1])]
    sentences = [[names[word] for word in sentence.tolist()] for sentence in lists[0]]
    runs = {"diptych": (seconds, asked.epochs, {name: place for place, name in enumerate(names)}, vectors)}
    peer = theirs(sentences, config, asked.peer_epochs)
    if peer is None:
        print("gensim is not installed, so there is no peer: pip install gensim")
    else:
        runs["gensim"] = (peer[0], float(asked.peer_epochs), peer[1], peer[2])
    table = [_row(name, run, len(corpus.words), asked.ratings) for name, run in runs.items()]
    if len(table) == 2:
        print(f"diptych took {table[0]['seconds'] / table[1]['seconds']:.2f} times gensim's time")
    if asked.json is not None:
        asked.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _row(name: str, run: tuple[float, float, dict[str, int], np.ndarray], words: int, ratings: list[Path]) -> Any:
    seconds, epochs, numbers, vectors = run
    found = {path.stem: similarity(read_rated(path), numbers, vectors)["spearman"] for path in ratings}
    rate = words * epochs / seconds
    told = "  ".join(f"{list_name} {value:.3f}" for list_name, value in found.items())
    print(f"{name:8} {epochs:4g} passes  {seconds:6.1f} s  {rate / 1000:6.0f}k words/s  {told}")
    return {"name": name, "epochs": epochs, "seconds": seconds, "words_per_second": rate, "spearman": found}


if __name__ == "__main__":
    main()
