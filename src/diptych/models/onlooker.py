"""Onlooker: the image tower of a trained run, through which another system looks; it is neither trained nor saved."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.saved import read_record
from diptych.encoders.base import ImageEncoder
from diptych.encoders.offers import Sighted
from diptych.models.saved import open_model


class Onlooker:
    """Sees the places of pictures; the run is opened when it is first asked, and who learnt with it needs it no more.

    What the tower makes of each place is brought to one scale. Its channels are not mixed by a random matrix, as in
    projected GANs: a critic learns faster from them as they are.

    Args:
        run: the folder.
        width: numbers for each place, as many as the tower's; told, since the run may be gone when a system is loaded.
    """

    def __init__(self, run: str, width: int) -> None:
        self.run, self.width = run, width
        self._opened: ImageEncoder | None = None

    def see(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b {self.width} r r"]:
        """Look at pictures in [0, 1], of any size, with the gradient that leads back to them.

        Raises:
            UserError: when the folder is no finished run, one without an image tower, one of another width, or
                when its places are no square grid.
        """
        tower = self._tower(pictures.device)
        size = tower.image_size
        if pictures.shape[-1] != size:
            pictures = F.interpolate(pictures.float(), size=(size, size), mode="bilinear", antialias=True)
        places = tower(pictures).tokens.float()
        side = round(places.shape[1] ** 0.5)
        if side * side != places.shape[1]:
            raise UserError(f"the {places.shape[1]} places of the image tower of {self.run} are no square grid")
        grid: Tensor = F.layer_norm(places, places.shape[-1:]).transpose(1, 2)
        return grid.reshape(len(pictures), self.width, side, side)

    def _tower(self, device: torch.device) -> ImageEncoder:
        if self._opened is None:
            folder = Path(self.run).expanduser()
            with torch.random.fork_rng(devices=[]):
                record = read_record(folder)
                model = open_model(folder, record)
            if not isinstance(model, Sighted):
                raise UserError(f"{self.run} is a {record['system']!r}, which has no image tower to look through")
            tower = model.image_tower
            if tower.token_dim != self.width:
                raise UserError(
                    f"the image tower of {self.run} tells {tower.token_dim} numbers of each place, not {self.width}: "
                    f"give onlooker_width={tower.token_dim}"
                )
            tower.train_only(("",))  # a frozen tower would keep no gradient
            self._opened = tower.requires_grad_(False).eval()
        opened: ImageEncoder = self._opened.to(device)
        return opened
