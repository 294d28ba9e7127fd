"""How long a network was trained, and what merging costs it then: top-1 at equal numbers of parameters.

    python benchmarks/training_length.py [--fashion FOLDER] [--folder FOLDER] [--limit N]

The same VGG16, a quarter as wide, is trained with the same images of Fashion-MNIST at 32 x 32 for one, two and eight
epochs (paper_networks.py) and compressed without data by the rules of Table 6. The networks differ in their own
accuracy, so what is left of it stands beside each result, in %.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fashion_mnist import pictures
from measuring import LabelledImages, Subject, size, top_1
from paper_cases import test_part, trained_network
from paper_non_uniform import measured_at_size, rules_of
from paper_tables import NON_UNIFORM

SHARES = (0.9, 0.8, 0.7, 0.6)
EPOCHS = (1, 2, 8)


def lines(subjects: Mapping[int, Subject], data: LabelledImages, shares: Sequence[float] = SHARES) -> Iterator[str]:
    """Yield a Markdown table, a row for each number of epochs and rule."""
    yield f"| epochs | method | original | {' | '.join(f'{share:.0%} of the parameters' for share in shares)} |"
    yield "| --- | --- | --- |" + " --- |" * len(shares)
    for epochs, subject in subjects.items():
        parameters, own = size(subject.folded).parameters, top_1(subject.folded, data)
        for rule in rules_of(NON_UNIFORM["table6"]).values():
            found = [measured_at_size(subject, rule, round(share * parameters), data).accuracy for share in shares]
            cells = [f"{accuracy:.2f} ({100 * accuracy / own:.0f})" for accuracy in found]
            yield f"| {epochs} | {rule.name} | {own:.2f} | {' | '.join(cells)} |"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description="What merging costs VGG16 after one, two and eight epochs.")
    parser.add_argument("--fashion", type=Path, help="folder with Fashion-MNIST's .gz files; default: Debian's package")
    parser.add_argument("--folder", type=Path, help="where fashion_mnist_test.npz is")
    parser.add_argument("--limit", type=int, help="use the first N test images only")
    arguments = parser.parse_args()
    subjects = {
        epochs: Subject.load(trained_network(f"fashion_mnist_vgg16_{epochs}", arguments.fashion)) for epochs in EPOCHS
    }
    for line in lines(subjects, pictures(test_part(arguments, "fashion_mnist"))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
