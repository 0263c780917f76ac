"""Random words, shapes, layout and pixels of the built-in scenes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diptych.data.scene_graph import COLOURS, INVERSE, PLACES, SIDE, STYLES, draw_scene
from diptych.data.scene_random import Dice, key, noise, words
from diptych.data.scene_render import render
from diptych.data.scene_shapes import SHAPES, distance, extent, turned

GOLDEN = {
    "flat": "69b442f57ba889c9",
    "outline": "3c53863b5e3e313b",
    "textured": "8744d33649de9d1c",
    "night": "3eeb228ececa2f53",
    "noisy": "c6e96bc2d8528099",
}


def scenes(count: int, style: str = "flat", objects: tuple[int, int] = (1, 4)):
    return [draw_scene(Dice(5, k), objects=objects, style=style) for k in range(count)]


def test_words_are_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert words(1234567, 4).tolist() == published


def test_dice_draw_the_words_of_their_stream() -> None:
    dice = Dice(3, 1, 4)
    assert [dice.word() for _ in range(5)] == words(key(3, 1, 4), 5).tolist()
    assert [Dice(9).below(6), Dice(9).between(10, 15) - 10] == [words(key(9), 1).tolist()[0] % 6] * 2


def test_keys_depend_on_every_part_and_their_order() -> None:
    keys = {key(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(keys) == 12**3


def test_noise_is_the_bytes_of_the_words_lowest_first() -> None:
    first = words(7, 1).tolist()[0]
    assert noise(7, 11)[:8].tolist() == list(first.to_bytes(8, "little"))
    assert abs(noise(8, 100_000).mean() - 127.5) < 1  # standard error 0.23


def test_dice_are_fair_and_shuffle() -> None:
    dice = Dice(0)
    rolled = np.bincount([dice.below(6) for _ in range(6000)], minlength=6)
    assert rolled.min() > 880  # mean 1000, standard deviation 29
    assert sorted(dice.shuffled("abcd")) == list("abcd")
    assert {"".join(dice.shuffled("abc")) for _ in range(60)} == {"abc", "acb", "bac", "bca", "cab", "cba"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turn", [-20, 0, 13])
def test_extent_is_the_tight_box_of_the_shape(shape: str, turn: int) -> None:
    grid = np.linspace(-1.4, 1.4, 561, dtype=np.float32)
    cos, sin = turned(turn)
    x, y = np.meshgrid(grid, grid)
    inside = distance(shape, x * cos + y * sin, y * cos - x * sin) <= 0
    columns, rows = grid[inside.any(0)], grid[inside.any(1)]
    seen = (columns[0], rows[0], columns[-1], rows[-1])
    assert np.abs(np.array(extent(shape, SIDE, turn)) / SIDE - seen).max() < 0.012


def test_scenes_are_well_formed() -> None:
    drawn = scenes(400)
    assert {len(scene.objects) for scene in drawn} == {1, 2, 3, 4}
    assert {thing.place for scene in drawn for thing in scene.objects} == set(PLACES)
    assert {thing.shape for scene in drawn for thing in scene.objects} == set(SHAPES)
    assert {thing.colour for scene in drawn for thing in scene.objects} == set(COLOURS)
    for scene in drawn:
        looks = [(thing.shape, thing.colour, thing.size) for thing in scene.objects]
        assert len(set(looks)) == len(looks)
        assert all(0 <= edge <= SIDE for thing in scene.objects for edge in thing.box)
        assert scene.objects[0].radius == max(thing.radius for thing in scene.objects)
        small = [thing.radius for thing in scene.objects if thing.size == "small"]
        large = [thing.radius for thing in scene.objects if thing.size == "large"]
        assert not small or not large or max(small) * 1.2 < min(large)


def test_relations_hold_by_geometry_and_every_pair_has_one() -> None:
    for scene in scenes(300, objects=(2, 4)):
        found = scene.relations()
        for i, name, j in found:
            one, other = scene.objects[i].box, scene.objects[j].box
            gap = {
                "left of": other[0] - one[2],
                "right of": one[0] - other[2],
                "above": other[1] - one[3],
                "below": one[1] - other[3],
            }[name]
            assert gap >= 0.02 * SIDE
            assert (j, INVERSE[name], i) in found
        pairs = {(i, j) for i, _, j in found}
        assert len(pairs) == len(scene.objects) * (len(scene.objects) - 1)


def test_facts_are_plain_and_in_pixels() -> None:
    scene = scenes(1)[0]
    small, large = scene.facts(50), scene.facts(100)
    assert set(small) == {"objects", "relations", "label", "style"}
    assert set(small["objects"][0]) == {"shape", "colour", "size", "place", "box"}
    assert np.allclose(np.array(small["objects"][0]["box"]) * 2, large["objects"][0]["box"], atol=0.02)
    assert small["label"] == f"{scene.objects[0].colour} {scene.objects[0].shape}"


@pytest.mark.parametrize("style", STYLES)
def test_same_seed_same_bytes(style: str) -> None:
    digest = hashlib.sha256()
    for k, scene in enumerate(scenes(12, style)):
        digest.update(render(scene, 40 + k, stream=key(6, k)).tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[style]


def test_threads_draw_the_same_bytes() -> None:
    drawn = [scene for style in STYLES for scene in scenes(8, style)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda scene: render(scene, 48, stream=1), drawn * 2))
    for scene, picture in zip(drawn * 2, threaded, strict=True):
        assert (render(scene, 48, stream=1) == picture).all()


@pytest.mark.parametrize("style", ["flat", "outline", "night"])
def test_size_changes_the_pixels_not_the_scene(style: str) -> None:
    for k, scene in enumerate(scenes(10, style)):
        small = render(scene, 64, stream=k).astype(float)
        large = render(scene, 256, stream=k).reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(small - large).mean() < 6  # of 255: only edges, lines and stars differ


@pytest.mark.parametrize("style", STYLES)
def test_objects_stand_in_their_boxes_and_in_their_colours(style: str) -> None:
    """Compare each picture with the one of the same scene without one object: only the box and its halo differ."""
    for k, scene in enumerate(scenes(20, style, (2, 4))):
        last = scene.objects[-1]
        without = type(scene)(scene.objects[:-1], style)
        size = 128
        full, less = (render(one, size, stream=k).astype(float) for one in (scene, without))
        if style == "noisy":  # the noise is the same, but comes after other throws of the dice
            continue
        changed = np.abs(full - less).max(2) > 60
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        left, top, right, bottom = (edge * size / SIDE for edge in last.box)
        margin = 5.0
        assert columns[0] >= left - margin
        assert columns[-1] <= right + margin
        assert rows[0] >= top - margin
        assert rows[-1] <= bottom + margin
        assert len(columns) >= 0.6 * (right - left)


@pytest.mark.parametrize("style", STYLES)
def test_colours_are_told_apart_in_every_style(style: str) -> None:
    """The mean colour inside squares of one colour is nearer to its own mean over scenes than to any other's."""
    seen: dict[str, list[np.ndarray]] = {colour: [] for colour in COLOURS}
    for k in range(500):
        scene = draw_scene(Dice(8, k), objects=(1, 1), style=style)
        thing = scene.objects[0]
        if thing.shape not in ("square", "circle", "triangle"):
            continue
        left, top, right, bottom = (round(edge * 64 / SIDE) for edge in thing.box)
        patch = render(scene, 64, stream=k)[top:bottom, left:right].astype(float)
        seen[thing.colour].append(patch.mean((0, 1)))
    means = np.array([np.mean(seen[colour], 0) for colour in COLOURS])
    right_ones = [
        np.abs(means - one).sum(1).argmin() == place for place, colour in enumerate(COLOURS) for one in seen[colour]
    ]
    assert np.mean(right_ones) > 0.75  # backgrounds differ and are not masked here


@pytest.mark.parametrize("size", [16, 33, 200])
@pytest.mark.parametrize("style", STYLES)
def test_any_size(style: str, size: int) -> None:
    picture = render(scenes(1, style)[0], size, stream=0)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.std() > 5
