"""A model as strangers write them; see rnn_rows at the end."""

import random

import torch
from torch import nn


class RowLSTM(nn.Module):
    """Reads a picture line by line, both ways."""

    def __init__(self, row: int = 8, hidden_size: int = 24, latent_size: int = 10, num_layers: int = 2):
        super().__init__()
        self.hidden_size = hidden_size
        self.hidden_factor = 2 * num_layers
        self.rnn = nn.LSTM(row, hidden_size, num_layers, batch_first=True, bidirectional=True, dropout=0.1)
        self.hidden2mean = nn.Linear(hidden_size * self.hidden_factor, latent_size)
        self.hidden2logv = nn.Linear(hidden_size * self.hidden_factor, latent_size)
        self.hidden = None

    def forward(self, x):
        batch_size = x.size(0)
        rows = x.view(batch_size, 8, 8)
        if self.training:
            # sort by ink, as for pack_padded_sequence, and undo it later
            _, sorted_idx = torch.sort(rows.sum((1, 2)), descending=True, stable=True)
            _, reversed_idx = torch.sort(sorted_idx)
            rows = rows[sorted_idx]
        self.rnn.flatten_parameters()
        _, (hidden, _cell) = self.rnn(rows)
        self.hidden = hidden
        hidden = hidden.permute(1, 0, 2).reshape(batch_size, self.hidden_size * self.hidden_factor)
        if self.training:
            hidden = hidden[reversed_idx]
        mean = self.hidden2mean(hidden)
        logv = self.hidden2logv(hidden)
        return torch.cat([mean, logv], dim=-1)


class RowGRUDecoder(nn.Module):
    def __init__(self, row=8, hidden_size=32, latent_size=10, word_dropout_rate=0.3):
        super().__init__()
        self.latent2hidden = nn.Linear(latent_size, hidden_size)
        self.sos = nn.Parameter(torch.zeros(row))
        self.cell = nn.GRUCell(row + latent_size, hidden_size)
        self.outputs2row = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, row))
        self.word_dropout_rate = word_dropout_rate

    def forward(self, z):
        h = torch.tanh(self.latent2hidden(z))
        prev = self.sos.expand(z.size(0), -1)
        rows = []
        for t in range(8):
            if self.training and t > 0:
                # randomly replace the previous row by <unk>
                prob = torch.rand(z.size(0), device=z.device)
                prev = prev.clone()
                prev[prob < self.word_dropout_rate] = 0.5
            h = self.cell(torch.cat([prev, z], dim=1), h)
            if t == 4 and self.training and random.random() < 0.25:
                h = h.detach()  # truncated BPTT, now and then
            out = self.outputs2row(h)
            rows.append(out)
            prev = torch.sigmoid(out)
        return torch.stack(rows, dim=1).unsqueeze(1)


def rnn_rows() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Bidirectional LSTM over sorted rows, GRUCell loop, word dropout, sometimes truncated BPTT; Sentence-VAE."""
    return RowLSTM(), RowGRUDecoder(), 10, (1, 8, 8)
