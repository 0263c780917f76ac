"""Beam search over captions of 20 tokens: against transformers' generate with its cache, and the way M2 was published.

    python -m benchmarks.decode [--json PATH] [--repeats N]

The first peer is a GPT-2 with cross-attention in a VisionEncoderDecoderModel, given our decoder's own weights and the
same encodings. The second is the published code's way of decoding, written out here over our own Meshed-Memory
weights: layer inputs are kept rather than keys and values, so that those of the words are made again at every step, and
those of the cells at every step, for each beam, layer and level; encodings are repeated for each beam and moved with
it; all candidates are sorted. Both must write the same tokens as ours before they are timed. Encoding the picture is
left out of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import arguments, gemm_rate, interleave, report
from diptych.core.writing import Writing
from diptych.models.caption.meshed_memory import MeshedLayer
from diptych.nn.decode import Marks, write
from diptych.nn.decoder import PlainLayer, WordDecoder, sinusoids

DIM, HEADS, HIDDEN, VOCABULARY, LONGEST = 512, 8, 2048, 10_000, 20
LAYERS, CELLS = 6, 197  # of the plain decoder; ViT/16 at 224 pixels has so many tokens
LEVELS, REGIONS = 3, 50  # of Meshed-Memory, as published
MARKS = Marks(1, 2, 0)


def plain_decoder() -> WordDecoder:
    """Make a decoder of GPT-2's kind with random weights."""
    torch.manual_seed(0)
    layers = [PlainLayer(DIM, HEADS, hidden=HIDDEN) for _ in range(LAYERS)]
    positions = nn.Parameter(0.1 * torch.randn(LONGEST, DIM))
    return WordDecoder(layers, DIM, vocabulary=VOCABULARY, positions=positions, norm=True, tied=True).eval()


def meshed_decoder() -> WordDecoder:
    """Make a Meshed-Memory decoder of the published size with random weights."""
    torch.manual_seed(0)
    layers = [MeshedLayer(DIM, HEADS, levels=LEVELS, hidden=HIDDEN) for _ in range(LEVELS)]
    return WordDecoder(
        layers, DIM, vocabulary=VOCABULARY, positions=sinusoids(LONGEST, DIM), norm=False, tied=False, scale=DIM**0.5
    ).eval()


def ours(decoder: WordDecoder, levels: tuple[Tensor, ...], beams: int) -> Tensor:
    """Write the best text of each item; no text ends early."""
    writing = Writing(beams=beams, longest=LONGEST, shortest=LONGEST)
    return write(decoder.begin(levels), len(levels[0]), MARKS, writing).tokens[:, 0]


def as_gpt2(decoder: WordDecoder) -> Any:
    """Put the weights of a decoder into transformers' GPT-2 with cross-attention, behind an unused encoder."""
    from transformers import GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel

    first = decoder.layers[0]
    assert isinstance(first, PlainLayer)
    vocabulary, dim = decoder.embedding.weight.shape
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=len(decoder.positions),
        n_embd=dim,
        n_layer=len(decoder.layers),
        n_head=first.back.heads,
        n_inner=first.mlp.up.out_features,
        activation_function="gelu",
        add_cross_attention=True,
        is_decoder=True,
        bos_token_id=MARKS.bos,
        eos_token_id=MARKS.eos,
    )
    gpt2 = GPT2LMHeadModel(config)
    body = gpt2.transformer
    pairs: list[tuple[nn.Module, nn.Module]] = [(body.ln_f, decoder.norm)]
    for theirs, layer in zip(body.h, decoder.layers, strict=True):
        assert isinstance(layer, PlainLayer)
        pairs += [
            (theirs.ln_1, layer.back_norm),
            (theirs.ln_cross_attn, layer.look_norm),
            (theirs.ln_2, layer.mlp_norm),
        ]
        pairs += [(theirs.attn.c_attn, layer.back.inward), (theirs.attn.c_proj, layer.back.out)]
        cross = theirs.crossattention
        pairs += [
            (cross.q_attn, layer.cross.query),
            (cross.c_attn, layer.cross.inward),
            (cross.c_proj, layer.cross.out),
        ]
        pairs += [(theirs.mlp.c_fc, layer.mlp.up), (theirs.mlp.c_proj, layer.mlp.down)]
    with torch.no_grad():
        body.wte.weight.copy_(decoder.embedding.weight)
        body.wpe.weight.copy_(decoder.positions)
        for theirs, own in pairs:
            weight = own.weight.T if isinstance(own, nn.Linear) else own.weight  # their maps are stored the other way
            theirs.weight.copy_(weight)
            theirs.bias.copy_(own.bias)
    tiny = ViTConfig(hidden_size=dim, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    return VisionEncoderDecoderModel(encoder=ViTModel(tiny), decoder=gpt2).eval()


def generate(model: Any, cells: Tensor, beams: int, *, shortest: int = LONGEST, power: float = 0.0) -> Tensor:
    """Ask transformers for the best text of each item."""
    from transformers.modeling_outputs import BaseModelOutput

    with torch.inference_mode():
        tokens: Tensor = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=cells),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=LONGEST,
            min_new_tokens=shortest - 1,
            length_penalty=power,
            early_stopping="never" if beams > 1 else False,
            use_cache=True,
            decoder_start_token_id=MARKS.bos,
            bos_token_id=MARKS.bos,
            eos_token_id=MARKS.eos,
            pad_token_id=MARKS.pad,
        )
    return tokens[:, 1:]


