"""A network in the models of others: PySCIPOpt-ML, OMLT, gurobi-machinelearning, Marabou.

Each takes a network as its own reader does, and bounds of `--bounds` where they are given, in the
way that `docs/bounds.md` shows. None of the packages is needed elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network.chain import Chain

# Seconds of the clock that are allowed for one of the processor.
CLOCK = 20.0
Array = NDArray[np.float64]
# Of a ReLU layer, in order: lower and upper bounds on its pre-activations.
LayerBounds = Sequence[tuple[Array, Array]]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What to solve: the largest value of `output @ direction` for inputs in a box.

    Attributes:
        lower, upper: shape (inputs,).
        direction: shape (outputs,).
    """

    lower: Array
    upper: Array
    direction: Array


def layer_bounds(path: Path, which: str, model: onnx.ModelProto) -> LayerBounds:
    """The bounds of a file of `--bounds` that belong to the ReLUs of a model, in its order."""
    with np.load(path) as bounds:
        return [
            (
                bounds[f"{which}/{node.input[0]}/lower"],
                bounds[f"{which}/{node.input[0]}/upper"],
            )
            for node in model.graph.node
            if node.op_type == "Relu"
        ]


def scip(
    model: onnx.ModelProto, problem: Problem, bounds: LayerBounds | None, seed: int, limit: float
) -> Entry:
    """Solves with PySCIPOpt-ML."""
    from pyscipopt import Model, quicksum
    from pyscipopt_ml.add_predictor import add_predictor_constr

    program = Model()
    program.hideOutput()
    x = np.array(
        [
            [
                program.addVar(lb=low, ub=high)
                for low, high in zip(problem.lower, problem.upper, strict=True)
            ]
        ]
    )
    network = add_predictor_constr(program, model, x)
    relus = [layer for layer in network._layers if layer.activation == "relu"]
    binaries = 0
    for number, layer in enumerate(relus):
        slack = layer._created_vars[0]
        for unit in range(layer.output.shape[1]):
            h, s = layer.output[0, unit], slack[0, unit]
            if bounds is not None:
                low, high = (float(side[unit]) for side in bounds[number])
                program.chgVarLb(h, max(h.getLbOriginal(), low, 0.0))
                program.chgVarUb(h, min(h.getUbOriginal(), max(high, 0.0)))
                program.chgVarLb(s, max(s.getLbOriginal(), -high, 0.0))
                program.chgVarUb(s, min(s.getUbOriginal(), max(-low, 0.0)))
            binaries += h.getUbOriginal() > 0.0 and s.getUbOriginal() > 0.0
    y = network.output[0]
    program.setObjective(
        quicksum(float(c) * y[k] for k, c in enumerate(problem.direction) if c), "maximize"
    )
    return _solved(program, binaries, seed, limit)


def big_m(chain: Chain, problem: Problem, seed: int, limit: float) -> Entry:
    """Solves with SCIP a big-M model of a chain, its constants from plain intervals."""
    from pyscipopt import Model, quicksum

    program = Model()
    program.hideOutput()
    low, high = problem.lower, problem.upper
    h = [program.addVar(lb=a, ub=b) for a, b in zip(low, high, strict=True)]
    binaries = 0
    for layer in chain.layers:
        low, high = interval_bounds(layer.affine, low, high)
        below, made = h, []
        for unit, row in enumerate(layer.affine.weight):
            terms = quicksum(float(w) * below[k] for k, w in enumerate(row) if w)
            g = terms + float(layer.affine.bias[unit])
            least, most = float(low[unit]), float(high[unit])
            if not layer.relu or least >= 0.0:
                value = program.addVar(lb=least, ub=most)
                program.addCons(value == g)
            elif most <= 0.0:
                value = program.addVar(lb=0.0, ub=0.0)
            else:
                value, on = program.addVar(lb=0.0, ub=most), program.addVar(vtype="B")
                binaries += 1
                program.addCons(value >= g)
                program.addCons(value <= g - least * (1 - on))
                program.addCons(value <= most * on)
            made.append(value)
        h = made
        if layer.relu:
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    margin = quicksum(float(c) * y for c, y in zip(problem.direction, h, strict=True) if c)
    program.setObjective(margin, "maximize")
    return _solved(program, binaries, seed, limit)


def _solved(program: Any, binaries: int, seed: int, limit: float) -> Entry:
    """What SCIP says of a program within so many seconds."""
    program.setParam("randomization/randomseedshift", seed)
    program.setParam("randomization/permutationseed", seed)
    program.setParam("randomization/permutevars", True)
    # The processor's time, whatever else the machine does.
    program.setParam("timing/clocktype", 1)
    program.setParam("limits/time", limit)
    program.setParam("parallel/maxnthreads", 1)
    begun = time.process_time()
    program.optimize()
    return {
        "binaries": int(binaries),
        "nodes": int(program.getNTotalNodes()),
        "seconds": time.process_time() - begun,
        "status": program.getStatus(),
        "value": program.getObjVal() if program.getNSols() else None,
        "bound": program.getDualbound(),
    }


