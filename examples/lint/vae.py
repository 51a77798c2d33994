"""The loss of a variational autoencoder of binary images, as in its first implementations."""

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    """Negative evidence lower bound of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(784, 2 * 16), nn.Linear(16, 784)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = self.encoder(image).chunk(2, dim=-1)
        code = mean + noise * torch.sqrt(torch.exp(log_variance))
        p = torch.sigmoid(self.decoder(code))
        likelihood = image * torch.log(p) + (1 - image) * torch.log(1 - p)
        divergence = 0.5 * (mean**2 + torch.exp(log_variance) - log_variance - 1)
        return divergence.sum(-1).mean() - likelihood.sum(-1).mean()


def loss() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return Loss(), (torch.rand(8, 784).round(), torch.randn(8, 16))
