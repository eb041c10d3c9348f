"""The step of `grokking.py` with TransformerLens 2: one per line read, its seconds written.

Runs in an environment with transformer-lens<3, without phasescope.
"""

import json
import random
import sys
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig


def main() -> None:
    settings = json.loads(sys.argv[1])
    p = settings["p"]
    torch.set_num_threads(settings["threads"])
    config = HookedTransformerConfig(
        n_layers=1, n_heads=4, d_model=settings["d_model"], d_head=settings["d_model"] // 4,
        d_mlp=settings["d_mlp"], act_fn="relu", normalization_type=None, d_vocab=p + 1,
        d_vocab_out=p + 1, n_ctx=3, init_weights=True, device="cpu", seed=0,
    )  # fmt: skip
    model = HookedTransformer(config)
    pairs = [(a, b, p) for a in range(p) for b in range(p)]
    random.Random(0).shuffle(pairs)
    tokens = torch.tensor(pairs)
    labels = (tokens[:, 0] + tokens[:, 1]) % p
    n_train = int(settings["train_fraction"] * p * p)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1.0, fused=True
    )

    def loss(rows: slice) -> torch.Tensor:
        logits = model(tokens[rows])[:, -1].double()
        return torch.nn.functional.cross_entropy(logits, labels[rows])

    for _ in sys.stdin:
        start = time.perf_counter()
        optimizer.zero_grad()
        train_loss = loss(slice(n_train))
        train_loss.backward()
        with torch.inference_mode():
            loss(slice(n_train, None))
        optimizer.step()
        print("seconds", time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
