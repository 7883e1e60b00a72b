"""Vectors without a store: ``penstock.embed`` yields them as they are made.

    python examples/embed_without_a_store.py

Here they go into one NumPy array in memory, and the pairs of photographs that look most alike are printed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import penstock

PHOTOS = Path(__file__).parent / "photos"


def main() -> None:
    names: list[str] = []
    vectors: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    for key, vector in penstock.embed(PHOTOS, workers=2):
        if isinstance(vector, Exception):
            print(f"{key}: {vector}")
            continue
        names.append(Path(key).name)
        vectors.append(vector / np.linalg.norm(vector))
    matrix = np.stack(vectors)
    print(f"{len(names)} photographs, vectors of {matrix.shape[1]} floats")
    alike = np.triu(matrix @ matrix.T, 1)
    for place in np.argsort(-alike, axis=None)[:3]:
        one, other = np.unravel_index(place, alike.shape)
        print(f"{alike[one, other]:.3f}  {names[one]}  {names[other]}")


if __name__ == "__main__":
    main()
