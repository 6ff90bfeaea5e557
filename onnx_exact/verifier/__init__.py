"""An independent checker of results: its own reading of both models, its own arithmetic.

It shares no code with what reads, decides and reduces (`graph`, `bounds`, `bab`, `decide`, ...)
or with the writer of certificates (`certify`), so that a mistake there cannot hide here. To be read
in this order:

    refusals                        the two ways to refuse
    rounding, balls, intervals      float64 rounded outward
    model, operators, chain         what a file computes between two tensors
    products, bounds                one inequality for a ReLU, one way back to the input
    schema                          what is claimed
    claims, trees                   the verdicts on the units
    deviation, hyperplanes          how far the result is from the original
    front, front_rules              over which box
    channels, movement              the original without channels that are 0, or not read
    coverage                        that nothing else differs
    check, clock                    all of that in order, in bounded time

docs/certificate.md states what it shows.
"""
