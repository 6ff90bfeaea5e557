"""Channels and features that can go anywhere in a graph, whatever its architecture.

Every entry of every tensor carries a label; what always goes together has the same one. Data
movement (Reshape, Transpose, Concat, ...) is executed on the labels themselves, so that it needs no
rule of its own:

    graph inputs and outputs, and whatever is not known     the label PINNED
    what chains of dense layers make on the way              PINNED: it is theirs
    Conv, ConvTranspose, Gemm, MatMul, by constant weights   a fresh label for each output channel;
                                                             they READ the labels of their input
    depthwise Conv, BatchNormalization, functions of one     the label of the input
      tensor, entry by entry, constants beside it or not
    Add, Mul, ... of several tensors                         one label for what meets
    pooling, means over space                                the label of the window
    data movement                                            the operator, run on the labels

A label is alive if it is PINNED, or if someone reads it with a weight other than 0, where its value
is not always 0 on the domain, into a label that is alive. All other labels go: what is alive is
the same sum without terms that are 0, so that nothing is moved in real arithmetic. Zero weights
need no domain; values that are always 0 come from the intervals of the graph. A value that is
constant and not 0 is no reason to stay either: its readers get what they made of it beside their
bias, which is rounded to their type.

    labelling what is found of labels
    labels    labels of all tensors, and who reads them
    move      data movement, run on labels
    steady    which labels stand for constants
    constants what readers make of constants that go
    apart     how far what is rounded moves the outputs
    alive     which of them stay: those that are alive, whole slices, whole blocks of channels
    params    constants that can be cut
    write     the graph without the rest
    narrow    these in order, until nothing more goes
"""