def omlt(
    model: onnx.ModelProto, problem: Problem, bounds: LayerBounds | None, seed: int, limit: float
) -> Entry:
    """Solves OMLT's big-M formulation with HiGHS."""
    import pyomo.environ as pyo
    from omlt import OmltBlock
    from omlt.io import load_onnx_neural_network
    from omlt.neuralnet import ReluBigMFormulation

    logging.getLogger("pyomo").setLevel(logging.ERROR)
    box = {i: (float(a), float(b)) for i, (a, b) in enumerate(_pairs(problem))}
    network = load_onnx_neural_network(model, input_bounds=box)
    program = pyo.ConcreteModel()
    program.net = OmltBlock()
    program.net.build_formulation(ReluBigMFormulation(network))
    blocks = [block for block in program.net.layer.values() if hasattr(block, "q_relu")]
    binaries = 0
    for number, block in enumerate(blocks):
        for unit, index in enumerate(block.q_relu):
            if bounds is not None:
                tighten_omlt(block, index, *(float(side[unit]) for side in bounds[number]))
            binaries += not block.q_relu[index].fixed
    outputs = [program.net.outputs[index] for index in program.net.outputs]
    program.goal = pyo.Objective(
        expr=sum(float(c) * y for c, y in zip(problem.direction, outputs, strict=True) if c),
        sense=pyo.maximize,
    )
    solver = pyo.SolverFactory("appsi_highs")
    # HiGHS counts by the clock, which other processes may slow down.
    solver.options.update({"time_limit": CLOCK * limit, "threads": 1, "random_seed": seed})
    begun = time.process_time()
    found = solver.solve(program, load_solutions=False)
    seconds = time.process_time() - begun
    return {
        "binaries": int(binaries),
        "nodes": int(solver._solver_model.getInfo().mip_node_count),
        "seconds": seconds,
        "status": str(found.solver.termination_condition),
        "value": found.problem.lower_bound,
        "bound": found.problem.upper_bound,
    }


def tighten_omlt(block: Any, index: Any, low: float, high: float) -> None:
    """Gives bounds on one pre-activation to a layer of OMLT's big-M formulation."""
    before = block.zhat[index]
    low, high = max(low, before.lb), min(high, before.ub)
    before.setlb(low)
    before.setub(high)
    block.z[index].setlb(max(low, 0.0))
    block.z[index].setub(max(high, 0.0))
    block._big_m_lb_relu[index] = low
    block._big_m_ub_relu[index] = high
    if low >= 0.0:
        block.q_relu[index].fix(1)
    elif high <= 0.0:
        block.q_relu[index].fix(0)


def _pairs(problem: Problem) -> list[tuple[float, float]]:
    return list(zip(problem.lower, problem.upper, strict=True))


SOLVERS: Mapping[str, Any] = {"PySCIPOpt-ML": scip, "OMLT": omlt}


def marabou(
    path: Path, problem: Problem, bounds: LayerBounds | None, least: float, limit: float
) -> Entry:
    """Asks Marabou whether `output @ direction` can be as large as `least`."""
    from maraboupy import Marabou, MarabouCore, MarabouUtils

    network = Marabou.read_onnx(str(path))
    for variable, (low, high) in zip(np.ravel(network.inputVars[0]), _pairs(problem), strict=True):
        network.setLowerBound(int(variable), float(low))
        network.setUpperBound(int(variable), float(high))
    if bounds is not None:
        sides = [np.concatenate(side) for side in zip(*bounds, strict=True)]
        for (before, _), low, high in zip(network.reluList, *sides, strict=True):
            network.setLowerBound(before, float(low))
            network.setUpperBound(before, float(high))
    query = MarabouUtils.Equation(MarabouCore.Equation.GE)
    for variable, c in zip(np.ravel(network.outputVars[0]), problem.direction, strict=True):
        if c:
            query.addAddend(float(c), int(variable))
    query.setScalar(least)
    network.addEquation(query)
    options = Marabou.createOptions(verbosity=0, timeoutInSeconds=int(limit), numWorkers=1)
    begun = time.process_time()
    answer, _, statistics = network.solve(options=options, verbose=False)
    splits = MarabouCore.StatisticsUnsignedAttribute.NUM_SPLITS
    return {
        "nodes": int(statistics.getUnsignedAttribute(splits)),
        "seconds": time.process_time() - begun,
        "status": answer,
    }


def reads_scip(path: Path, inputs: int) -> None:
    """Lets PySCIPOpt-ML read a network."""
    model = onnx.load(path)
    scip(model, Problem(np.zeros(inputs), np.zeros(inputs), np.zeros(1)), None, 0, 1.0)


def reads_omlt(path: Path, inputs: int) -> None:
    """Lets OMLT read a network."""
    from omlt.io import load_onnx_neural_network

    load_onnx_neural_network(onnx.load(path), input_bounds=dict.fromkeys(range(inputs), (0, 1)))


def reads_gurobi(path: Path, inputs: int) -> None:
    """Lets gurobi-machinelearning read a network."""
    import gurobipy
    from gurobi_ml.onnx import add_onnx_constr

    with gurobipy.Env(params={"OutputFlag": 0}) as environment:
        program = gurobipy.Model(env=environment)
        x = program.addMVar((1, inputs), lb=0.0, ub=1.0)
        add_onnx_constr(program, onnx.load(path), x)


def reads_marabou(path: Path, inputs: int) -> None:
    """Lets Marabou read a network."""
    from maraboupy import Marabou

    del inputs
    Marabou.read_onnx(str(path))


READERS: Mapping[str, Any] = {
    "PySCIPOpt-ML": reads_scip,
    "OMLT": reads_omlt,
    "gurobi-machinelearning": reads_gurobi,
    "Marabou": reads_marabou,
}
