"""Shape suffixes: B batch, S tokens, N rows there were, K new rows, D features."""

from typing import Any

import torch
from torch import Tensor, nn


class NewRows(nn.Module):
    """A frozen embedding and a small trained one for the tokens beyond it: no gradient has the vocabulary's size, no old row can move."""

    def __init__(self, old: nn.Embedding, first: int, count: int):
        """`first`: the id of the first new token, which is how many the tokenizer knew before."""
        super().__init__()
        self.first = first
        self.old = old.requires_grad_(False)  # before the new ones: a text encoder's dtype is that of its first parameter
        rows_KD = torch.zeros(count, old.embedding_dim, device=old.weight.device)
        self.new = nn.Embedding.from_pretrained(rows_KD, freeze=True)

    def forward(self, ids_BS: Tensor) -> Tensor:
        fresh_BS1 = (ids_BS >= self.first)[..., None]
        known_BSD = self.old(ids_BS.clamp(max=self.first - 1))
        return torch.where(fresh_BS1, self.new((ids_BS - self.first).clamp(min=0)).to(known_BSD.dtype), known_BSD)

    def plain(self) -> nn.Embedding:
        """One stock embedding of all rows, in the old ones' precision."""
        old_ND = self.old.weight[: self.first]
        return nn.Embedding.from_pretrained(torch.cat([old_ND, self.new.weight.detach().to(old_ND.dtype)]), freeze=True)


def exchange(model: Any, embedding: nn.Embedding | NewRows, rows: int) -> None:
    """Gives a text encoder another input embedding, and tells its configuration how many rows that has."""
    model.set_input_embeddings(embedding)
    model.config.vocab_size = rows