def published(decoder: WordDecoder, levels: tuple[Tensor, ...], beams: int) -> Tensor:
    """Write as the published code does."""
    with torch.inference_mode():
        items = len(levels[0])
        encoded = torch.stack(levels, 1)
        inputs = [torch.empty(items, 0, DIM) for _ in decoder.layers]
        texts, scores = torch.empty(items, 1, 0, dtype=torch.long), torch.zeros(items, 1)
        newest = torch.full((items, 1), MARKS.bos)
        for step in range(LONGEST):
            x = decoder.scale * decoder.embedding(newest.flatten()) + decoder.positions[step]
            x = x.unsqueeze(1)
            for place, layer in enumerate(decoder.layers):
                assert isinstance(layer, MeshedLayer)
                inputs[place] = torch.cat([inputs[place], x], dim=1)
                x = _published_layer(layer, x, inputs[place], encoded)
            log_prob = decoder.logits(x[:, 0]).log_softmax(-1).view(items, -1, VOCABULARY)
            if step + 1 < LONGEST:
                log_prob[:, :, MARKS.eos] = -torch.inf
            ordered, places = (scores.unsqueeze(-1) + log_prob).view(items, -1).sort(-1, descending=True)
            scores, chosen = ordered[:, :beams], places[:, :beams]
            parents, newest = chosen // VOCABULARY, chosen % VOCABULARY
            moved = (parents + torch.arange(items).unsqueeze(1) * log_prob.shape[1]).flatten()
            encoded, inputs = encoded[moved], [kept[moved] for kept in inputs]
            texts = torch.cat([texts.gather(1, parents.unsqueeze(-1).expand(-1, -1, step)), newest.unsqueeze(-1)], 2)
        return texts[:, 0]


def _published_layer(layer: MeshedLayer, x: Tensor, inputs: Tensor, encoded: Tensor) -> Tensor:
    query, key, value = layer.back.inward.weight.chunk(3)
    biases = layer.back.inward.bias.chunk(3)
    asked = nn.functional.linear(x, query, biases[0])
    found = _attention(
        asked, nn.functional.linear(inputs, key, biases[1]), nn.functional.linear(inputs, value, biases[2])
    )
    x = layer.back_norm(x + layer.back.out(found))
    mesh = torch.zeros_like(x)
    for level, (words, gate) in enumerate(zip(layer.gate_words(x).chunk(LEVELS, -1), layer.gate_found, strict=True)):
        keys, values = layer.cross.inward(encoded[:, level]).chunk(2, -1)
        found = layer.look_norm(x + layer.cross.out(_attention(layer.cross.query(x), keys, values)))
        mesh = mesh + found * torch.sigmoid(words + found @ gate)
    mesh = mesh / LEVELS**0.5
    out: Tensor = layer.mlp_norm(mesh + layer.mlp(mesh))
    return out


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def flops(decoder: WordDecoder) -> int:
    """Count the arithmetic of one row's step in the maps: two for each weight that it meets."""
    spared = sum(layer.cross.inward.weight.numel() for layer in decoder.layers)  # made once for each item
    several = sum(
        (LEVELS - 1) * layer.cross.out.weight.numel() for layer in decoder.layers if isinstance(layer, MeshedLayer)
    )
    maps = {id(m.weight): m.weight.numel() for m in decoder.modules() if isinstance(m, nn.Linear)}
    gates = sum(layer.gate_found.numel() for layer in decoder.layers if isinstance(layer, MeshedLayer))
    return 2 * (sum(maps.values()) + gates - spared + several)


def race(
    title: str,
    decoder: WordDecoder,
    peer: Callable[[tuple[Tensor, ...], int], Tensor],
    *,
    batch: int,
    beams: int,
    levels: int,
    cells: int,
    repeats: int,
) -> dict[str, Any]:
    """Show that both write the same, then time both."""
    torch.manual_seed(batch)
    encoded = tuple(torch.randn(batch, cells, DIM) for _ in range(levels))
    same = (ours(decoder, encoded, beams) == peer(encoded, beams)).all(1).sum().item()
    assert same == batch, f"{title}: only {same} of {batch} texts are the same"
    timing = interleave(
        {"ours": partial(ours, decoder, encoded, beams), "peer": partial(peer, encoded, beams)}, repeats=repeats
    )
    floor = batch * beams * LONGEST * flops(decoder) / gemm_rate()
    us, them = timing["ours"].median, timing["peer"].median
    return {
        "against": title,
        "batch": batch,
        "beams": beams,
        "texts/s": batch / us,
        "theirs": batch / them,
        "times faster": them / us,
        "of the floor": us / floor,
        "spread": max(timing["ours"].spread, timing["peer"].spread),
    }


def main() -> None:
    """Check, time, print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="the two claims alone")

    given = arguments(__doc__, more=more)
    plain, meshed = plain_decoder(), meshed_decoder()
    gpt2 = as_gpt2(plain)
    rows = [
        race(
            "transformers' generate",
            plain,
            lambda encoded, beams: generate(gpt2, encoded[0], beams),
            batch=batch,
            beams=beams,
            levels=1,
            cells=CELLS,
            repeats=given.repeats,
        )
        for batch, beams in ([(16, 5)] if given.quick else [(1, 1), (1, 5), (16, 1), (16, 5)])
    ]
    rows += [
        race(
            "the published M2 way",
            meshed,
            partial(published, meshed),
            batch=batch,
            beams=5,
            levels=LEVELS,
            cells=REGIONS,
            repeats=given.repeats,
        )
        for batch in ([10] if given.quick else [1, 10, 32])
    ]
    notes = [
        f"{LONGEST} tokens a text, the same in every text; width {DIM}, vocabulary {VOCABULARY:,}; "
        f"GPT-2: {LAYERS} layers, {CELLS} cells; M2: {LEVELS} layers, {LEVELS} levels of {REGIONS} cells",
        "floor: the products of weights with rows alone, at the rate of a large matrix product",
    ]
    report("Decoding", rows, notes=notes, path=given.json)


if __name__ == "__main__":
    main()
