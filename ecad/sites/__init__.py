"""The places in a model whose outputs a schedule may reuse: their names, their order, and how they are found."""
