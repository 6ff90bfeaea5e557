"""Mixed-integer programs over a chain, in PySCIPOpt."""
