"""Which sites are read by one other site only, and the order in which sites run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def readers(sites: Sequence[tuple[str, str]]) -> np.ndarray:
    """Find each site's reader: the other site that alone reads its output.

    In a block whose attention and MLP run in parallel, only `proj_out` reads `attn` and `proj_mlp`. The output of a
    gated `proj_mlp` passes through its gate first.

    Args:
        sites: (block, component) of each site.

    Returns:
        int (sites,): the index of the reader, or -1 if the model itself reads the output.

    >>> readers([("0", "full_attn"), ("single_0", "single_attn"), ("single_0", "single_proj_mlp"),
    ...          ("single_0", "single_proj_out")]).tolist()
    [-1, 3, 3, -1]
    """
    index = {site: position for position, site in enumerate(sites)}
    found = np.full(len(sites), -1, dtype=np.intp)
    for (block, component), reader in index.items():
        prefix = component.removesuffix("proj_out")
        attn, proj_mlp, gated = (index.get((block, prefix + name)) for name in ("attn", "proj_mlp", "gated_proj_mlp"))
        if component.endswith("proj_out") and attn is not None and (proj_mlp, gated) != (None, None):
            found[[site for site in (attn, proj_mlp) if site is not None]] = reader
    return found


def running_order(sites: Sequence[tuple[str, str]]) -> np.ndarray:
    """Sort sites in the order in which a forward runs them: as given, except that `proj_mlp` runs before `attn`.

    Args:
        sites: (block, component) of each site, blocks in the order in which they run.

    Returns:
        int (sites,), a permutation.

    >>> running_order([("single_0", "single_attn"), ("single_0", "single_proj_mlp"), ("single_0", "single_proj_out")])
    array([1, 0, 2])
    """
    first: dict[str, int] = {}
    for position, (block, _) in enumerate(sites):
        first.setdefault(block, position)
    keys = [(first[block], not component.endswith("proj_mlp"), i) for i, (block, component) in enumerate(sites)]
    return np.array([i for *_, i in sorted(keys)], dtype=np.intp)
