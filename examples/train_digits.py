"""Train the small SMT of export/smt_digits-*.toml on scikit-learn's digits, on a CPU.

    python examples/train_digits.py [--out export/smt_digits.safetensors] [--epochs N]

The shape of the network and its preprocessing are the recipe's. Exit codes: 0 done, 2 bad input,
3 this machine lacks something.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from digits_data import COPIES_SEED, Digits, augmented, digits
from PIL.Image import Image
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from sam_deploy.models import SMT
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import Recipe, read_recipe

EXPORT = Path(__file__).resolve().parents[1] / "export"
RECIPE = EXPORT / "smt_digits-fp32-32.toml"
CLASSES = 10
SEED = 0
EPOCHS = 60
BATCH = 64
RATE = 2e-3
WARMUP = 0.05  # of all steps
DECAY = 0.05
SMOOTHING = 0.05
COPIES = 8  # of every held-out image, when the result is judged
_COPY_SEEDS = 1000  # of the first epoch; not those of the held-out copies
THREADS = 1  # with more, busy cores make it slower and their number changes the sums


def train(
    recipe: Recipe,
    part: Digits,
    *,
    epochs: int = EPOCHS,
    seed: int = SEED,
    said: Callable[[str], None] = lambda line: None,
) -> SMT:
    """An SMT of the recipe's architecture, trained on new augmented copies of `part` every epoch.

    AdamW on cross-entropy with label smoothing, the rate rising at first and falling along a
    cosine. The same twice on one machine with one number of threads. `said` is given a line an
    epoch.

    Returns:
        The network in evaluation mode: float32 (B, 3, H, W) to logits (B, 10).
    """
    assert recipe.architecture is not None
    assert recipe.preprocessing is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SMT(recipe.architecture, num_classes=CLASSES)
        loss_of = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        optimizer = torch.optim.AdamW(_groups(model), lr=RATE)
        steps = epochs * -(-len(part.images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, RATE, total_steps=steps, pct_start=WARMUP, cycle_momentum=False
        )
        labels = torch.tensor(part.labels)
        for epoch in range(epochs):
            began, total = time.perf_counter(), 0.0
            copies = augmented(part.images, 1, _COPY_SEEDS + epoch)
            inputs = tensor(recipe.preprocessing, copies)
            for chosen in torch.randperm(len(labels)).split(BATCH):
                loss = loss_of(model(inputs[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
            seconds = time.perf_counter() - began
            said(f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.4f}, {seconds:.1f} s")
    return model.eval()


def tensor(preprocessing: Preprocessing, images: Sequence[Image]) -> Tensor:
    """What the model is given for `images`: float32 (B, 3, H, W)."""
    return torch.from_numpy(preprocessing.batch(images))


def accuracy(model: nn.Module, inputs: Tensor, labels: Sequence[int]) -> float:
    """The part of `inputs` (B, 3, H, W) that `model` gives their labels, 0..1."""
    with torch.no_grad():
        found = torch.cat([model(x).argmax(1) for x in inputs.split(256)])
    return (found == torch.tensor(labels)).double().mean().item()


def save(model: nn.Module, out: Path) -> None:
    """Write the weights under their names to a safetensors file, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_bytes(to_bytes(model.state_dict(), metadata={"format": "pt"}))
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weights decay; biases and what the norms hold do not."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]


def _epochs(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Train smt_digits.")
    parser.add_argument("--out", type=Path, default=EXPORT / "smt_digits.safetensors")
    parser.add_argument("--epochs", type=_epochs, default=EPOCHS, help=f"default: {EPOCHS}")
    args = parser.parse_args(argv)
    if args.out.is_dir():
        print(f"error: {args.out} is a folder; give a file.", file=sys.stderr)
        return 2
    try:
        learnt, held_out = digits()
    except ImportError:
        print("error: scikit-learn is missing: pip install scikit-learn", file=sys.stderr)
        return 3
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        _learn(args.out, args.epochs, learnt, held_out)
    except OSError as error:
        print(f"error: cannot write {args.out}: {error}", file=sys.stderr)
        return 3
    return 0


def _learn(out: Path, epochs: int, learnt: Digits, held_out: Digits) -> None:
    """Train, save, and print what came of it."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    recipe = read_recipe(RECIPE)
    assert recipe.preprocessing is not None
    began = time.perf_counter()
    model = train(recipe, learnt, epochs=epochs, said=lambda line: print(line, file=sys.stderr))
    seconds = time.perf_counter() - began
    save(model, out)

    plain = tensor(recipe.preprocessing, held_out.images)
    copies = tensor(recipe.preprocessing, augmented(held_out.images, COPIES, COPIES_SEED))
    repeated = [label for label in held_out.labels for _ in range(COPIES)]
    print(f"{out}: {sum(p.numel() for p in model.parameters())} parameters, {seconds:.0f} s")
    print(
        f"accuracy on {len(plain)} held-out digits: {accuracy(model, plain, held_out.labels):.2%}"
    )
    print(f"accuracy on {len(copies)} copies of them: {accuracy(model, copies, repeated):.2%}")


if __name__ == "__main__":
    sys.exit(main())
