"""An autoencoder: a perceptron to the codes and its mirror image back.

Shape letters: B rows, D features, E width of the codes.
"""

from __future__ import annotations

from torch import Tensor, nn

from distspectral.models.networks import Perceptron


class Autoencoder(nn.Module):
    """Rows to codes to rows, all of it in standardised units.

    Args:
        dim: D.
        n_components: E.
        hidden: units of the encoder's hidden layers, none of linear halves; the decoder has them in reverse order.
    """

    def __init__(self, dim: int, n_components: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Perceptron(dim, n_components, hidden)
        self.decoder = Perceptron(n_components, dim, hidden[::-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows rebuilt from the codes of ``x`` (B, D): (B, D), centred and scaled as the encoder does."""
        rebuilt: Tensor = self.decoder(self.encoder(x))
        return rebuilt
