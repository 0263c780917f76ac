"""Find the pictures that a text fits, with an exported run: needs onnxruntime, tokenizers, numpy and Pillow alone.

diptych export runs/mine --onnx exported
python examples/onnx_without_diptych.py exported "a red circle" photos/*.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

folder, text, paths = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
facts = json.loads((folder / "encoders.json").read_text(encoding="utf-8"))["image"]
side = facts["size"]


def pixels(path: str) -> np.ndarray:
    """Return a picture as the model wants it: square, RGB, bytes."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    shorter = min(picture.size)
    center = facts["crop"] == "center"
    width, height = (int(side * length / shorter) if center else side for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


image, words = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("image", "text"))
tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch([text])
asked = {"tokens": [one.ids for one in tokens], "mask": [one.attention_mask for one in tokens]}
(query,) = words.run(None, {"tokens": np.array(asked["tokens"]), "mask": np.array(asked["mask"], bool)})
(vectors,) = image.run(None, {"image": np.stack([pixels(path) for path in paths])})
for cosine, path in sorted(zip((vectors @ query[0]).tolist(), paths, strict=True), reverse=True):
    print(f"{cosine:.4f}  {path}")
